"""Damaged images: each ends in `ImageError`, with nothing written, or in a guest that lies in RAM and begins
inside of what was loaded.
"""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardio.boot import Kernel, Module, load_kernel, load_payload
from shardio.errors import ImageError
from shardio.memory import GuestMemory
from tests.boot.images import Part, bzimage, elf32, elf64, flat_multiboot, multiboot_header, pvh_note

SIZE = 2 << 20
CODE = random.Random(1).randbytes(700)
AT = 0x10_0000
IMAGES = {
    "pvh32": elf32(Part(CODE, AT, 0x2000), pvh_note(AT), entry=AT),
    "pvh64": elf64(Part(CODE, AT), Part(CODE, AT + 0x1000), pvh_note(AT + 0x1000, 8), entry=AT),
    "vmlinux32": elf32(Part(CODE, AT), entry=AT + 4),
    "vmlinux64": elf64(Part(CODE, AT, virtual=0xFFFF_FFFF_8010_0000), entry=0xFFFF_FFFF_8010_0004),
    "multiboot_elf": elf32(Part(multiboot_header(3) + CODE, AT), entry=AT + 12),
    "multiboot_flat": flat_multiboot(CODE, memory_size=0x1000),
    "bzimage": bzimage(CODE, memory_size=0x2000),
    "bzimage32": bzimage(CODE, has_64=False),
}
CHANGES = st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=6)
HEADERS = st.lists(st.tuples(st.integers(0, 160), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])), max_size=4)
SETUP = st.lists(st.tuples(st.integers(0x1F0, 0x268), st.integers(0, 255)), max_size=4)


def damaged(image: bytes, changes: list[tuple[int, int]], size: int | None = None) -> bytes:
    """The image with bytes changed, cut after `size`."""
    made = bytearray(image)
    for at, value in changes:
        made[at % len(made)] = value
    return bytes(made[:size])


def load(image: bytes, payload: bool = False) -> Kernel | None:
    """What the loader makes of `image`; None for an `ImageError`, which must have left the memory alone."""
    with GuestMemory(SIZE) as memory:
        try:
            if payload:
                return load_payload(memory, image)
            return load_kernel(memory, image, [Module(b"initrd")], "a=b")
        except ImageError:
            assert memory.read(0, SIZE) == bytes(SIZE)
            return None


def check(kernel: Kernel | None) -> None:
    """A kernel that was loaded lies in RAM, its parts beside each other, its entry in one of them."""
    if kernel is None:
        return
    parts = sorted((part.where for part in kernel.parts), key=lambda where: where.start)
    assert parts[0].start >= 0
    assert parts[-1].stop <= SIZE
    assert all(one.stop <= next_one.start for one, next_one in itertools.pairwise(parts))
    assert any(kernel.entry.address in where for where in parts)


@pytest.mark.parametrize("name", IMAGES)
def test_each_image_is_loaded_while_it_is_whole(name: str) -> None:
    kernel = load(IMAGES[name])

    assert kernel is not None
    check(kernel)


@pytest.mark.parametrize("name", IMAGES)
@given(changes=CHANGES | HEADERS | SETUP)
@example(changes=[])
def test_changed_bytes_end_in_an_error_or_a_guest(name: str, changes: list[tuple[int, int]]) -> None:
    check(load(damaged(IMAGES[name], changes)))


@pytest.mark.parametrize("name", IMAGES)
@given(size=st.integers(1, 1800), changes=CHANGES)
def test_a_cut_image_ends_in_an_error_or_a_guest(
    name: str, size: int, changes: list[tuple[int, int]]
) -> None:
    check(load(damaged(IMAGES[name], changes, size)))


@pytest.mark.parametrize("name", IMAGES)
@given(cut=st.integers(16, 1000))
def test_an_image_without_its_end_is_refused(name: str, cut: int) -> None:
    image = IMAGES[name]

    assert load(image[: max(1, len(image) - cut)]) is None


@given(changes=CHANGES | HEADERS, size=st.integers(1, 1800))
def test_a_damaged_payload_ends_in_an_error_or_a_guest(changes: list[tuple[int, int]], size: int) -> None:
    check(load(damaged(IMAGES["vmlinux32"], changes, size), payload=True))


@given(
    image=st.binary(min_size=1, max_size=64),
    magic=st.sampled_from([b"", b"\x7fELF\1\1\1", b"\x7fELF\2\1\1"]),
)
def test_other_bytes_are_refused(image: bytes, magic: bytes) -> None:
    assert load(magic + image) is None
