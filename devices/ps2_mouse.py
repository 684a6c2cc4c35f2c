"""`Mouse`: a PS/2 mouse that nobody moves: it answers its commands and sends nothing of its own.

Source: IBM PS/2 Hardware Interface Technical Reference, "Mouse", commands and status.

>>> mouse = Mouse()
>>> [hex(byte) for byte in mouse.receive(0xFF)]
['0xfa', '0xaa', '0x0']
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

_ACK, _RESEND, _ERROR, _SELF_TEST_PASSED = 0xFA, 0xFE, 0xFC, 0xAA
_STANDARD_MOUSE: Final = 0x00


class _Command(IntEnum):
    """What a host sends."""

    SCALING_1_TO_1 = 0xE6
    SCALING_2_TO_1 = 0xE7
    RESOLUTION = 0xE8
    STATUS = 0xE9
    STREAM_MODE = 0xEA
    READ_DATA = 0xEB
    RESET_WRAP_MODE = 0xEC
    WRAP_MODE = 0xEE
    REMOTE_MODE = 0xF0
    IDENTIFY = 0xF2
    SAMPLE_RATE = 0xF3
    ENABLE = 0xF4
    DISABLE = 0xF5
    DEFAULTS = 0xF6
    RESEND = 0xFE
    RESET = 0xFF


_RATES: Final = (10, 20, 40, 60, 80, 100, 200)
_NOT_MOVED: Final = (0x08, 0, 0)


class MouseState(msgspec.Struct):
    """`command`: whose argument comes next, 0 for none; `sent`: the bytes of the last answer. `rate` is in
    reports a second; `resolution` is 0 to 3 for 1, 2, 4 and 8 counts a millimetre.
    """

    command: int = 0
    enabled: bool = False
    remote: bool = False
    wrap: bool = False
    doubled: bool = False
    resolution: int = 2
    rate: int = 100
    sent: tuple[int, ...] = ()


class Mouse:
    """A standard mouse of two or three buttons, id 0."""

    def __init__(self) -> None:
        self.state = MouseState()

    def receive(self, byte: int) -> tuple[int, ...]:
        """The host sends `byte`; what the mouse answers."""
        s = self.state
        if byte == _Command.RESEND and not s.wrap:
            return s.sent
        if s.wrap and byte not in (_Command.RESET_WRAP_MODE, _Command.RESET):
            answer: tuple[int, ...] = (byte,)
        elif s.command:
            answer = self._argument(byte)
        else:
            answer = self._command(byte)
        self.state.sent = answer
        return answer

    def _argument(self, value: int) -> tuple[int, ...]:
        s = self.state
        command, s.command = s.command, 0
        if command == _Command.SAMPLE_RATE and value in _RATES:
            s.rate = value
        elif command == _Command.RESOLUTION and value <= 3:
            s.resolution = value
        else:
            return (_ERROR,)
        return (_ACK,)

    def _command(self, command: int) -> tuple[int, ...]:
        s = self.state
        match command:
            case _Command.RESET:
                self.state = MouseState()
                return (_ACK, _SELF_TEST_PASSED, _STANDARD_MOUSE)
            case _Command.DEFAULTS:
                self.state = MouseState()
            case _Command.ENABLE | _Command.DISABLE:
                s.enabled = command == _Command.ENABLE
            case _Command.SAMPLE_RATE | _Command.RESOLUTION:
                s.command = command
            case _Command.IDENTIFY:
                return (_ACK, _STANDARD_MOUSE)
            case _Command.REMOTE_MODE | _Command.STREAM_MODE:
                s.remote = command == _Command.REMOTE_MODE
            case _Command.WRAP_MODE | _Command.RESET_WRAP_MODE:
                s.wrap = command == _Command.WRAP_MODE
            case _Command.READ_DATA:
                return (_ACK, *_NOT_MOVED)
            case _Command.STATUS:
                status = s.remote << 6 | s.enabled << 5 | s.doubled << 4
                return (_ACK, status, s.resolution, s.rate)
            case _Command.SCALING_1_TO_1 | _Command.SCALING_2_TO_1:
                s.doubled = command == _Command.SCALING_2_TO_1
            case _:
                return (_RESEND,)
        return (_ACK,)
