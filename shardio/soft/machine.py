"""`SoftMachine`: the software CPU's half of a machine, all but its workers as the supervisor sees them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from shardio._core import ffi, lib
from shardio.closing import Closing
from shardio.entry import RESET_VECTOR
from shardio.fabric import Fabric
from shardio.firmware import FOUR_GIB, place_firmware
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.wires import IOAPIC_WIRES, PIC_WIRES
from shardio.memory import LOW_MEMORY_END, GuestMemory
from shardio.range import MmioRange, PioRange
from shardio.reserved import Reserved, reserved_by_soft
from shardio.soft.boot import MODES, set_entry
from shardio.soft.doorbell import SoftDoorbells
from shardio.soft.interrupt import SoftBackend
from shardio.soft.library import library
from shardio.soft.process import Start
from shardio.soft.record import Record

BOARD: Final = (("shardio.devices:Pic", None), ("shardio.devices:IoApic", None), ("shardio.devices:Pit", 0))


class SoftMachine(Closing):
    """`vcpus` software vCPUs over guest RAM. `irqchip`: local APICs, and controllers that are devices of a
    shard; without, HLT ends a vCPU and every vCPU begins at the entry.

    Raises `HostError` where Unicorn is not installed, or the host gives no memory, `MachineError` for too
    many vCPUs.
    """

    name = "soft"
    coalesces = False
    modes: Sequence[str] = MODES
    board: Sequence[tuple[str, int | None]]
    """Devices that `irqchip=True` stands for, by type and line."""

    def __init__(self, memory: GuestMemory, vcpus: int, irqchip: bool | str = True) -> None:
        self.memory = memory
        self.has_irqchip = bool(irqchip)
        self.board = BOARD if irqchip is True else ()
        self._library = library()
        with contextlib.ExitStack() as undo:
            self.record = undo.enter_context(Record(memory, vcpus, apic=self.has_irqchip))
            self.interrupts: InterruptBackend | None = None
            if irqchip:
                self.interrupts = undo.enter_context(SoftBackend(self.record, board=irqchip is True))
            self.doorbells = undo.enter_context(SoftDoorbells(self.record))
            self._cleanup = undo.pop_all()

    def reserved(self, span: PioRange | MmioRange) -> Reserved | None:
        """What answers in place of a device at `span`; None where the device is reached."""
        return reserved_by_soft(span, self.has_irqchip)

    def placed(self, answered: Callable[[PioRange | MmioRange], bool]) -> None:
        """Devices have come or gone: lines lead to the interrupt controllers that are devices now."""
        controllers = lib.SIO_WIRED_PIC if answered(PIC_WIRES) else 0
        controllers |= lib.SIO_WIRED_IOAPIC if answered(IOAPIC_WIRES) else 0
        self.record.view.controllers = controllers

    def supervised(
        self, watch: Callable[[int, Callable[[], None]], None], forget: Callable[[int], None]
    ) -> None:
        """The vCPUs are there. Nothing is to be watched: they look at the raise page themselves."""

    def told(self, index: int, fabric: Fabric, doorbells: Mapping[int, int], event: int) -> Start:
        """What the worker of vCPU `index` is told. `doorbells`: the eventfd of each shard; `event`: an
        eventfd to be rung at every change of state.
        """
        return Start(
            index=index,
            library=os.fspath(self._library),
            record=self.record.fd,
            raising=self.record.raise_fd,
            memory=self.memory.fd,
            rom=self.record.rom_fd,
            fabric=fabric.fd,
            event=event,
            shards=dict(doorbells),
            doorbells=self.doorbells.fds,
        )

    def set_entry(self, mode: str, entry: int, registers: Mapping[str, int] | None = None) -> None:
        """Where the guest begins, on each vCPU that does not wait for INIT and SIPI."""
        for index in range(self.record.vcpus):
            if index == 0 or not self.has_irqchip:
                state = ffi.addressof(self.record.vcpu(index).entry)
                set_entry(state, self.memory, mode, entry, registers)

    def ram_changed(self) -> None:
        """See `Hypervisor.ram_changed`."""
        low = [region for region in self.memory.regions if region.end <= LOW_MEMORY_END]
        starts = [*(region.guest_address for region in low[1:]), min(self.memory.size, LOW_MEMORY_END)]
        gaps = (range(region.end, start) for region, start in zip(low, starts, strict=True))
        self.record.set_holes([gap for gap in gaps if gap])

    def load_firmware(self, path: Path) -> int:
        """Put a firmware image at the top of 4 GiB; returns the entry. Raises `ImageError`."""
        image = place_firmware(self.memory, path)
        self.record.set_rom(FOUR_GIB - len(image), image)
        return RESET_VECTOR

    def close(self) -> None:
        """Give everything back; the workers must have ended. Idempotent."""
        self._cleanup.close()
