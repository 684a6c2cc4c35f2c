"""Multiboot 1: where a header is found, and what its flags and addresses may say (0.6.96, 3.1)."""

from __future__ import annotations

import pytest

from shardio.boot import load_kernel
from shardio.errors import ImageError
from shardio.memory import GuestMemory
from tests.boot.images import BY_ADDRESSES, Part, elf64, flat_multiboot, multiboot_header

LOAD = 0x10_0000
CODE = b"\xf4" * 32


def flat(*addresses: int) -> bytes:
    return multiboot_header(BY_ADDRESSES, *addresses) + CODE


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (multiboot_header(0b100) + CODE, "Multiboot flags at offset 0x4: .* found 0x4: a video mode"),
        (multiboot_header(0b1000) + CODE, "found 0x8: features unknown"),
        (multiboot_header() + CODE, "expected an ELF, or bit 16, found neither"),
        (multiboot_header(BY_ADDRESSES) + bytes(4), "Multiboot addresses at offset 0x10: expected 0x4 bytes"),
        (flat(LOAD - 4, LOAD, 0, 0, LOAD), "Multiboot load address at offset 0x10"),
        (flat(LOAD, LOAD, LOAD + 65, 0, LOAD), "Multiboot load end at offset 0x14: expected 0x41 bytes"),
        (flat(LOAD, LOAD, LOAD, 0, LOAD), "Multiboot load end at offset 0x14"),
        (flat(LOAD, LOAD, 0, LOAD + 63, LOAD), "bss end at offset 0x18: expected at least 0x100040"),
        (flat(LOAD, LOAD, 0, 0, LOAD + 64), "Multiboot entry at offset 0x1c: .* found 0x100040"),
    ],
)
def test_a_bad_header_is_refused(image: bytes, said: str, memory: GuestMemory) -> None:
    with pytest.raises(ImageError, match=said):
        load_kernel(memory, image)


def test_the_file_is_loaded_from_before_its_header(memory: GuestMemory) -> None:
    image = b"ahead..." + flat(LOAD + 8, LOAD, LOAD + 60, LOAD + 0x100, LOAD + 40)

    kernel = load_kernel(memory, image)

    assert memory.read(LOAD, 61) == image[:60] + b"\0"
    assert kernel.parts[0].where == range(LOAD, LOAD + 0x100)
    assert kernel.entry.address == LOAD + 40


def behind(ahead: int) -> bytes:
    """An image whose header is `ahead` bytes in."""
    return bytes(ahead) + flat(LOAD + ahead, LOAD, 0, 0, LOAD)


def test_a_header_is_found_in_the_first_8_kib(memory: GuestMemory) -> None:
    assert load_kernel(memory, behind(8192 - 12)).protocol == "multiboot"


@pytest.mark.parametrize("ahead", [2, 8192 - 8, 8192])
def test_a_header_is_nowhere_else(ahead: int, memory: GuestMemory) -> None:
    with pytest.raises(ImageError, match="magic at offset 0x0"):
        load_kernel(memory, behind(ahead))


def test_a_header_that_does_not_add_up_is_none(memory: GuestMemory) -> None:
    image = bytearray(flat_multiboot(CODE))
    image[8] ^= 1

    with pytest.raises(ImageError, match="or a Multiboot header in the first 8 KiB"):
        load_kernel(memory, bytes(image))


def test_a_virtual_entry_becomes_a_physical_one(memory: GuestMemory) -> None:
    header = Part(multiboot_header(), LOAD + 0x1000)
    image = elf64(header, Part(CODE, LOAD, virtual=0xFFFF_8000_0010_0000), entry=0xFFFF_8000_0010_0008)

    assert load_kernel(memory, image).entry.address == LOAD + 8
