"""Where a device's output bytes go: `ByteOutput`, which never blocks the shard and loses nothing it was
given.

What the file cannot take now waits in a backlog that the event loop flushes; `full` tells a device with flow
control (the UART) to hold back. What others write beyond twice the limit is dropped and counted, and a
pseudo-terminal drops its oldest bytes, since nobody may ever look at it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from shardio.devices.byte_fd import ByteFd, Pty, handed_over
from shardio.errors import DeviceOptionError

if TYPE_CHECKING:
    from shardio.device import DeviceHost
    from shardio.devices.output_ring import OutputRing

_LOG = logging.getLogger(__name__)
_FORMS = (
    'write "stdout", "stderr", "null", "file:PATH", "pty" or "fd:N" (N a descriptor that was handed over)'
)
_STANDARD = {"stdout": 1, "stderr": 2}


class ByteOutput:
    """The file behind an `output` option, opened at the first byte or by `open()`.

    `written` and `dropped` count bytes; `pty_path` is the terminal's path for "pty", else "".
    """

    def __init__(self, spec: str, *, device: str, limit: int = 1 << 20, stall_ms: int = 2000) -> None:
        """`spec`: one of the forms below; `limit`: bytes of backlog beyond which `full` is true; `stall_ms`:
        how long `close()` waits without progress before it gives the rest up.

        "stdout", "stderr", "null", "file:PATH" (appended to), "pty", "fd:N".
        Raises DeviceOptionError for any other.
        """
        kind, _, argument = spec.partition(":")
        known = spec in (*_STANDARD, "null", "pty") or (kind == "file" and argument and "\0" not in argument)
        if not known and not (kind == "fd" and argument.isdecimal() and len(argument) < 10):
            raise DeviceOptionError(device, "output", spec, _FORMS)
        self.spec = spec
        self.pty_path = ""
        self.written = 0
        self.dropped = 0
        self.on_room: Callable[[], None] | None = None
        self._device = device
        self._limit = limit
        self._stall_ms = stall_ms
        self._fd: ByteFd | None = None
        self._pty: Pty | None = None
        self._backlog = bytearray()
        self._ring: OutputRing | None = None
        self._upto = 0
        self._host: DeviceHost | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching = False
        self._reported = False

    @property
    def backlog(self) -> int:
        """Bytes that were given and are not in the file yet."""
        return len(self._backlog) if self._ring is None else self._ring.pending

    @property
    def full(self) -> bool:
        """Whether a device with flow control should hold back; `on_room` is called when that ends."""
        if self._ring is not None:
            return not self._ring.room
        return len(self._backlog) >= self._limit and self._pty is None

    def open(self, pty: Pty | None = None) -> None:
        """Open the file now. `pty`: the terminal to share when the input has opened one.

        Raises DeviceOptionError when the file cannot be opened. Does nothing when it is open.
        """
        if self._fd is not None or self.spec == "null":
            return
        kind, _, argument = self.spec.partition(":")
        try:
            if kind == "file":
                self._fd = ByteFd.appending(argument)
            elif kind == "pty":
                self._pty = pty or Pty()
                self.pty_path = self._pty.path
                self._fd = self._pty.sharing()
            else:
                if kind == "fd":
                    fd = handed_over(argument, self._host, device=self._device, option="output")
                else:
                    fd = _STANDARD[kind]
                self._fd = ByteFd.sharing(fd, os.O_WRONLY)
        except OSError as error:
            hint = f"{error.strerror}; name a file that this process may write"
            raise DeviceOptionError(self._device, "output", self.spec, hint) from error

    def attach(self, host: DeviceHost, pty: Pty | None = None) -> None:
        """Open, and flush the backlog from the host's loop from now on. Raises DeviceOptionError as `open()`
        does.
        """
        self._host, self._loop = host, host.loop
        self.open(pty)
        self._watch(bool(self._backlog))

    def keep_in(self, ring: OutputRing) -> None:
        """From now on the output's bytes are in `ring`, and leave by `send`; before `attach`."""
        self._ring, self._upto = ring, ring.tail

    def send(self, upto: int) -> None:
        """Let what has come into the ring before `upto` leave. Never within an access: what that gave counts
        after its end.
        """
        self._upto = upto
        self._flush_ring()

    def write(self, data: bytes) -> None:
        """Take `data`, whole. Never blocks and never raises for what the file does; see `dropped`."""
        if self.spec == "null":
            self.written += len(data)
            return
        if self._fd is None:
            self.open()
        if len(self._backlog) >= 2 * self._limit and self._pty is None:
            self._drop(len(data), "nobody takes it")
        elif self._backlog:
            self._backlog += data
            self._flush()
        else:
            taken = self._try_write(data)
            if taken < len(data):
                self._backlog += data[taken:]
                self._watch(True)
        if self._pty is not None and len(self._backlog) > self._limit:
            excess = len(self._backlog) - self._limit
            del self._backlog[:excess]
            self.dropped += excess

    def close(self) -> None:
        """Flush everything, waiting for a slow reader as long as it makes progress, then close."""
        if self._fd is not None:
            stall_ms = 0 if self._pty is not None else self._stall_ms
            while self.backlog and self._fd.wait(select.POLLOUT, stall_ms):
                self._flush()
            self.dropped += self.backlog
            self._backlog.clear()
            self._watch(False)
            self._fd.close()
        if self._ring is not None:
            self._ring.skip(self._ring.pending)
            self._ring = None
        if self._pty is not None:
            self._pty.close()
        self._fd, self._pty, self._loop = None, None, None

    def _flush_ring(self) -> None:
        ring = self._ring
        assert ring is not None
        if self._fd is None:
            self.open()
        had_room = ring.room
        try:
            self.written += ring.send(self._fd, self._upto)
        except OSError as error:
            self._drop(self._upto - ring.head, str(error))
            ring.skip(self._upto - ring.head)
        if self._pty is not None and ring.pending > self._limit_of(ring):
            excess = ring.pending - self._limit_of(ring)
            ring.skip(excess)
            self.dropped += excess
        self._watch(self._upto > ring.head)
        if ring.room > had_room and self.on_room is not None:
            self.on_room()

    @staticmethod
    def _limit_of(ring: OutputRing) -> int:
        """A terminal that nobody looks at takes nothing: half of the ring stays free for what comes."""
        return (ring.pending + ring.room) // 2

    def _flush(self) -> None:
        if self._ring is not None:
            self._flush_ring()
            return
        was_full = self.full
        with memoryview(bytes(self._backlog[:1 << 16])) as head:
            taken = self._try_write(head)
        del self._backlog[:taken]
        self._watch(bool(self._backlog))
        if was_full and not self.full and self.on_room is not None:
            self.on_room()

    def _try_write(self, data: bytes | memoryview) -> int:
        """Bytes of `data` that are done with: written, or given up because the file is broken."""
        assert self._fd is not None
        try:
            taken = self._fd.write(data)
        except OSError as error:
            self._drop(len(data), str(error))
            return len(data)
        self.written += taken
        return taken

    def _drop(self, count: int, reason: str) -> None:
        if not self._reported:
            _LOG.warning("%s: output to %s fails (%s); it is dropped", self._device, self.spec, reason)
            self._reported = True
        self.dropped += count

    def _watch(self, wanted: bool) -> None:
        if wanted == self._watching or self._loop is None or self._fd is None:
            return
        if wanted and self._fd.selectable:
            self._loop.add_writer(self._fd.fileno(), self._flush)
        elif wanted:
            self._loop.call_soon(self._flush_file)
        elif self._fd.selectable:
            self._loop.remove_writer(self._fd.fileno())
        self._watching = wanted

    def _flush_file(self) -> None:
        """A regular file took only a part: try the rest in the next turn."""
        self._watching = False
        if self.backlog:
            self._flush()
