"""The terminal as a serial line: raw mode, escapes for the user, and the bytes on to the guest.

Facts: the UART lives in a shard and reads a pipe; the terminal belongs to the VMM process, which alone may
take keys for itself. So a thread here reads standard input, takes out the escapes and writes the rest into
the pipe. In raw mode no key makes a signal (Ctrl-C is the guest's); output processing stays on, so that text
of the VMM and of guests that send bare line feeds still begins its lines at the left.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import threading
from collections.abc import Callable
from enum import Enum
from types import TracebackType
from typing import Any, Self

from shardio.threads import start

ESCAPE = 0x01  # Ctrl-a
HELP = (
    "\r\nshardio: Ctrl-a x   stop the machine and leave\r\n"
    "shardio: Ctrl-a h   this help\r\n"
    "shardio: Ctrl-a Ctrl-a   send Ctrl-a to the guest\r\n"
)
CHUNK = 4096
# Bytes typed ahead of a guest that does not read; a real line would have lost them long before.
BACKLOG = 1 << 16


class Action(Enum):
    """What the user asked of the VMM by an escape."""

    LEAVE = "x"
    HELP = "h"


class EscapeFilter:
    """Takes the escapes out of typed bytes; an escape may be split over two reads.

    >>> keys = EscapeFilter()
    >>> keys.feed(b"ls\\x01")
    (b'ls', [])
    >>> keys.feed(b"h\\x01\\x01\\x01x")
    (b'\\x01', [<Action.HELP: 'h'>, <Action.LEAVE: 'x'>])
    """

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, data: bytes) -> tuple[bytes, list[Action]]:
        """The bytes for the guest, and what was asked of the VMM. An unknown escape is dropped."""
        through = bytearray()
        actions = []
        for byte in data:
            if not self._escaped:
                self._escaped = byte == ESCAPE
                if byte != ESCAPE:
                    through.append(byte)
                continue
            self._escaped = False
            if byte == ESCAPE:
                through.append(ESCAPE)
            elif byte in b"xX":
                actions.append(Action.LEAVE)
            elif byte in b"hH?":
                actions.append(Action.HELP)
        return bytes(through), actions


class RawMode:
    """Raw mode of the terminal `fd` while the context lasts; nothing when it is no terminal, or not ours.

    A background job leaves the terminal's mode alone: setting it would stop the job (SIGTTOU).
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._saved: list[Any] | None = None
        self._raw: list[Any] | None = None

    def __enter__(self) -> Self:
        if not os.isatty(self.fd) or _in_background(self.fd):
            return self
        mode = termios.tcgetattr(self.fd)
        self._saved = termios.tcgetattr(self.fd)
        mode[0] &= ~(
            termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON
            | termios.INLCR | termios.IGNCR
        )  # fmt: skip
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)
        self._raw = mode
        return self

    def suspend(self) -> bool:
        """Lines and echo as before, without the keys that make signals. False where there is no raw mode."""
        if self._saved is None:
            return False
        mode = [*self._saved[:3], self._saved[3] & ~termios.ISIG, *self._saved[4:]]
        return self._set(mode)

    def resume(self) -> None:
        """Raw mode again, after `suspend`."""
        if self._raw is not None and self._saved is not None:
            self._set(self._raw)

    def _set(self, mode: list[Any]) -> bool:
        try:
            termios.tcsetattr(self.fd, termios.TCSANOW, mode)
        except termios.error:  # a terminal that hung up
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            with contextlib.suppress(termios.error):  # a terminal that hung up has no mode to give back
                termios.tcsetattr(self.fd, termios.TCSADRAIN, self._saved)
            self._saved = None


def _in_background(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:  # not this session's terminal (ENOTTY), so without job control
        return False


class SerialInput:
    """Carries standard input to the guest: `reader` is the pipe's end for the shards.

    `source` is a terminal, whose escapes are taken out and where Ctrl-a x calls `leave`, or anything else,
    which passes unchanged. At its end the pipe is closed: the guest's line goes quiet. The context's end
    stops the thread and closes the pipe.
    """

    def __init__(self, source: int, leave: Callable[[], None]) -> None:
        self.source = source
        self.leave = leave
        self.reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._writer, False)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stir = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._rest = threading.Event()
        self._keys = EscapeFilter() if os.isatty(source) else None
        self._backlog = b""
        self._thread = threading.Thread(target=self._carry, name="serial input", daemon=True)

    def __enter__(self) -> Self:
        start(self._thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        for fd in (self._stop, self._stir, self.reader):
            os.close(fd)

    def rest(self, resting: bool) -> None:
        """Leave the source to somebody else, or take it again. From any thread."""
        (self._rest.set if resting else self._rest.clear)()
        os.eventfd_write(self._stir, 1)

    def _carry(self) -> None:
        """The thread: until the source has ended and all of it is in the pipe, or the context ends."""
        source_open = True
        try:
            while source_open or self._backlog:
                # A terminal is read even while the guest reads nothing: the escape must always work.
                wants_more = source_open and (self._keys is not None or not self._backlog)
                ready = self._wait(wants_more)
                if self._stop in ready:
                    return
                if self._stir in ready:
                    os.eventfd_read(self._stir)
                    continue  # whose the source is has changed since
                if self.source in ready:
                    source_open = self._read()
                if self._backlog and self._writer in ready:
                    self._backlog = self._backlog[os.write(self._writer, self._backlog) :]
        except OSError:  # a terminal that hung up: the line is over
            return
        finally:
            os.close(self._writer)

    def _wait(self, wants_more: bool) -> dict[int, int]:
        waiting = select.poll()
        waiting.register(self._stop, select.POLLIN)
        waiting.register(self._stir, select.POLLIN)
        if wants_more and not self._rest.is_set():
            waiting.register(self.source, select.POLLIN)
        if self._backlog:
            waiting.register(self._writer, select.POLLOUT)
        return dict(waiting.poll())

    def _read(self) -> bool:
        """Takes what the source has; False at its end."""
        data = os.read(self.source, CHUNK)
        if not data:
            return False
        if self._keys is not None:
            data, actions = self._keys.feed(data)
            self._act(actions)
        self._backlog = (self._backlog + data)[:BACKLOG]
        return True

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            if action is Action.LEAVE:
                self.leave()
            else:
                sys.stderr.write(HELP)
                sys.stderr.flush()
