"""Multiboot 1 (the Multiboot Specification, version 0.6.96): what GRUB's `multiboot` command loads.

The guest begins in flat 32-bit protected mode with EAX = 0x2BADB002 and EBX at the information structure:
memory sizes and map, command line, modules, the loader's name.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shardio.boot.elf import MAGIC as ELF_MAGIC
from shardio.boot.elf import read_elf
from shardio.boot.image import Image
from shardio.boot.memory_map import HOLE, packed
from shardio.boot.module import Module, encoded, place_modules
from shardio.boot.plan import ONE_MIB, Plan
from shardio.entry import Entry

HEADER_MAGIC: Final = 0x1BAD_B002
BOOT_MAGIC: Final = 0x2BAD_B002
_SEARCHED: Final = 8192
_ALIGNED_MODULES, _MEMORY, _VIDEO, _ADDRESSES = 1 << 0, 1 << 1, 1 << 2, 1 << 16
_MUST: Final = 0xFFFF
"""Bits that a loader refuses where it does not know them."""
_HAS_MEMORY, _HAS_TEXT, _HAS_MODULES, _HAS_MAP, _HAS_NAME = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
_INFO: Final = "<IIIIIII16xIIIIII48x"
_NAME: Final = b"shardio\0"


@dataclass(frozen=True, slots=True)
class Header:
    """A Multiboot header: where it is in the file, and its flags."""

    offset: int
    flags: int


def find_header(image: Image) -> Header | None:
    """The header, in the first 8 KiB on a multiple of 4 bytes; its three words add up to 0 (3.1.1)."""
    head = image.data[:_SEARCHED]
    for offset in range(0, len(head) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", head, offset)
        if magic == HEADER_MAGIC and not (magic + flags + checksum) & 0xFFFF_FFFF:
            return Header(offset, flags)
    return None


def place_multiboot(
    plan: Plan, image: Image, header: Header, modules: Sequence[Module], command_line: str
) -> Entry:
    """Adds the image and its information to the plan. Raises `ImageError`."""
    unknown = header.flags & _MUST & ~(_ALIGNED_MODULES | _MEMORY)
    if unknown:
        what = "a video mode" if unknown & _VIDEO else "features unknown to version 0.6.96"
        raise image.refused("Multiboot flags", header.offset + 4, "bits 0 and 1", f"{unknown:#x}: {what}")
    if header.flags & _ADDRESSES:
        entry = _put_by_addresses(plan, image, header.offset)
    elif image.data.startswith(ELF_MAGIC):
        elf = read_elf(image)
        elf.put(plan)
        entry = elf.entry
    else:
        hint = "set bit 16 and the addresses"
        raise image.refused("Multiboot flags", header.offset + 4, "an ELF, or bit 16", "neither", hint)
    if entry >= 1 << 32:
        raise image.refused("ELF entry", 24, "an address below 4 GiB", f"{entry:#x}")
    return Entry("protected", entry, {"rax": BOOT_MAGIC, "rbx": _place_info(plan, modules, command_line)})


def _put_by_addresses(plan: Plan, image: Image, offset: int) -> int:
    """The address fields of the header (3.1.3) say what goes where; gives the entry."""
    fields = [image.number(offset + at, 4, "Multiboot addresses") for at in range(12, 32, 4)]
    header_address, load, load_end, bss_end, entry = fields
    first = offset - (header_address - load)
    if first < 0 or header_address < load:
        below = f"{load:#x} for a header at {header_address:#x}"
        raise image.refused("Multiboot load address", offset + 16, "one that the file reaches", below)
    size = load_end - load if load_end else len(image.data) - first
    if size <= 0 or first + size > len(image.data):
        end = f"the end at {len(image.data):#x}"
        raise image.refused("Multiboot load end", offset + 20, f"{size:#x} bytes from {first:#x}", end)
    if bss_end and bss_end < load + size:
        raise image.refused("Multiboot bss end", offset + 24, f"at least {load + size:#x}", f"{bss_end:#x}")
    if not load <= entry < load + size:
        where = f"an address of {load:#x} to {load + size - 1:#x}"
        raise image.refused("Multiboot entry", offset + 28, where, f"{entry:#x}")
    plan.put(image.name, load, image.data[first : first + size], bss_end - load if bss_end else 0)
    return entry


def _place_info(plan: Plan, modules: Sequence[Module], command_line: str) -> int:
    flags = _HAS_MEMORY | _HAS_TEXT | _HAS_MAP | _HAS_NAME
    placed = place_modules(plan, modules)
    listed = b"".join(
        struct.pack("<IIII", module.where.start, module.where.stop, module.command_line, 0)
        for module in placed
    )
    module_list = plan.place("the Multiboot module list", listed) if placed else 0
    flags |= _HAS_MODULES if placed else 0
    # The size word does not count itself (3.3).
    ranges = packed(plan.memory, "<4xQQI")
    sized = b"".join(struct.pack("<I", 20) + ranges[at + 4 : at + 24] for at in range(0, len(ranges), 24))
    info = struct.pack(
        _INFO,
        flags,
        min(plan.low_end, HOLE.start) >> 10,
        max(plan.low_end - ONE_MIB, 0) >> 10,
        0,
        plan.place("the command line", encoded(command_line)),
        len(placed),
        module_list,
        len(sized),
        plan.place("the Multiboot memory map", sized),
        0,
        0,
        0,
        plan.place("the loader's name", _NAME),
    )
    return plan.place("the Multiboot information", info)
