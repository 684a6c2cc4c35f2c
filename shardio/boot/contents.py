"""`Contents`: what a machine's memory holds when its guest begins, and how the guest begins.

Images are loaded one beside the other. A kernel, a payload or a firmware says where vCPU 0 begins, else the
first flat image, unless somebody sets that.
The tables that tell of devices come last, when all devices are known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shardio.boot.flat import load_flat
from shardio.boot.image import Source
from shardio.boot.kernel import Kernel, load_kernel, load_payload
from shardio.boot.module import Module
from shardio.boot.plan import Loaded
from shardio.entry import Entry, boot_tables
from shardio.errors import MachineError
from shardio.memory import GuestMemory
from shardio.platform import TABLE_KINDS, Hardware, place_tables
from shardio.platform.place import ACPI_ADDRESS
from shardio.vcpu.hypervisor import Hypervisor


class Contents:
    """What is in `memory`, and the `entry` of the guest, which `hypervisor` runs."""

    def __init__(self, memory: GuestMemory, hypervisor: Hypervisor, irqchip: bool | str) -> None:
        self.memory = memory
        self.entry: Entry | None = None
        self.kernel: Kernel | None = None
        self._hypervisor = hypervisor
        self._irqchip = irqchip
        self._images: list[Loaded] = []
        self._has_firmware = False
        self._tables: set[str] = set()
        self._rsdp_at: int | None = None

    def load(
        self, image: Source, at: int, entry: int | None, mode: str, registers: Mapping[str, int] | None,
        *, new: bool,
    ) -> None:  # fmt: skip
        """See `Machine.load`. `new`: the machine has not begun, so an image must not lie over another one."""
        begin = None
        if self.entry is None:
            begin = Entry(mode, at if entry is None else entry, registers or {})
        self._images.append(load_flat(self.memory, image, at, self._images if new else ()))
        self.entry = self.entry or begin

    def load_kernel(self, image: Source, modules: Sequence[Module], command_line: str) -> Kernel:
        """See `Machine.load_kernel`."""
        long_mode = "long" in self._hypervisor.modes
        return self._began_by(
            load_kernel(
                self.memory, image, modules, command_line, long_mode=long_mode, taken=self._images
            )
        )

    def load_payload(self, image: Source) -> Kernel:
        """See `Machine.load_payload`."""
        return self._began_by(load_payload(self.memory, image, self._images))

    def load_firmware(self, image: Path) -> None:
        """See `Machine.load_firmware`."""
        if self._tables:
            raise MachineError("firmware makes its own tables", "leave load_tables() out")
        self.entry = Entry("real", self._hypervisor.load_firmware(image))
        self._has_firmware = True

    def load_tables(self, kind: str) -> None:
        """See `Machine.load_tables`."""
        if kind not in TABLE_KINDS:
            raise MachineError(f"no tables {kind!r}", f"use one of {', '.join(TABLE_KINDS)}")
        if self._irqchip is not True:
            raise MachineError("the tables name interrupt controllers and there are none", "use irqchip=True")
        if self._has_firmware:
            raise MachineError("firmware makes its own tables", "load an image, or leave the tables to it")
        self._tables.add(kind)

    @property
    def wide(self) -> bool:
        """Whether the guest comes to long mode, as far as what was loaded tells."""
        long = self.entry is not None and self.entry.mode == "long"
        return long or (self.kernel is not None and self.kernel.bits == 64)

    def begin(self, hardware: Callable[[], Hardware]) -> None:
        """Writes the tables, and sets the vCPUs that begin at the entry."""
        assert self.entry is not None
        for kind in sorted(self._tables):
            check = functools.partial(self._refuse_overlap, f"the {kind} tables")
            place_tables(kind, hardware(), self.memory, check)
        if "acpi" in self._tables and self._rsdp_at is not None:
            self.memory.write(self._rsdp_at, ACPI_ADDRESS.to_bytes(8, "little"))
        self._refuse_overlap("the boot tables", boot_tables(self.entry.mode))
        self._hypervisor.set_entry(self.entry.mode, self.entry.address, self.entry.registers)

    def _began_by(self, kernel: Kernel) -> Kernel:
        self._images += kernel.parts
        self.kernel, self.entry, self._rsdp_at = kernel, kernel.entry, kernel.rsdp_at
        return kernel

    def _refuse_overlap(self, what: str, taken: range) -> None:
        for image in self._images:
            image.refuse_overlap(what, taken)
