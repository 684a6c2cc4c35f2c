"""IoManager: what handlers are handed, and what a refusal leaves alone."""

from __future__ import annotations

import mmap
from array import array
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import (
    DeviceNotFound,
    DeviceOverlap,
    InvalidBuffer,
    InvalidDevice,
    InvalidRange,
    IoManager,
    MmioManager,
    MmioRange,
    MutDeviceMmio,
    MutDevicePio,
    PioManager,
    PioRange,
)

spaces = pytest.mark.parametrize("space", ["pio", "mmio"])
directions = pytest.mark.parametrize("direction", ["read", "write"])
RANGES: dict[str, Any] = {"pio": PioRange, "mmio": MmioRange}


class Memory(MutDevicePio, MutDeviceMmio):
    """Byte-addressed cells in both spaces; keeps the last view that it was handed, and where."""

    def __init__(self, size: int) -> None:
        self.cells = bytearray(size)
        self.seen: list[tuple[Any, int, memoryview]] = []

    def pio_read(self, base: Any, offset: int, data: memoryview) -> None:
        self.seen.append((base, offset, data))
        data[:] = self.cells[offset : offset + len(data)]

    def pio_write(self, base: Any, offset: int, data: memoryview) -> None:
        self.seen.append((base, offset, data))
        self.cells[offset : offset + len(data)] = data

    mmio_read = pio_read
    mmio_write = pio_write


class Scratch:
    """A device of the register form alone, deriving from nothing."""

    def __init__(self) -> None:
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


class Door:
    """One space of an `IoManager`, so that each test is written once for both."""

    def __init__(self, space: str) -> None:
        manager = IoManager()
        self.read: Any = getattr(manager, f"{space}_read")
        self.write: Any = getattr(manager, f"{space}_write")
        self.device: Any = getattr(manager, f"{space}_device")
        self.devices: Any = getattr(manager, f"{space}_devices")
        self.register: Any = getattr(manager, f"register_{space}")
        self.deregister: Any = getattr(manager, f"deregister_{space}")
        self.move: Any = getattr(manager, f"move_{space}")
        self.range = RANGES[space]


@spaces
def test_read_fills_the_callers_buffer_itself(space: str) -> None:
    door, device = Door(space), Memory(8)
    device.cells[:] = b"abcdefgh"
    door.register(door.range(0x100, 8), device)
    data = bytearray(4)
    door.read(0x102, data)
    base, offset, view = device.seen[0]
    assert data == b"cdef"
    assert view.obj is data
    assert (view.readonly, view.format, len(view)) == (False, "B", 4)
    assert (base, type(base), offset, type(offset)) == (0x100, type(door.range(0, 1).base), 2, int)


@spaces
def test_write_hands_over_a_read_only_view(space: str) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    data = bytearray(b"wxyz")
    door.write(0x102, data)
    base, offset, view = device.seen[0]
    assert device.cells == b"\0\0wxyz\0\0"
    assert (view.readonly, view.format, len(view)) == (True, "B", 4)
    assert (base, type(base), offset, type(offset)) == (0x100, type(door.range(0, 1).base), 2, int)


@spaces
@directions
@pytest.mark.parametrize("addr", [0xFF, 0x106, 0x108, 0x10A, 0x200])
def test_refused_access_leaves_buffer_and_device_alone(space: str, direction: str, addr: int) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    door.register(door.range(0x108, 3), device)
    data = bytearray(b"\xa5" * 4)
    with pytest.raises(DeviceNotFound) as refused:
        getattr(door, direction)(addr, data)
    assert (refused.value.address, refused.value.length) == (addr, 4)
    assert data == b"\xa5" * 4
    assert not device.seen


@spaces
@directions
def test_empty_access_is_refused(space: str, direction: str) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    with pytest.raises(InvalidRange):
        getattr(door, direction)(0x100, bytearray())
    assert not device.seen


@spaces
@pytest.mark.parametrize(
    "buffer", [bytearray(4), memoryview(bytearray(4)), memoryview(bytearray(6))[1:5], array("I", [0])]
)
def test_read_takes_any_writable_buffer(space: str, buffer: Any) -> None:
    door, device = Door(space), Memory(4)
    device.cells[:] = b"abcd"
    door.register(door.range(0x100, 4), device)
    door.read(0x100, buffer)
    assert bytes(buffer) == b"abcd"


@spaces
@pytest.mark.parametrize(
    "buffer", [b"abcd", bytearray(b"abcd"), memoryview(b"xabcdx")[1:5], array("H", b"abcd")]
)
def test_write_takes_any_buffer(space: str, buffer: Any) -> None:
    door, device = Door(space), Memory(4)
    door.register(door.range(0x100, 4), device)
    door.write(0x100, buffer)
    assert device.cells == b"abcd"


@spaces
@directions
@pytest.mark.parametrize("buffer", [4, "abcd", memoryview(bytearray(8))[::2]])
def test_unusable_buffer_is_refused(space: str, direction: str, buffer: Any) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    with pytest.raises(InvalidBuffer):
        getattr(door, direction)(0x100, buffer)
    assert not device.seen


def released() -> memoryview:
    view = memoryview(bytearray(4))
    view.release()
    return view


def closed() -> mmap.mmap:
    pages = mmap.mmap(-1, 4)
    pages.close()
    return pages


@spaces
@directions
@pytest.mark.parametrize("gone", [released, closed])
def test_a_buffer_that_is_gone_is_refused(space: str, direction: str, gone: Any) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    with pytest.raises(InvalidBuffer):
        getattr(door, direction)(0x100, gone())
    assert not device.seen


@spaces
@directions
@pytest.mark.parametrize("buffer", [array("H"), memoryview(bytearray()), memoryview(bytearray(4))[:0]])
def test_an_empty_buffer_of_any_kind_is_an_empty_access(space: str, direction: str, buffer: Any) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    with pytest.raises(InvalidRange, match="is empty"):
        getattr(door, direction)(0x100, buffer)
    assert not device.seen


@spaces
def test_an_address_of_any_integer_type_is_taken(space: str) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0, 8), device)
    door.write(True, b"a")
    door.write(Fifth(), b"b")
    assert bytes(device.cells) == b"\0a\0\0\0b\0\0"
    assert [type(offset) for _, offset, _ in device.seen] == [int, int]


class Fifth:
    """A whole number that is no `int`, as numpy's are."""

    def __index__(self) -> int:
        return 5

    def __int__(self) -> int:
        return 5

    def __sub__(self, other: int) -> int:
        return 5 - other

    def __rsub__(self, other: int) -> int:
        return other - 5


@spaces
def test_a_register_of_any_integer_type_is_taken(space: str) -> None:
    door, device, data = Door(space), Scratch(), bytearray(2)
    device.value = Fifth()  # type: ignore[assignment]
    door.register(door.range(0x100, 8), device)
    door.read(0x100, data)
    assert data == b"\x05\x00"


@spaces
def test_a_register_that_is_no_whole_number_is_a_type_error(space: str) -> None:
    door, device, data = Door(space), Scratch(), bytearray(b"ab")
    device.value = 1.5  # type: ignore[assignment]
    door.register(door.range(0x100, 8), device)
    with pytest.raises(TypeError):
        door.read(0x100, data)
    assert data == b"ab"


@spaces
def test_read_into_a_read_only_buffer_is_refused(space: str) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    with pytest.raises(InvalidBuffer, match="read-only bytes"):
        door.read(0x100, b"abcd")
    assert not device.seen


@spaces
def test_register_form_without_a_base_class_is_a_device(space: str) -> None:
    door, device = Door(space), Scratch()
    range_ = door.range(0x100, 8)
    door.register(range_, device)
    door.write(0x104, b"\x78\x56\x34\x12")
    data = bytearray(2)
    door.read(0x104, data)
    assert device.value == 0x1234_5678
    assert data == b"\x78\x56"
    assert door.device(0x107) == (range_, device)
    assert list(door.devices()) == [(range_, device)]
    assert door.deregister(0x103) == (range_, device)


@spaces
def test_object_without_handlers_is_refused(space: str) -> None:
    door = Door(space)
    with pytest.raises(InvalidDevice):
        door.register(door.range(0x100, 8), object())
    assert door.device(0x100) is None


@spaces
@directions
def test_what_a_handler_raises_reaches_the_caller(space: str, direction: str) -> None:
    door, device = Door(space), Scratch()
    device.read = device.write = lambda *_: 1 // 0  # type: ignore[assignment,method-assign]
    door.register(door.range(0x100, 8), device)
    data = bytearray(b"\xa5")
    with pytest.raises(ZeroDivisionError):
        getattr(door, direction)(0x100, data)
    assert data == b"\xa5"


@spaces
def test_overlap_is_refused_with_both_ranges(space: str) -> None:
    door, first, second = Door(space), Memory(8), Memory(8)
    door.register(door.range(0x100, 8), first)
    with pytest.raises(DeviceOverlap) as refused:
        door.register(door.range(0x107, 8), second)
    assert refused.value.ranges == (door.range(0x107, 8), door.range(0x100, 8))
    assert door.device(0x10A) is None


@spaces
def test_deregistered_range_answers_no_more(space: str) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    assert door.deregister(0x105) == (door.range(0x100, 8), device)
    assert door.deregister(0x105) is None
    with pytest.raises(DeviceNotFound):
        door.read(0x100, bytearray(1))


@spaces
def test_moved_range_answers_at_its_new_base(space: str) -> None:
    door, device = Door(space), Memory(8)
    door.register(door.range(0x100, 8), device)
    assert door.move(0x103, 0x200) == door.range(0x200, 8)
    door.write(0x201, b"m")
    assert device.cells[1:2] == b"m"
    assert device.seen[0][:2] == (0x200, 1)
    assert door.device(0x100) is None


def test_the_spaces_do_not_meet() -> None:
    manager, ports, memory = IoManager(), Memory(8), Memory(8)
    manager.register_pio(PioRange(0x100, 8), ports)
    manager.register_mmio(MmioRange(0x100, 8), memory)
    manager.pio_write(0x100, b"p")
    manager.mmio_write(0x100, b"m")
    assert (ports.cells[:1], memory.cells[:1]) == (b"p", b"m")
    assert list(manager.pio_devices()) == [(PioRange(0x100, 8), ports)]
    assert list(manager.mmio_devices()) == [(MmioRange(0x100, 8), memory)]


def test_io_manager_implements_both_interfaces() -> None:
    assert isinstance(IoManager(), PioManager)
    assert isinstance(IoManager(), MmioManager)


both = st.sampled_from(["read", "write"])
accesses = st.tuples(st.integers(0, 30), st.binary(min_size=1, max_size=8), both)


@given(st.lists(accesses, min_size=1, max_size=30))
def test_devices_are_one_memory_but_for_accesses_across_them(steps: list[tuple[int, bytes, str]]) -> None:
    door, model = Door("mmio"), bytearray(32)
    for base in range(0, 32, 8):
        door.register(door.range(base, 8), Memory(8))
    for addr, data, direction in steps:
        check_access(door, model, slice(addr, addr + len(data)), data, direction)


def check_access(door: Door, model: bytearray, span: slice, data: bytes, direction: str) -> None:
    """One access on both, from a buffer that holds `data`."""
    whole = span.start // 8 == (span.stop - 1) // 8
    buffer = bytearray(data)
    served = 0
    with suppress(DeviceNotFound):
        getattr(door, direction)(span.start, buffer)
        served = 1
    assert served == whole
    model[span] = {"read": model[span], "write": data}[direction] if whole else model[span]
    assert buffer == (model[span] if whole else data)
