"""`ImageLock`: one writer of a disk image, or any number of readers, on the whole host.

Facts. Two guests that write one image destroy its file system, and nothing tells them. An
open-file-description lock (fcntl(2), F_OFD_SETLK) belongs to one open file, so that two devices of one
process exclude each other as two machines do, and it ends with its owner, however that ends. Asked who
holds one, the kernel gives no process id.

Consequences. The first half of the offsets is the lock itself. In the second half each holder also locks
the one byte whose place is its process id, so that whoever is refused can name it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from pathlib import Path
from typing import Final

from shardio.errors import ImageError

log = logging.getLogger("shardio.devices.virtio")

_IDS: Final = 1 << 62
"""Offsets from here up stand for process ids."""
_ALL_IDS: Final = 1 << 32
# struct flock with 64-bit offsets: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("=hh4xqqi4x")
_SHOWN: Final = 80

_holders: dict[tuple[int, int], list[str]] = {}
"""By device and inode: the names of this process's users, which no lock can tell."""


class ImageLock:
    """The lock that `user` holds on an open image, until `release` or until the descriptor is closed."""

    def __init__(self, fd: int, path: str, user: str, *, writable: bool) -> None:
        """Lock the file behind `fd`, open for writing if `writable`. A file system without locks is told of
        in the log.

        Raises ImageError naming both users when another user's lock is in the way.
        """
        self._fd = fd
        status = os.fstat(fd)
        self._file = status.st_dev, status.st_ino
        self._user = user
        try:
            _set(fd, fcntl.F_WRLCK if writable else fcntl.F_RDLCK, 0, _IDS)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                said = "image %s cannot be locked (%s): let no other machine use it"
                log.warning(said, path, error.strerror)
                return
            how = "writing" if writable else "reading"
            reason = f"{user} of process {os.getpid()} wants it for {how}, but {self._other()} has it"
            hint = "give each machine its own copy, or give it to all of them with read_only = true"
            raise ImageError(path, reason, hint) from None
        _set(fd, fcntl.F_RDLCK, _IDS + os.getpid(), 1)
        _holders.setdefault(self._file, []).append(user)

    def release(self) -> None:
        """Let others have it. Idempotent."""
        users = _holders.get(self._file, [])
        if self._user in users:
            users.remove(self._user)
            _set(self._fd, fcntl.F_UNLCK, 0, 0)
        if not users:
            _holders.pop(self._file, None)

    def _other(self) -> str:
        """Who holds the lock that is in the way, as far as can be told."""
        pid = _holder(self._fd)
        if pid == os.getpid():
            return f"{', '.join(_holders.get(self._file, []))} of the same process"
        return "another process" if pid is None else f"process {pid}{_command(pid)}"


def _set(fd: int, kind: int, start: int, length: int) -> None:
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))


def _holder(fd: int) -> int | None:
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _IDS, _ALL_IDS, 0)
    kind, _, start, _, _ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(start) - _IDS


def _command(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    words = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return f" ({words[:_SHOWN]})" if words else ""
