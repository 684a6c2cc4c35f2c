"""`RawImage`: the host file behind a virtio-blk device. Blocking calls, made by the device's threads.

Data goes straight between the file and guest RAM (preadv, pwritev on views of it). Every call either moves
all bytes or raises OSError.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final

from shardio.devices.virtio import buffers
from shardio.devices.virtio.image_lock import ImageLock
from shardio.errors import ImageError

SECTOR: Final = 512
"""Bytes of a sector: the unit of every virtio-blk address (virtio 1.2 section 5.2)."""

_IOV_MAX: Final = 1024
_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE
_PUNCH_HOLE: Final = 2  # FALLOC_FL_PUNCH_HOLE
_ZERO_RANGE: Final = 16  # FALLOC_FL_ZERO_RANGE
_ZEROES: Final = memoryview(bytes(1 << 20))


class RawImage:
    """An open raw image: a regular file or block device of whole sectors."""

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        """Raises ImageError when the file is missing, not permitted, of another type, or no whole sectors."""
        try:
            self._fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except OSError as error:
            hint = (
                "open it with read_only = true, or make it writable" if error.errno in _WRITE_ERRORS else ""
            )
            raise ImageError(path, str(error.strerror), hint or "name an existing file") from error
        except (TypeError, ValueError) as error:  # no text, or one with a zero character
            raise ImageError(repr(path), str(error), "name an existing file") from None
        self.path = path
        self.read_only = read_only
        self._lock: ImageLock | None = None
        self._nowait = True
        try:
            self.size = self._measure()
        except ImageError:
            self.close()
            raise

    def _measure(self) -> int:
        mode = os.fstat(self._fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise ImageError(self.path, "is no regular file or block device", "name a raw disk image")
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if size == 0 or size % SECTOR:
            raise ImageError(
                self.path,
                f"has {size} bytes, not whole sectors",
                f"make it so: truncate -s %{SECTOR} {self.path}",
            )
        return size

    def resize(self, size: int | None = None) -> None:
        """Give the file `size` bytes, or measure what it has. No call may be under way that reads or writes
        what goes. Raises ImageError, and then nothing has changed.
        """
        if size is not None:
            self._set_size(size)
        self.size = self._measure()

    def _set_size(self, size: int) -> None:
        if size <= 0 or size % SECTOR:
            raise ImageError(self.path, f"cannot have {size} bytes", f"give a multiple of {SECTOR}")
        if self.read_only:
            raise ImageError(self.path, "is read-only here", "open it with read_only = false")
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:  # a block device, or no room
            hint = "resize it on the host, then call resize() without a size"
            raise ImageError(self.path, f"cannot have {size} bytes: {error.strerror}", hint) from None

    def lock(self, user: str) -> None:
        """Keep others from writing it, and from reading it where it is writable here, until `close`.
        `user`: whom an error names.

        Raises ImageError when another device, of this or another machine, is in the way.
        """
        if self._lock is None:
            self._lock = ImageLock(self._fd, self.path, user, writable=not self.read_only)

    @property
    def sectors(self) -> int:
        """How many sectors there are."""
        return self.size // SECTOR

    def read(self, offset: int, into: Sequence[memoryview]) -> None:
        """Fill the views from byte `offset`."""
        self._move(os.preadv, offset, into)

    def read_at_hand(self, offset: int, into: Sequence[memoryview]) -> bool:
        """`read`, if that takes no wait for the disk (RWF_NOWAIT). False: it would, it failed, or the file
        system cannot tell; the views may have been filled in part.
        """
        if not self._nowait or len(into) > _IOV_MAX:
            return False
        try:
            return os.preadv(self._fd, into, offset, os.RWF_NOWAIT) == buffers.total(into)
        except OSError as error:
            self._nowait = error.errno != errno.EOPNOTSUPP
            return False

    def write(self, offset: int, data: Sequence[memoryview], *, stable: bool = False) -> None:
        """Write the views at byte `offset`; `stable`: on the disk itself before it returns (RWF_DSYNC)."""
        self._move(functools.partial(_pwritev, os.RWF_DSYNC if stable else 0), offset, data)

    def _move(
        self, call: Callable[[int, Sequence[memoryview], int], int], offset: int, views: Sequence[memoryview]
    ) -> None:
        done, wanted = 0, buffers.total(views)
        rest = list(views)
        while done < wanted:
            moved = call(self._fd, rest[:_IOV_MAX], offset + done)
            if moved == 0:
                raise OSError(errno.EIO, f"{self.path} ends at byte {offset + done}")
            done += moved
            rest = buffers.cut(views, done, wanted - done)

    def flush(self) -> None:
        """Everything written so far is on the disk itself (fdatasync)."""
        os.fdatasync(self._fd)

    def discard(self, offset: int, length: int) -> None:
        """The content is not needed any more: give the space back where the file system can (a hint)."""
        self._fallocate(_PUNCH_HOLE | _KEEP_SIZE, offset, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool, stable: bool = False) -> None:
        """The range reads as zeroes; `unmap`: its space may be given back."""
        mode = _PUNCH_HOLE | _KEEP_SIZE if unmap else _ZERO_RANGE | _KEEP_SIZE
        if not self._fallocate(mode, offset, length):
            for start in range(0, length, len(_ZEROES)):
                self.write(offset + start, [_ZEROES[: min(len(_ZEROES), length - start)]])
        if stable:
            self.flush()

    def _fallocate(self, mode: int, offset: int, length: int) -> bool:
        """fallocate(2). False when the file system cannot do it; raises OSError for what is wrong."""
        if _libc().fallocate(self._fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
            return False
        raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Close the file, its lock with it. Idempotent."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_WRITE_ERRORS: Final = (errno.EACCES, errno.EROFS, errno.EPERM)


def _pwritev(flags: int, fd: int, views: Sequence[memoryview], offset: int) -> int:
    return os.pwritev(fd, views, offset, flags)


@functools.cache
def _libc() -> Any:
    """The C library, for the one call that `os` lacks."""
    return ctypes.CDLL(None, use_errno=True)
