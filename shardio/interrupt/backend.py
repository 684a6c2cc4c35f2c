"""`InterruptBackend`: what the abstraction needs of a hypervisor, and nothing that a device ever sees.

The unit is the irqfd: an eventfd bound to a GSI, so that writing the one raises the other. A level
interrupt has a second eventfd, the resample fd, which the hypervisor signals when the guest ends the
interrupt. Implementations: KVM (`shardio.kvm.interrupt`), the proxy of a shard (`shardio.interrupt.proxy`)
and `RecordingBackend` for unit tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shardio.interrupt.config import MsiConfig

RISE, FALL = 1 << 32, 1
"""What a level line without a resample fd adds to its eventfd when it rises, and when it falls."""


@dataclass(frozen=True, slots=True)
class Irqfd:
    """A GSI and the eventfd that raises it. The backend owns the descriptors; they close in `free`.

    `handle` names it towards its backend (several irqfds may share one GSI); `resample_fd` is None for edge.
    `with_access`: raises the GSI with the completion of the access in hand and says True; False outside an
    access. None where the hypervisor injects within the eventfd write, or offers nothing better.
    `set_level`: of a level line without a resample fd, whose controller follows it up and down. Makes it high
    or low, and says whether the controller learns that by the completion of the access in hand; else the
    eventfd is to be written: `RISE`, `FALL`.
    `told`: called, for a trace, whenever the interrupt is raised, or (False) lowered; it may be left out
    while the first of `traced` is 0.
    `page`: `fd` is no eventfd but a raise page (`shardio.interrupt.raising`), and those two always say True.
    """

    handle: int
    gsi: int
    fd: int
    resample_fd: int | None = None
    with_access: Callable[[], bool] | None = field(default=None, compare=False)
    set_level: Callable[[bool], bool] | None = field(default=None, compare=False)
    page: bool = False
    told: Callable[[bool], None] | None = field(default=None, compare=False)
    traced: Sequence[int] = field(default=(1,), compare=False)


class InterruptBackend(Protocol):
    """What a hypervisor must offer. Every method raises InterruptError with the hint when it is refused."""

    def allocate(self, gsi: int | None, *, level: bool = False, followed: bool = False) -> Irqfd:
        """An irqfd, not connected yet: on that GSI, or, for None, on a free one that MSI messages can be
        routed to.

        `level`: only for a given GSI; with a resample fd, or, `followed` or where the backend has no other
        kind, one that `set_level` moves.
        """

    def set_route(self, handle: int, message: MsiConfig) -> None:
        """From now on the irqfd's (dynamic) GSI delivers `message` (KVM_SET_GSI_ROUTING)."""

    def connect(self, handle: int) -> None:
        """A write to the eventfd raises the GSI from now on (KVM_IRQFD). Idempotent."""

    def disconnect(self, handle: int) -> None:
        """The eventfd raises nothing any more (KVM_IRQFD_FLAG_DEASSIGN). Idempotent."""

    def free(self, handle: int) -> None:
        """Disconnect, close the descriptors, give a dynamic GSI back."""
