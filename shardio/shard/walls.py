"""The walls around a shard's process: what it may do to the host beside answering the guest.

Facts. A device model is the code that a guest attacks first. A shard runs as the VMM's user, often root;
privileges can be given up for good, but not before it is known what the shard's devices need, and a warm
spare does not know that.

Consequences. From its first moment a shard gains no privileges by what it executes, and dumps no core with
guest memory in it. Before its first device is made it drops every capability that none of its devices
declares (class attribute `capabilities`). A device that comes later and needs one that is gone is refused.
Filters of system calls, Landlock and users of their own belong here, too, and are not there yet.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable

from shardio._core import ffi, lib
from shardio.errors import MachineError

KEPT = ("CAP_DAC_OVERRIDE",)
"""What every shard keeps: root opens the images and logs of other users, as it did before."""
MAX_FILES = 16384
"""Descriptors that a shard may raise its own limit to: all interrupts and doorbells that it can hold (3072
each, a level interrupt has two descriptors), and as many again of its devices' own."""


def capability_bits(names: Iterable[str]) -> int:
    """The capabilities of these names (`CAP_NET_ADMIN`), bit n for capability n. Raises `MachineError` for a
    name that is none.
    """
    bits = 0
    for name in names:
        number = getattr(lib, str(name), None) if str(name).startswith("CAP_") else None
        if number is None:
            raise MachineError(f"{name!r} is no capability", "use a name of capabilities(7)")
        bits |= 1 << number
    return bits


def raise_first() -> None:
    """What needs no knowledge of the devices: no new privileges, no core, a limit on open files. Raises
    `OSError`.
    """
    _check(lib.sio_no_new_privileges())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(soft, MAX_FILES)
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


class Capabilities:
    """What this process has dropped. It drops once: `drop_others`, before the first device is made."""

    def __init__(self) -> None:
        self._dropped: int | None = None

    def drop_others(self, names: Iterable[str]) -> None:
        """Keep these and `KEPT`, drop all others; nothing but the first time. Raises `OSError`."""
        if self._dropped is None:
            dropped = ffi.new("uint64_t *")
            _check(lib.sio_capabilities_keep(capability_bits((*names, *KEPT)), dropped))
            self._dropped = dropped[0]

    def require(self, device: str, names: Iterable[str]) -> None:
        """Raises `MachineError` where a device needs what has been dropped. What this process never had is
        not missed here: the device may do without.
        """
        gone = [name for name in names if capability_bits((name,)) & (self._dropped or 0)]
        if gone:
            raise MachineError(
                f"device {device} needs {', '.join(gone)}, which its shard has given up",
                "place it in a shard of its own, or add it before the start",
            )


def _check(result: int) -> None:
    if result < 0:
        raise OSError(-result, "the walls around a shard cannot be raised")
