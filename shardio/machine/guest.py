"""`Guest`: what a machine's guest is: its contents, where it begins, and what it is told of the hardware."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardio.boot import Contents, Entry, Kernel, Module
from shardio.dispatcher import Dispatcher, IrqMode
from shardio.dispatcher.life import Life, State
from shardio.memory import GuestMemory
from shardio.platform import Hardware, PlatformDevice
from shardio.range import MmioRange, PioRange

if TYPE_CHECKING:
    from shardio.vcpu import Hypervisor


class Guest:
    """The part of `Machine` that fills guest memory, before the start but for `map_memory`."""

    vcpus: int
    memory: GuestMemory
    hypervisor: Hypervisor
    dispatcher: Dispatcher
    _contents: Contents
    _life: Life

    def load(
        self,
        image: str | os.PathLike[str] | bytes,
        at: int = 0x1000,
        entry: int | None = None,
        mode: str = "real",
        registers: Mapping[str, int] | None = None,
    ) -> None:
        """Put a flat image (a path or its bytes) at guest address `at`.

        The first image loaded says where vCPU 0 begins: at `entry` (default: `at`), in `mode` "real",
        "protected" or "long", with `registers` by name (`shardio.boot.Entry`). Before the start an image must
        not lie over another one. Raises `ImageError` for a file that cannot be read or does not fit,
        `MachineError` for an entry that cannot be.
        """
        with self._life.turn(State.NEW, State.STARTING, State.RUNNING):
            new = self._life.state is State.NEW
            self._contents.load(image, at, entry, mode, registers, new=new)

    def load_kernel(
        self,
        image: str | os.PathLike[str] | bytes,
        initrd: str | os.PathLike[str] | bytes | None = None,
        command_line: str = "",
        modules: Sequence[Module] = (),
    ) -> Kernel:
        """Load a kernel (a path or its bytes) and begin as its protocol has it: PVH, Multiboot 1, Linux's
        bzImage, or an ELF that begins as vmlinux does (docs/reference/boot.md). `initrd` is the first of its
        `modules`.

        Raises `ImageError` for an image that is none of those, malformed, or does not fit; then nothing is
        written.
        """
        first = () if initrd is None else (Module(initrd),)
        with self._life.turn(State.NEW):
            return self._contents.load_kernel(image, (*first, *modules), command_line)

    def load_payload(self, image: str | os.PathLike[str] | bytes) -> Kernel:
        """Load a coreboot payload (an ELF of 32 bits, a path or its bytes), with coreboot's table of memory
        at 0xF_0000, and begin at its entry. Raises `ImageError`.
        """
        with self._life.turn(State.NEW):
            return self._contents.load_payload(image)

    def load_firmware(self, image: str | os.PathLike[str]) -> None:
        """Put a firmware image at the top of 4 GiB, its end below 1 MiB, and begin at the reset vector.

        Raises `ImageError` for a file that cannot be firmware.
        """
        with self._life.turn(State.NEW):
            self._contents.load_firmware(Path(image))

    def set_entry(self, entry: Entry) -> None:
        """Where vCPU 0 begins, whatever was loaded: for loaders of one's own, which write to `memory`."""
        with self._life.turn(State.NEW):
            self._contents.entry = entry

    def map_memory(self, buffer: Any, at: int, *, readonly: bool = False) -> None:
        """Make `buffer` (whole pages, aligned: an `mmap`, say) guest memory at address `at`, beside RAM.
        Guest writes to what is `readonly` are unclaimed accesses. The buffer is held until `close`.

        Raises `MachineError` where RAM, a device or the hypervisor is, and on the software CPU; `KvmError`
        for what is not whole pages.
        """
        span = MmioRange(at, memoryview(buffer).nbytes)
        with self._life.turn(State.NEW, State.RUNNING):
            self.dispatcher.refuse_memory(span)
            self.hypervisor.map_memory(span, buffer, readonly=readonly)

    def load_tables(self, kind: str) -> None:
        """Tell the guest's kernel of its devices: "acpi" or "mp" tables, written below 1 MiB at `start` (see
        `shardio.platform.place`). They name the devices that are there then and have a `compatible`.

        Raises `MachineError` for another kind, for firmware (it makes its own), or without an irqchip.
        """
        with self._life.turn(State.NEW):
            self._contents.load_tables(kind)

    @property
    def hardware(self) -> Hardware:
        """What the machine holds, as `shardio.platform` makes tables and device trees of it; devices whose
        class says nothing of itself (`compatible`) are left out.
        """
        requests = [handle.request for handle in self.dispatcher.devices]
        return Hardware(
            self.vcpus,
            self.memory.regions,
            tuple(
                PlatformDevice(
                    device.name,
                    device.compatible,
                    int(span.base),
                    span.size,
                    pio=isinstance(span, PioRange),
                    irq=device.irq,
                    level=device.irq_mode is IrqMode.LEVEL,
                    **device.described,
                )
                for device in requests
                if device.compatible
                for span in {type(span): span for span in reversed(device.spans)}.values()
            ),
        )
