"""A seccomp filter for the rest of this process's life: the tests' stand-in for a container's profile.

From <linux/seccomp.h>, <linux/filter.h>, <linux/prctl.h>, the calls' numbers from the kernel's tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

_NUMBERS = {
    "membarrier": {"x86_64": 324, "aarch64": 283},
    "memfd_create": {"x86_64": 319, "aarch64": 279},
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD_NUMBER = (0x20, 0, 0, 0)  # BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def deny(call: str) -> None:
    """Have the kernel answer `call` with EPERM in this process and its children, from now on."""
    number = _NUMBERS[call][platform.machine()]
    refuse, allow = (_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)
    steps = [_LOAD_NUMBER, (_EQUAL, 0, 1, number), refuse, allow]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    zeros = (ctypes.c_ulong(0), ctypes.c_ulong(0))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), ctypes.c_ulong(0), *zeros) or libc.prctl(
        _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), program, *zeros
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
