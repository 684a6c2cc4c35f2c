"""What a hypervisor offers a machine, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shardio.range import MmioRange, PioRange
from shardio.vcpu.interface import Vcpu

if TYPE_CHECKING:
    from shardio.fabric import Fabric
    from shardio.interrupt.backend import InterruptBackend
    from shardio.interrupt.doorbell import DoorbellBackend
    from shardio.reserved import Reserved


class CoalescedZones(Protocol):
    """Ranges whose writes a hypervisor gathers in a ring, which one shard maps: `fd` at page `page`."""

    fd: int
    page: int

    def add(self, span: PioRange | MmioRange) -> None:
        """Writes to `span` go into the ring. Raises `MachineError` where the hypervisor takes no ports."""

    def remove(self, span: PioRange | MmioRange) -> None:
        """Writes to `span` are exits again."""

    def close(self) -> None:
        """Close the descriptor. Idempotent."""


class Hypervisor(Protocol):
    """What runs a machine's vCPUs. `name`: "kvm" or "soft"; `interrupts`, `doorbells`: None where it has
    none.

    `has_irqchip`: the other vCPUs wait for INIT and SIPI, HLT waits for interrupts; `coalesces`: whether
    `coalesced` can be asked for, else a coalesced range is an ordinary posted one.
    """

    name: str

    @property
    def interrupts(self) -> InterruptBackend | None:
        """Raises the guest's interrupts."""

    @property
    def doorbells(self) -> DoorbellBackend | None:
        """Turns writes into events."""

    @property
    def has_irqchip(self) -> bool:
        """Whether local APICs are there: then the other vCPUs wait for INIT and SIPI."""

    @property
    def modes(self) -> Sequence[str]:
        """The entry modes that it can run: of "real", "protected" and "long"."""

    @property
    def board(self) -> Sequence[tuple[str, int | None]]:
        """Devices, by type and interrupt line, that stand for `irqchip=True` where nothing else does."""

    @property
    def coalesces(self) -> bool:
        """Whether `coalesced` can be asked for."""

    def reserved(self, span: PioRange | MmioRange) -> Reserved | None:
        """What answers in place of a device at `span`; None where the device is reached."""

    def vcpu(
        self, index: int, fabric: Fabric, doorbells: Mapping[int, int], event: int, cpu: int | None
    ) -> Vcpu:
        """vCPU `index` at its end of the fabric. `doorbells`: the eventfd of each shard; `event`: an eventfd
        to be rung at every change of state; `cpu`: where its process is pinned, None anywhere.
        """

    def supervised(
        self, watch: Callable[[int, Callable[[], None]], None], forget: Callable[[int], None]
    ) -> None:
        """The vCPUs are there. `watch(fd, then)` calls `then` in the supervisor's thread whenever the
        descriptor is readable, until `forget(fd)`; both are for that thread.
        """

    def placed(self, answered: Callable[[PioRange | MmioRange], bool]) -> None:
        """Devices have come or gone: `answered(span)` tells whether one is there."""

    def coalesced(self) -> CoalescedZones:
        """The coalesced ring. Raises `MachineError` where there is none."""

    def set_entry(self, mode: str, entry: int, registers: Mapping[str, int] | None = None) -> None:
        """Where the guest begins (`shardio.kvm.boot`), on each vCPU that does not wait for INIT and SIPI."""

    def map_memory(self, span: MmioRange, buffer: Any, *, readonly: bool) -> None:
        """`buffer` is the guest's memory at `span`. Raises `MachineError` where there is no such thing."""

    def ram_changed(self) -> None:
        """Guest RAM has other regions now (`GuestMemory.open_holes`); before the first vCPU runs."""

    def load_firmware(self, path: Path) -> int:
        """Put a firmware image at the top of 4 GiB; returns the entry. Raises `ImageError`."""

    def close(self) -> None:
        """Give everything back. Idempotent."""
