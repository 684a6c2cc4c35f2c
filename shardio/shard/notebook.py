"""What a shard leaves where the VMM can read it when it hangs: what it is doing, and its Python stacks.

Facts. A shard that hangs cannot be asked. faulthandler writes the stacks of all threads from a signal's
handler in C, whoever holds the GIL. A socket or pipe can be full, and its writer then waits.

Consequences. The file is a memfd of the VMM's, of a size that is sealed: nobody waits, and a shard can fill
no more than that. The signal is SIGURG, which nothing else uses here and which a process ignores by default:
an interpreter that is not ready yet, or a program that a device starts, is not ended by it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNAL = signal.SIGURG
STEP_BYTES = 512
"""At the beginning: what is being done, in UTF-8, padded with zeros; after it, the stacks."""
SIZE = 64 * 1024

_fd = -1


def create() -> int:
    """A notebook's descriptor, the caller's. Raises OSError."""
    fd = os.memfd_create("shardio-notebook", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SIZE)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_in_shard(fd: int) -> None:
    """From now on the signal writes this process's stacks there."""
    global _fd
    _fd = fd
    os.lseek(fd, STEP_BYTES, os.SEEK_SET)
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """While it lasts, this is what the shard is doing."""
    _note(what)
    try:
        yield
    finally:
        _note("")


def _note(what: str) -> None:
    if _fd >= 0:
        os.pwrite(_fd, what.encode()[: STEP_BYTES - 1].ljust(STEP_BYTES, b"\0"), 0)


def erase(fd: int) -> None:
    """In the VMM: make room for the next stacks."""
    os.pwrite(fd, bytes(SIZE - STEP_BYTES), STEP_BYTES)
    os.lseek(fd, STEP_BYTES, os.SEEK_SET)


def read(fd: int) -> tuple[str, str]:
    """In the VMM: what the shard is doing, and its stacks so far; each "" where there is none."""
    data = os.pread(fd, SIZE, 0)
    step, stacks = data[:STEP_BYTES], data[STEP_BYTES:]
    return _text(step), _text(stacks)


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("utf-8", "replace")
