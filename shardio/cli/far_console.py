"""A console that is not the terminal: `--console pty` and `--console unix:PATH` of `shardio run`.

Facts. A pseudo-terminal or socket that a shard opened goes with the shard. Nobody may be there when the guest
prints, and who comes later wants to see what it said.

Consequences. It belongs to this process, and two pipes lead to the shards. The last 64 KiB that nobody took
wait for whoever comes next; a socket has one client at a time, and the next one waits until that has left.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import threading
import tty
from types import TracebackType
from typing import Self

from shardio.errors import ConfigError
from shardio.threads import start

CHUNK = 1 << 16
KEPT = 1 << 16
FORMS = "write stdio, pty or unix:PATH"
_OWNER_ONLY = 0o600


class FarConsole:
    """`path` is where to find it; `reader` and `writer` are what the guest's serial device reads and writes.

    The thread runs while the context lasts; at its end what the guest said last still goes out.
    """

    def __init__(self, where: str) -> None:
        """Raises ConfigError for what is no such place, or cannot be had."""
        self._listener: socket.socket | None = None
        self._ends: tuple[int, ...] = ()
        kind, _, path = where.partition(":")
        if where == "pty":
            self._far, slave = os.openpty()
            tty.setraw(slave)
            os.set_blocking(self._far, False)
            self._ends = (slave,)  # held open: without it the other end reads an error between two programs
            self.path = os.ttyname(slave)
        elif kind == "unix" and path:
            self._far, self.path = -1, path
            self._listener = _listening(path)
        else:
            raise ConfigError(f"--console {where}", "is no console", FORMS)
        self.reader, self._typed = os.pipe2(os.O_CLOEXEC)
        self._said, self.writer = os.pipe2(os.O_CLOEXEC)
        self._over = os.eventfd(0, os.EFD_CLOEXEC)
        os.set_blocking(self._typed, False)
        os.set_blocking(self._said, False)
        self._keys = self._backlog = b""
        self._thread = threading.Thread(target=self._carry, name="console", daemon=True)

    def __enter__(self) -> Self:
        start(self._thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._over, 1)
        self._thread.join()
        for fd in (self.reader, self._typed, self._said, self.writer, self._over, *self._ends):
            os.close(fd)
        if self._far >= 0:
            os.close(self._far)
        if self._listener is not None:
            self._listener.close()
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    def _carry(self) -> None:
        """The thread: until the context ends, and all that was said before."""
        while True:
            ready = self._wait()
            if self._listener is not None and self._listener.fileno() in ready:
                self._far = self._listener.accept()[0].detach()
                os.set_blocking(self._far, False)
            if self._said in ready:
                self._backlog = (self._backlog + os.read(self._said, CHUNK))[-KEPT:]
            if self._far in ready:
                self._exchange(ready[self._far])
            if self._keys and self._typed in ready:
                self._keys = self._keys[os.write(self._typed, self._keys) :]
            if self._over in ready and self._said not in ready:
                return

    def _wait(self) -> dict[int, int]:
        waiting = select.poll()
        waiting.register(self._over, select.POLLIN)
        waiting.register(self._said, select.POLLIN)
        if self._far >= 0:
            reads, writes = not self._keys, bool(self._backlog)
            waiting.register(self._far, select.POLLIN * reads | select.POLLOUT * writes)
        elif self._listener is not None:
            waiting.register(self._listener, select.POLLIN)
        if self._keys:
            waiting.register(self._typed, select.POLLOUT)
        return dict(waiting.poll())

    def _exchange(self, events: int) -> None:
        """The far end has sent something, takes something, or has gone."""
        try:
            if self._backlog and events & select.POLLOUT:
                self._backlog = self._backlog[os.write(self._far, self._backlog) :]
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._keys = os.read(self._far, CHUNK)
                if not self._keys:
                    self._left()
        except BlockingIOError:
            pass
        except OSError:
            self._left()

    def _left(self) -> None:
        if self._listener is not None:
            os.close(self._far)
            self._far = -1


def _listening(path: str) -> socket.socket:
    """A socket at `path`, for this user alone; one that is left over from a dead program is replaced."""
    where = f"--console unix:{path}"
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            made.connect(path)
            raise ConfigError(where, "another program listens there", "give another path, or end that one")
        made.close()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.fchmod(made.fileno(), _OWNER_ONLY)
        if _is_socket(path):
            os.unlink(path)
        made.bind(path)
        made.listen(1)
    except OSError as error:
        made.close()
        hint = "give a path of at most 107 bytes in a folder that you may write"
        raise ConfigError(where, str(error.strerror or error), hint) from error
    except BaseException:
        made.close()
        raise
    return made


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
