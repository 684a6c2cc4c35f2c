"""Kernels and payloads: recognises what an image is, and loads it by its own protocol.

| image | protocol | begins in |
|---|---|---|
| ELF with Xen's note of a PVH entry | `pvh` | protected mode |
| ELF or flat image with a Multiboot header | `multiboot` | protected mode |
| any other ELF | `linux`: vmlinux's own entry | long mode (64 bits) or protected mode (32) |
| bzImage | `linux` | long mode where CPU and kernel have it, else protected mode |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardio.boot import elf as elf_images
from shardio.boot import linux, multiboot
from shardio.boot.coreboot import place_payload
from shardio.boot.elf import read_elf
from shardio.boot.image import Image, Source, read_image
from shardio.boot.module import Module
from shardio.boot.plan import Loaded, Plan
from shardio.boot.pvh import place_pvh
from shardio.entry import Entry, boot_tables
from shardio.memory import GuestMemory

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel in guest memory: its `protocol` ("pvh", "multiboot", "linux", "coreboot"), how it begins, and
    what lies where. `rsdp_at`: where it wants to be told the 8-byte address of ACPI's RSDP, if anywhere;
    `bits`: 64 for one that comes to long mode, by its entry or its ELF header, else 32.
    """

    protocol: str
    entry: Entry
    parts: tuple[Loaded, ...]
    rsdp_at: int | None = None
    bits: int = 32


def load_kernel(
    memory: GuestMemory,
    image: Source,
    modules: Sequence[Module] = (),
    command_line: str = "",
    *,
    long_mode: bool = True,
    taken: Iterable[Loaded] = (),
) -> Kernel:
    """Load a kernel (a path or its bytes) by the protocol that it speaks. `long_mode`: whether the CPU has
    it; `taken`: what is in memory already.

    Raises `ImageError`, with nothing written, for an image that is none of those, malformed, or does not fit.
    """
    read, plan = read_image(image), Plan(memory, taken)
    protocol, (entry, rsdp_at) = _place(plan, read, modules, command_line, long_mode)
    return _written(plan, read, protocol, entry, rsdp_at)


def load_payload(memory: GuestMemory, image: Source, taken: Iterable[Loaded] = ()) -> Kernel:
    """Load a coreboot payload (a path or its bytes), and the table that it looks for. Raises `ImageError`,
    with nothing written.
    """
    read, plan = read_image(image), Plan(memory, taken)
    if not read.data.startswith(elf_images.MAGIC):
        raise read.refused("magic", 0, "an ELF (7f 45 4c 46)", _shown(read))
    return _written(plan, read, "coreboot", place_payload(plan, read_elf(read)), None)


def _place(
    plan: Plan, read: Image, modules: Sequence[Module], command_line: str, long_mode: bool
) -> tuple[str, tuple[Entry, int | None]]:
    header = multiboot.find_header(read)
    elf = read_elf(read) if read.data.startswith(elf_images.MAGIC) else None
    if elf is not None and elf.pvh_entry is not None:
        return "pvh", place_pvh(plan, elf, modules, command_line)
    if header is not None:
        return "multiboot", (multiboot.place_multiboot(plan, read, header, modules, command_line), None)
    if elf is not None:
        return "linux", linux.place_vmlinux(plan, elf, modules, command_line)
    if read.data[linux.HDRS_AT : linux.HDRS_AT + 4] == linux.HDRS:
        return "linux", linux.place_bzimage(plan, read, modules, command_line, long_mode=long_mode)
    expected = 'an ELF (7f 45 4c 46), Linux\'s "HdrS" at 0x202, or a Multiboot header in the first 8 KiB'
    raise read.refused("magic", 0, expected, _shown(read), _hint(read))


def _written(plan: Plan, image: Image, protocol: str, entry: Entry, rsdp_at: int | None) -> Kernel:
    """Writes the plan, unless it lies where the entry's mode has its tables."""
    plan.reserve("the boot tables", boot_tables(entry.mode))
    wide = entry.mode == "long" or image.data.startswith(elf_images.MAGIC_64)
    return Kernel(protocol, entry, plan.commit(), rsdp_at, 64 if wide else 32)


def _shown(image: Image) -> str:
    return image.data[:8].hex(" ")


def _hint(image: Image) -> str:
    for magic, name in _COMPRESSED.items():
        if image.data.startswith(magic):
            return f"it is compressed: unpack it with {name}"
    return "a flat image goes by load(), firmware by load_firmware()"
