"""Linux's boot protocol: what a bzImage's header says, and what it must not say (boot.rst)."""

from __future__ import annotations

import pytest

from shardio.boot import Module, load_kernel
from shardio.errors import ImageError
from shardio.memory import GuestMemory
from tests.boot.images import Part, bzimage, elf64

CODE = b"\xf4" * 64
MIB = 1 << 20


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (bzimage(CODE, version=0x0205), "boot protocol at offset 0x206: expected 2.06 or newer, found 2.05"),
        (bzimage(CODE, loadflags=0), "loadflags at offset 0x211: expected LOADED_HIGH, a bzImage"),
        (bzimage(CODE)[:-16], "the kernel's code at offset 0x400: expected 0x31 bytes, found the end"),
        (bzimage(CODE)[:0x206], "boot protocol at offset 0x206: expected 0x2 bytes, found the end at 0x206"),
        (bzimage(CODE).replace(b"\x55\xaa", b"\x55\xab"), "boot flag at offset 0x1fe: .* found 0xab55"),
        (bzimage(CODE).replace(b"\xeb\x6a", b"\xeb\x20"), "jump over the setup header at offset 0x201"),
        (bzimage(CODE, memory_size=4 * MIB), "at 0x100000 to 0x4fffff lies outside RAM"),
    ],
)
def test_a_bad_header_is_refused(image: bytes, said: str, memory: GuestMemory) -> None:
    with pytest.raises(ImageError, match=said):
        load_kernel(memory, image)


def test_a_command_line_is_as_long_as_the_kernel_takes(memory: GuestMemory) -> None:
    load_kernel(memory, bzimage(CODE, command_line_size=255), command_line="x" * 255)


def test_a_longer_command_line_is_refused(memory: GuestMemory) -> None:
    with pytest.raises(ImageError, match="takes a command line of 255 bytes, not 256; shorten it"):
        load_kernel(memory, bzimage(CODE, command_line_size=255), command_line="x" * 256)


def test_vmlinux_takes_2047_bytes_of_command_line(memory: GuestMemory) -> None:
    image = elf64(Part(CODE, MIB), entry=MIB)

    load_kernel(memory, image, command_line="x" * 2047)
    with GuestMemory(memory.size) as other, pytest.raises(ImageError, match="2047 bytes, not 2048"):
        load_kernel(other, image, command_line="x" * 2048)


def test_an_initrd_lies_below_what_the_kernel_says(memory: GuestMemory) -> None:
    kernel = load_kernel(memory, bzimage(CODE, initrd_max=2 * MIB - 1), [Module(b"initrd")])

    assert kernel.parts[1].where == range(2 * MIB - 0x1000, 2 * MIB - 0x1000 + 6)


def test_an_initrd_does_not_lie_in_what_the_kernel_takes_to_begin(memory: GuestMemory) -> None:
    image = bzimage(CODE, memory_size=2 * MIB, initrd_max=2 * MIB)

    with pytest.raises(ImageError, match="finds no room below"):
        load_kernel(memory, image, [Module(b"initrd")])


def test_a_second_module_is_refused(memory: GuestMemory) -> None:
    with pytest.raises(ImageError, match="takes one initrd, not 2 modules"):
        load_kernel(memory, bzimage(CODE), [Module(b"a"), Module(b"b")])


def test_the_setup_header_is_handed_over_as_the_image_has_it(memory: GuestMemory) -> None:
    image = bzimage(CODE, address=2 * MIB)

    kernel = load_kernel(memory, image)

    page = memory.read(kernel.entry.registers["rsi"], 4096)
    assert page[0x1F1:0x210] == image[0x1F1:0x210]
    assert page[0x22C:0x26C] == image[0x22C:0x26C]
    assert page[0x210] == 0xFF  # type_of_loader: one without a number
    assert page[0x214:0x218] == (2 * MIB).to_bytes(4, "little")  # code32_start
    assert kernel.entry.address == 2 * MIB + 0x200


def test_an_old_kernel_goes_to_1_mib(memory: GuestMemory) -> None:
    kernel = load_kernel(memory, bzimage(CODE, version=0x0209, address=2 * MIB))

    assert (kernel.entry.mode, kernel.entry.address) == ("protected", MIB)
