"""Which protocol an image is taken for, and what is said of one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardio.boot import Module, load_kernel, load_payload
from shardio.errors import ImageError, MachineError
from shardio.memory import GuestMemory
from tests.boot.images import Part, bzimage, elf32, elf64, flat_multiboot, multiboot_header, pvh_note

AT = 0x10_0000
CODE = Part(b"\xf4" * 64, AT)
HEADER = Part(multiboot_header(), AT + 0x1000)
FAR_TABLE = bytearray(elf64(CODE, entry=AT))
FAR_TABLE[39] = 0x80  # the last byte of e_phoff


@pytest.mark.parametrize(
    ("image", "protocol", "mode"),
    [
        (elf64(CODE, pvh_note(AT), entry=AT), "pvh", "protected"),
        (elf32(CODE, HEADER, pvh_note(AT), entry=AT), "pvh", "protected"),
        (elf32(CODE, HEADER, entry=AT), "multiboot", "protected"),
        (flat_multiboot(CODE.data), "multiboot", "protected"),
        (elf64(CODE, entry=AT), "linux", "long"),
        (elf32(CODE, entry=AT), "linux", "protected"),
        (bzimage(CODE.data), "linux", "long"),
        (bzimage(CODE.data, has_64=False), "linux", "protected"),
    ],
)
def test_an_image_is_recognised(image: bytes, protocol: str, mode: str, memory: GuestMemory) -> None:
    kernel = load_kernel(memory, image)

    assert (kernel.protocol, kernel.entry.mode) == (protocol, mode)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"MZ" + bytes(600), r"magic at offset 0x0: expected an ELF .* found 4d 5a 00 00 00 00 00 00"),
        (b"\x1f\x8b\x08" + bytes(9), "unpack it with gzip"),
        (b"", "is empty"),
        (elf64(CODE, entry=AT)[:40], "ELF header at offset 0x0: expected 0x40 bytes, found the end at 0x28"),
        (FAR_TABLE, "ELF program headers at offset 0x8000000000000040: .* found the end"),
        (elf32(CODE, entry=AT)[:-1], "segment 0 at offset 0x54: expected 0x40 bytes, found the end at 0x93"),
        (elf32(CODE, entry=AT, kind=3), "ELF type at offset 0x10: expected ET_EXEC, .* found ET_DYN"),
        (elf32(CODE, entry=AT, machine=40), "ELF machine at offset 0x12: .* found EM_ARM"),
        (elf32(entry=AT), "expected a segment to load"),
        (elf32(CODE, entry=AT + 64), "ELF entry at offset 0x18: expected an address in a segment, found"),
        (elf32(CODE, pvh_note(AT - 1), entry=AT), "PVH entry note .* found 0xfffff"),
        (elf32(CODE, pvh_note(AT, 3), entry=AT), "PVH entry note .* expected 4 or 8 bytes, found 0x3"),
    ],
)
def test_an_image_that_is_none_says_why(image: bytes, said: str, memory: GuestMemory) -> None:
    with pytest.raises(ImageError, match=said):
        load_kernel(memory, image)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((CODE, Part(b"\xf4", AT + 63)), r"1\): at 0x10003f to .* lies over .*\(segment 0\) at 0x100000"),
        (
            (CODE, Part(b"", 0x3F_FF00, 0x101)),
            "at 0x3fff00 to 0x400000 lies outside RAM, which is 0x0-0x3fffff",
        ),
        ((CODE, Part(b"\xf4", 0x9_0010)), "lies over the boot tables at 0x90000 to 0x9ffff"),
    ],
)
def test_what_overlaps_is_refused_with_both_ranges(
    parts: tuple[Part, ...], said: str, memory: GuestMemory
) -> None:
    with pytest.raises(ImageError, match=said):
        load_kernel(memory, elf64(*parts, entry=AT))

    assert memory.read(0, memory.size) == bytes(memory.size)


def test_a_protected_entry_takes_one_page_for_its_tables(memory: GuestMemory) -> None:
    load_kernel(memory, elf32(CODE, Part(b"\xf4", 0x9_1000), entry=AT))

    assert memory.read(0x9_1000, 1) == b"\xf4"


def test_memory_behind_a_segment_s_bytes_is_zeroed(memory: GuestMemory) -> None:
    memory.write(AT, b"\xff" * 0x400)

    load_kernel(memory, elf32(Part(b"\xf4" * 16, AT, 0x300), entry=AT))

    assert memory.read(AT, 0x400) == b"\xf4" * 16 + bytes(0x2F0) + b"\xff" * 0x100


def test_modules_take_pages_of_their_own_below_ram_s_end(memory: GuestMemory) -> None:
    kernel = load_kernel(memory, flat_multiboot(CODE.data), [Module(b"a" * 0x1001), Module(b"b")])

    assert [part.where.start for part in kernel.parts if part.name == "image"] == [AT, 0x3F_E000, 0x3F_D000]


def test_a_module_without_room_is_refused(memory: GuestMemory) -> None:
    with pytest.raises(ImageError, match="of 0x300000 bytes finds no room below 0x400000 beside 0x100000-"):
        load_kernel(memory, elf64(CODE, pvh_note(AT), entry=AT), [Module(bytes(3 << 20))])


def test_a_module_that_cannot_be_read_is_named(memory: GuestMemory, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="initrd: cannot be read: No such file"):
        load_kernel(memory, bzimage(CODE.data), [Module(tmp_path / "initrd")])


def test_a_command_line_has_no_nul(memory: GuestMemory) -> None:
    with pytest.raises(MachineError, match="a NUL inside"):
        load_kernel(memory, bzimage(CODE.data), command_line="a\0b")


def test_a_payload_is_an_elf_of_32_bits(memory: GuestMemory) -> None:
    kernel = load_payload(memory, elf32(CODE, entry=AT))

    assert (kernel.protocol, kernel.entry.mode, kernel.entry.address) == ("coreboot", "protected", AT)
    with pytest.raises(ImageError, match=r"ELF class at offset 0x4: expected 1 \(32 bits\)"):
        load_payload(memory, elf64(CODE, entry=AT))
    with pytest.raises(ImageError, match="magic at offset 0x0: expected an ELF"):
        load_payload(memory, bzimage(CODE.data))
