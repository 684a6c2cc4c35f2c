"""Shared memory without a name: a memfd sealed against any other size, or POSIX shared memory where the
kernel has no memfd.

Facts. Whoever has the descriptor of a file can shrink it, and everybody else who touches what is gone dies of
SIGBUS. Only a memfd can be sealed against that. Some sandboxes refuse the system call memfd_create.

Consequences. Memory is a sealed memfd. Where that is refused, `posix_ipc` makes a segment, exclusively and
with mode 0600, and takes its name away at once, with signals blocked meanwhile; a warning says that a shard
of bad intent could then end the machine.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_NO_MEMFD = (errno.EPERM, errno.EACCES, errno.ENOSYS)

log = logging.getLogger("shardio.fabric")


def shared_memory(name: str, size: int, backed: int | None = None, carefully: int | None = None) -> int:
    """The descriptor, the caller's, of `size` fresh bytes, the first `backed` of them (None: all) backed so
    that touching them cannot fail. `name` is what /proc shows. Raises OSError where the host has no room or
    refuses it.

    `carefully`: so many are backed instead where a write to what is not could end the process
    (`_may_fail_late`).
    """
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        if error.errno not in _NO_MEMFD:
            raise
        fd = _posix_shared_memory(name)
        log.warning("memfd_create is refused (%s): %s can be shrunk by whoever shares it", error.strerror,
        name)
    try:
        if carefully is not None and _may_fail_late(fd):
            backed = carefully
        if backed is not None:
            os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, size if backed is None else backed)
        if _sealable(fd):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def keeps_its_size(fd: int) -> bool:
    """Whether nobody can shrink it: it is sealed, or of a kind that cannot be, which this host then lacks."""
    return not _sealable(fd) or fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS


def _may_fail_late(fd: int) -> bool:
    """Whether a write to what is not backed may be a SIGBUS: in a file system with a limit of its own, and
    where the kernel promises no more memory than there is (vm.overcommit_memory = 2, see proc(5)).
    """
    if not _sealable(fd):
        return True
    try:
        with open("/proc/sys/vm/overcommit_memory") as setting:
            return setting.read().strip() == "2"
    except OSError:
        return True


def _sealable(fd: int) -> bool:
    """Whether it is a memfd made for sealing. A file of tmpfs has F_SEAL_SEAL alone, from the first."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) != fcntl.F_SEAL_SEAL
    except OSError:
        return False


def _posix_shared_memory(name: str) -> int:
    """No signal, short of SIGKILL, leaves its name behind."""
    import secrets  # these two take milliseconds, which no shard's start should

    import posix_ipc

    path = f"/{name}-{os.getpid()}-{secrets.token_hex(8)}"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        segment = posix_ipc.SharedMemory(path, posix_ipc.O_CREX, mode=0o600)
        posix_ipc.unlink_shared_memory(path)
    except posix_ipc.Error as error:
        raise OSError(errno.ENOSPC, str(error)) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.set_inheritable(segment.fd, False)
    return int(segment.fd)
