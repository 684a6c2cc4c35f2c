"""ELF images, 32 and 64 bits: which parts go where, and where the guest begins.

Segments go to their physical addresses (p_paddr). Sections mean nothing to a loader, so they are not read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, NamedTuple

from shardio.boot.image import Image
from shardio.boot.plan import Plan

MAGIC: Final = b"\x7fELF"
MAGIC_64: Final = MAGIC + b"\x02"
"""With EI_CLASS: ELFCLASS64."""
XEN_ELFNOTE_PHYS32_ENTRY: Final = 18
"""Xen's public/elfnote.h: the note that holds the physical address of the PVH entry."""
_MACHINES: Final = ("EM_386", "EM_X86_64")
_HEADER_SIZES: Final = {32: 52, 64: 64}
# e_shoff; e_shnum and e_shstrndx: their offsets and formats in the header (System V gABI, chapter 4).
_SECTIONS: Final = {32: ((32, "<I"), (48, "<HH")), 64: ((40, "<Q"), (60, "<HH"))}
_NOTE_ENDS: Final = 1 << 20
"""Bytes of one note segment that are looked at: a note's end is found by its own sizes."""


class Segment(NamedTuple):
    """A part that is loaded: `offset` and `size` in the file, `address` and `memory_size` in memory, and its
    `virtual` address.
    """

    offset: int
    size: int
    address: int
    memory_size: int
    virtual: int


@dataclass(frozen=True, slots=True)
class Elf:
    """An executable of 32 or 64 `bits`: its segments, its physical `entry`, and its PVH entry if it has one.
    """

    image: Image
    bits: int
    entry: int
    segments: tuple[Segment, ...]
    pvh_entry: int | None

    def put(self, plan: Plan) -> None:
        """Adds the segments to what is to be loaded."""
        for number, segment in enumerate(self.segments):
            data = self.image.part(segment.offset, segment.size, f"segment {number}")
            plan.put(f"{self.image.name} (segment {number})", segment.address, data, segment.memory_size)

    def in_memory(self, address: int) -> bool:
        """Whether a segment has this physical address."""
        return any(part.address <= address < part.address + part.memory_size for part in self.segments)


def read_elf(image: Image) -> Elf:
    """The executable in `image`. Raises `ImageError` for what is none, or not for x86."""
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    bits = {1: 32, 2: 64}.get(image.number(4, 1, "ELF class"))
    if bits is None:
        raise image.refused("ELF class", 4, "1 (32 bits) or 2 (64 bits)", str(image.data[4]))
    if image.number(5, 1, "ELF byte order") != 1:
        raise image.refused("ELF byte order", 5, "1 (little-endian)", str(image.data[5]))
    image.part(0, _HEADER_SIZES[bits], "ELF header")
    try:
        elf = ELFFile(BytesIO(_without_sections(image.data, bits)))
        image.part(elf["e_phoff"], elf["e_phnum"] * elf["e_phentsize"], "ELF program headers")
        headers = [_program_header(elf, number) for number in range(elf["e_phnum"])]
    except (ELFError, ConstructError) as error:
        raise image.refused("ELF program headers", 28 if bits == 32 else 32, "a table", str(error)) from None
    _check_header(image, elf.header)
    segments = _segments(image, headers)
    notes = [header for header in headers if header["p_type"] == "PT_NOTE"]
    found = Elf(image, bits, _entry(elf["e_entry"], segments), segments, _pvh_entry(image, notes))
    if not found.in_memory(found.entry):
        raise image.refused("ELF entry", 24, "an address in a segment", f"{found.entry:#x}")
    return found


def _without_sections(data: bytes, bits: int) -> bytes:
    """The image as a stripped one: what its section headers say cannot be wrong."""
    stripped = bytearray(data)
    (offset, form), (counts, pair) = _SECTIONS[bits]
    struct.pack_into(form, stripped, offset, 0)
    struct.pack_into(pair, stripped, counts, 0, 0)
    return bytes(stripped)


def _program_header(elf: Any, number: int) -> Any:
    from elftools.common.utils import struct_parse

    at = elf["e_phoff"] + number * elf["e_phentsize"]
    return struct_parse(elf.structs.Elf_Phdr, elf.stream, stream_pos=at)


def _check_header(image: Image, header: Any) -> None:
    if header["e_type"] != "ET_EXEC":
        hint = "link it at a fixed address"
        raise image.refused("ELF type", 16, "ET_EXEC, an executable", str(header["e_type"]), hint)
    if header["e_machine"] not in _MACHINES:
        raise image.refused("ELF machine", 18, " or ".join(_MACHINES), str(header["e_machine"]))


def _segments(image: Image, headers: list[Any]) -> tuple[Segment, ...]:
    found = []
    for number, header in enumerate(headers):
        if header["p_type"] != "PT_LOAD" or not header["p_memsz"]:
            continue
        offset, size = header["p_offset"], header["p_filesz"]
        image.part(offset, size, f"segment {number}")
        if size > header["p_memsz"]:
            most = f"at most the {header['p_memsz']:#x} bytes that it has in memory"
            raise image.refused(f"segment {number}", offset, most, f"{size:#x} bytes")
        found.append(Segment(offset, size, header["p_paddr"], header["p_memsz"], header["p_vaddr"]))
    if not found:
        raise image.refused("ELF program headers", 0, "a segment to load (PT_LOAD)", "none")
    return tuple(found)


def _entry(entry: int, segments: tuple[Segment, ...]) -> int:
    """The physical address of `entry`, which a kernel may give as a virtual one."""
    if any(part.address <= entry < part.address + part.memory_size for part in segments):
        return entry
    for part in segments:
        if part.virtual <= entry < part.virtual + part.memory_size:
            return entry - part.virtual + part.address
    return entry


def _pvh_entry(image: Image, headers: list[Any]) -> int | None:
    """What the note says; its descriptor has 4 or 8 bytes."""
    for header in headers:
        at, end = header["p_offset"], header["p_offset"] + min(header["p_filesz"], _NOTE_ENDS)
        align = 8 if header["p_align"] == 8 else 4
        while at + 12 <= end:
            name_size, size, kind = struct.unpack("<III", image.part(at, 12, "ELF note"))
            name_at = at + 12
            value_at = name_at + (name_size + align - 1) // align * align
            if kind == XEN_ELFNOTE_PHYS32_ENTRY and image.data[name_at : name_at + 4] == b"Xen\0":
                if size not in (4, 8):
                    raise image.refused("PVH entry note", at, "4 or 8 bytes", f"{size:#x}")
                return image.number(value_at, size, "PVH entry note")
            at = value_at + (size + align - 1) // align * align
    return None
