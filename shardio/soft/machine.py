"""`SoftMachine`: the software CPU's half of a machine, all but the workers' processes as the supervisor sees
them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from shardio._core import ffi
from shardio.closing import Closing
from shardio.fabric import Fabric
from shardio.firmware import FOUR_GIB, place_firmware
from shardio.memory import GuestMemory
from shardio.range import MmioRange, PioRange
from shardio.reserved import Reserved, reserved_by_soft
from shardio.soft.boot import RESET_VECTOR, set_entry
from shardio.soft.doorbell import SoftDoorbells
from shardio.soft.interrupt import SoftBackend
from shardio.soft.library import library
from shardio.soft.process import Start
from shardio.soft.record import Record


class SoftMachine(Closing):
    """`vcpus` software vCPUs over guest RAM. `irqchip`: local APICs, and controllers that are devices of a
    shard; without, HLT ends a vCPU and every vCPU begins at the entry.

    Raises `HostError` where Unicorn is not installed, or the host gives no memory, `MachineError` for too
    many vCPUs.
    """

    name = "soft"
    coalesces = False

    def __init__(self, memory: GuestMemory, vcpus: int, irqchip: bool | str = True) -> None:
        self.memory = memory
        self.has_irqchip = bool(irqchip)
        self._library = library()
        with contextlib.ExitStack() as undo:
            self.record = undo.enter_context(Record(memory, vcpus, apic=self.has_irqchip))
            self.interrupts: SoftBackend | None = None
            if irqchip:
                self.interrupts = undo.enter_context(SoftBackend(self.record))
            self.doorbells = undo.enter_context(SoftDoorbells(self.record))
            self._cleanup = undo.pop_all()

    def reserved(self, span: PioRange | MmioRange) -> Reserved | None:
        """What answers in place of a device at `span`; None where the device is reached."""
        return reserved_by_soft(span, self.has_irqchip)

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

    def load_firmware(self, path: Path) -> int:
        """Put a firmware image at the top of 4 GiB; returns the entry. Raises `ImageError`."""
        image = place_firmware(self.memory, path)
        self.record.set_rom(FOUR_GIB - len(image), image)
        return RESET_VECTOR

    def close(self) -> None:
        """Give everything back; the workers must have ended. Idempotent."""
        self._cleanup.close()
