"""Where a device's input bytes come from: `ByteInput`, read only when the device has room, so nothing is
lost.

A device resumes it while it has room and pauses it when it has none; what is not read yet stays with the host
(in the pipe, the terminal or the file), which is the back-pressure.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from shardio.devices.byte_fd import ByteFd, Pty, handed_over
from shardio.errors import DeviceOptionError

if TYPE_CHECKING:
    from shardio.device import DeviceHost

_FORMS = 'write "none", "stdin", "pty", "file:PATH" or "fd:N" (N a descriptor that was handed over)'


class ByteInput:
    """The file behind an `input` option. `ended` turns true at its end, `pty` is the terminal it opened."""

    def __init__(self, spec: str, *, device: str, option: str = "input") -> None:
        """`spec`: "none", "stdin", "pty", "file:PATH" (a FIFO or character device too) or "fd:N".

        Raises DeviceOptionError for any other, naming `device` and `option`.
        """
        kind, _, argument = spec.partition(":")
        known = spec in ("none", "stdin", "pty") or (kind == "file" and argument and "\0" not in argument)
        if not known and not (kind == "fd" and argument.isdecimal() and len(argument) < 10):
            raise DeviceOptionError(device, option, spec, _FORMS)
        self.spec = spec
        self.ended = spec == "none"
        self.pty: Pty | None = None
        self._device = device
        self._option = option
        self._fd: ByteFd | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_ready: Callable[[], None] | None = None
        self._running = False
        self._scheduled = False

    def attach(self, host: DeviceHost, on_ready: Callable[[], None]) -> None:
        """Open the file; `on_ready` is called from the host's loop while there is something to read and it is
        resumed.

        Raises DeviceOptionError when the file cannot be opened, or the descriptor was not handed over.
        """
        self._loop, self._on_ready = host.loop, on_ready
        if self.spec == "none" or self._fd is not None:
            return
        kind, _, argument = self.spec.partition(":")
        try:
            if kind == "file":
                self._fd = ByteFd.reading(argument)
            elif kind == "pty":
                self.pty = Pty()
                self._fd = self.pty.sharing()
            else:
                fd = 0
                if kind == "fd":
                    fd = handed_over(argument, host, device=self._device, option=self._option)
                self._fd = ByteFd.sharing(fd, os.O_RDONLY)
        except OSError as error:
            hint = f"{error.strerror}; name a file that this process may read"
            raise DeviceOptionError(self._device, self._option, self.spec, hint) from error

    def resume(self) -> None:
        """Call `on_ready` when there is something to read. Does nothing at the end of the file."""
        if self._running or self.ended or self._fd is None or self._loop is None or self._on_ready is None:
            return
        self._running = True
        if self._fd.selectable:
            self._loop.add_reader(self._fd.fileno(), self._on_ready)
        else:
            self._schedule()

    def pause(self) -> None:
        """Stop calling `on_ready`."""
        if self._running and self._fd is not None and self._fd.selectable and self._loop is not None:
            self._loop.remove_reader(self._fd.fileno())
        self._running = False

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer (or none) when no more are there; at the end of the file it pauses for
        good.

        A terminal that hung up, or any other read error, counts as the end.
        """
        if self.ended or self._fd is None:
            return b""
        try:
            data = self._fd.read(count)
        except OSError:
            data = b""
        if data == b"":
            self.pause()
            self.ended = True
        return data or b""

    def close(self) -> None:
        """Stop reading and close; the rest stays with the host."""
        self.pause()
        if self._fd is not None:
            self._fd.close()
        if self.pty is not None:
            self.pty.close()
        self._fd, self.pty, self._loop = None, None, None

    def _schedule(self) -> None:
        """A regular file is always ready: one call a loop turn while resumed."""
        if self._running and not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self._running and self._on_ready is not None:
            self._on_ready()
            self._schedule()
