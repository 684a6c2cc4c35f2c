"""Descriptors that never block their user, without changing anything for the other holders of the same file.

Facts. O_NONBLOCK belongs to the open file description, which a shard's stdin, stdout and stderr share with
the terminal's shell and with every other process of the machine: setting it there breaks them. epoll refuses
regular files and /dev/null (EPERM), and these never block for long. Sockets cannot be opened through /proc,
but take MSG_DONTWAIT.

Consequences. A tty, pipe or character device is opened anew through /proc/self/fd, which gives a description
of our own that may be non-blocking. A regular file is duplicated, since a new description would start at
offset 0. A socket is used with MSG_DONTWAIT. What can be none of these (a tty of another user) is polled
before each small transfer.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import tty
from typing import TYPE_CHECKING

from shardio.errors import DeviceOptionError

if TYPE_CHECKING:
    from shardio.device import DeviceHost

# Below what a tty reports room for (256) even when each newline becomes two bytes, and far below PIPE_BUF.
_GUARDED_CHUNK = 120


class ByteFd:
    """One descriptor that is owned here and closed by `close()`.

    `selectable` tells whether an event loop can watch it; a regular file or /dev/null is always ready.
    """

    def __init__(self, fd: int, *, guarded: bool = False) -> None:
        """Take `fd` over. `guarded`: its description may block, so poll before each transfer."""
        mode = os.fstat(fd).st_mode
        self.selectable = _selectable(fd)
        self._socket = socket.socket(fileno=fd) if stat.S_ISSOCK(mode) else None
        self._fd = fd
        self._guarded = guarded and self._socket is None and self.selectable

    @classmethod
    def sharing(cls, fd: int, flags: int) -> ByteFd:
        """A non-blocking view of the file behind `fd`, which stays as it is. `flags`: O_RDONLY or O_WRONLY.

        Raises OSError (EBADF) when `fd` is not open.
        """
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
            return cls(os.dup(fd))
        try:
            own = os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return cls(os.dup(fd), guarded=True)
        return cls(own)

    @classmethod
    def reading(cls, path: str) -> ByteFd:
        """`path` opened for reading; a FIFO stays open while writers come and go. Raises OSError."""
        flags = os.O_RDWR if _is_fifo(path) else os.O_RDONLY
        return cls(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC))

    @classmethod
    def appending(cls, path: str) -> ByteFd:
        """`path` opened for appending, made if missing (mode 0666 less umask). Raises OSError.

        Appending, because a device that is restarted or reloaded must not wipe what it wrote before. A FIFO
        is held open at both ends, so that it needs no reader to be opened, and readers may come and go.
        """
        flags = os.O_RDWR if _is_fifo(path) else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return cls(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666))

    def fileno(self) -> int:
        """The descriptor, for an event loop."""
        return self._fd

    def read(self, count: int) -> bytes | None:
        """Up to `count` bytes, b"" at the end of the file, None when nothing is there yet.

        Raises OSError for anything but EAGAIN.
        """
        try:
            if self._socket is not None:
                return self._socket.recv(count, socket.MSG_DONTWAIT)
            if self._guarded and not self.wait(select.POLLIN, 0):
                return None
            return os.read(self._fd, count)
        except BlockingIOError:
            return None

    def write(self, data: bytes | memoryview) -> int:
        """How many leading bytes of `data` were taken, 0 when none can be now.

        Raises OSError for anything but EAGAIN.
        """
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if not self._guarded:
                return os.write(self._fd, data)
            if not self.wait(select.POLLOUT, 0):
                return 0
            return os.write(self._fd, data[:_GUARDED_CHUNK])
        except BlockingIOError:
            return 0

    def send_from(self, source: int, count: int) -> int:
        """Up to `count` bytes from the offset of the file `source`, which moves by what was taken: how many,
        0 when none can be now. Raises OSError for anything but EAGAIN.
        """
        if self._guarded:
            if not self.wait(select.POLLOUT, 0):
                return 0
            count = min(count, _GUARDED_CHUNK)
        if self._socket is None:  # on which it would wait
            try:
                return os.sendfile(self._fd, source, None, count)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno != errno.EINVAL:  # a file that is appended to
                    raise
        at = os.lseek(source, 0, os.SEEK_CUR)
        taken = self.write(os.pread(source, count, at))
        os.lseek(source, at + taken, os.SEEK_SET)
        return taken

    def wait(self, events: int, timeout_ms: int) -> bool:
        """Whether any of `events` (poll(2) bits) came within `timeout_ms` milliseconds."""
        poller = select.poll()
        poller.register(self._fd, events)
        return bool(poller.poll(timeout_ms))

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self._fd < 0:
            return
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self._fd)
        self._fd = -1


def handed_over(number: str, host: DeviceHost | None, *, device: str, option: str) -> int:
    """The descriptor behind "fd:NUMBER". In a shard that is the VMM's number, of a descriptor that was
    handed over for this device: any other may be the shard's own, its rings among them. Without a host, in
    a program that calls its device itself, it is the program's.

    Raises DeviceOptionError for a number that was not handed over.
    """
    if host is None:
        return int(number)
    passed = getattr(host, "passed_fds", {})
    if int(number) not in passed:
        hint = f"hand the descriptor over with the device: add(..., pass_fds=[{int(number)}])"
        raise DeviceOptionError(device, option, f"fd:{number}", hint)
    return int(passed[int(number)])


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _selectable(fd: int) -> bool:
    """Whether an event loop can watch it: not a regular file, nor what is always ready, such as /dev/null."""
    with select.epoll() as events:
        try:
            events.register(fd, 0)
        except PermissionError:
            return False
    return True


class Pty:
    """A pseudo-terminal in raw mode; `path` is what a terminal program opens (pty(7))."""

    def __init__(self) -> None:
        """Raises OSError when no pseudo-terminal is left."""
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        self.path = os.ttyname(slave)
        self.master = ByteFd(master)
        # Held open so that the master does not read EIO each time a terminal program leaves.
        self._slave = ByteFd(slave)

    def sharing(self) -> ByteFd:
        """Another descriptor of the master, for the second direction."""
        return ByteFd(os.dup(self.master.fileno()))

    def close(self) -> None:
        """Close both ends; `path` disappears."""
        self.master.close()
        self._slave.close()
