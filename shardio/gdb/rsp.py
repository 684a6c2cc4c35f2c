"""The framing of GDB's remote serial protocol: packets with checksums, out of a stream of anything.

Source: "Debugging with GDB", appendix E.1 (Overview) and E.9 (Interrupts).

>>> framer = Framer()
>>> framer.feed(b"+$g#67" + INTERRUPT)
[Packet(body=b'g'), Interrupt()]
>>> frame(b"OK")
b'$OK#9a'
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INTERRUPT: Final = b"\x03"
ACK: Final = b"+"
NACK: Final = b"-"
MOST_BYTES: Final = 0x4000
"""Of a packet's body as it travels; a debugger is told (PacketSize)."""
_START, _END, _ESCAPE = ord("$"), ord("#"), ord("}")
_ESCAPED: Final = frozenset(b"$#}*")
_FLIP: Final = 0x20


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose checksum is right: its body, escapes undone."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """A packet whose checksum is wrong, or that is longer than `MOST_BYTES`."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The debugger's user wants the guest to stop."""


@dataclass(frozen=True, slots=True)
class Again:
    """The debugger has not understood the last packet."""


Event = Packet | Broken | Interrupt | Again


def checksum(body: bytes) -> int:
    """Of a body as it travels: the sum of its bytes, modulo 256."""
    return sum(body) & 0xFF


def escape(data: bytes) -> bytes:
    """Binary data as it travels.

    >>> escape(b"a#b")
    b'a}\\x03b'
    """
    return b"".join(
        bytes((_ESCAPE, byte ^ _FLIP)) if byte in _ESCAPED else bytes((byte,)) for byte in data
    )


def frame(body: bytes) -> bytes:
    """A packet whose body has its binary data escaped already."""
    return b"$%s#%02x" % (body, checksum(body))


def _unescaped(body: bytes) -> bytes:
    out, flip = bytearray(), 0
    for byte in body:
        if byte == _ESCAPE and not flip:
            flip = _FLIP
        else:
            out.append(byte ^ flip)
            flip = 0
    return bytes(out)


class Framer:
    """Takes a stream apart, however it is cut. What is between packets is skipped."""

    def __init__(self) -> None:
        self._body: bytearray | None = None
        """Of the packet that has begun."""
        self._sum: bytearray | None = None
        """The checksum's digits, once its body is there."""

    def feed(self, data: bytes) -> list[Event]:
        """What has become complete with `data`."""
        found: list[Event] = []
        for byte in data:
            event = self._take(byte)
            if event is not None:
                found.append(event)
        return found

    def _take(self, byte: int) -> Event | None:
        if self._sum is not None:
            self._sum.append(byte)
            return self._finish() if len(self._sum) == 2 else None
        if self._body is None:
            if byte == _START:
                self._body = bytearray()
            elif byte == INTERRUPT[0]:
                return Interrupt()
            elif byte == NACK[0]:
                return Again()
        elif byte == _START:  # the end of the one before was lost
            self._body = bytearray()
        elif byte == _END:
            self._sum = bytearray()
        elif len(self._body) < MOST_BYTES + 1:
            self._body.append(byte)
        return None

    def _finish(self) -> Event:
        body, digits = bytes(self._body or b""), bytes(self._sum or b"")
        self._body = self._sum = None
        try:
            told = int(digits.decode("ascii"), 16) if digits.isalnum() else -1
        except ValueError:
            told = -1
        return Packet(_unescaped(body)) if told == checksum(body) and len(body) <= MOST_BYTES else Broken()
