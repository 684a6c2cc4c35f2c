"""Devices: the register form behind the view form, which form a shard calls, and who is mutable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import (
    DeviceMmio,
    DevicePio,
    HandlerMissing,
    InvalidDevice,
    MmioAddress,
    MutDeviceMmio,
    MutDevicePio,
)
from shardio.device import HandlerForm, answers, handler_form, is_mutable, view_handlers

BASES: list[Any] = [DevicePio, DeviceMmio, MutDevicePio, MutDeviceMmio]
SPACE_OF = {DevicePio: "pio", MutDevicePio: "pio", DeviceMmio: "mmio", MutDeviceMmio: "mmio"}
bases = pytest.mark.parametrize("base_type", BASES)
widths = st.sampled_from([1, 2, 4, 8])
BASE = MmioAddress(0x1000)


class Registers:
    """Register form that records its calls and answers with `value`."""

    def __init__(self, value: int = 0) -> None:
        self.value = value
        self.calls: list[tuple[int, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.calls.append((offset, size))
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.calls.append((offset, size, value))


class Views:
    """View form of both spaces that records what it was handed."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int, bytes]] = []

    def pio_read(self, base: int, offset: int, data: memoryview) -> None:
        self.calls.append(("pio_read", base, offset, bytes(data)))

    def pio_write(self, base: int, offset: int, data: memoryview) -> None:
        self.calls.append(("pio_write", base, offset, bytes(data)))

    def mmio_read(self, base: int, offset: int, data: memoryview) -> None:
        self.calls.append(("mmio_read", base, offset, bytes(data)))

    def mmio_write(self, base: int, offset: int, data: memoryview) -> None:
        self.calls.append(("mmio_write", base, offset, bytes(data)))


def derived(base_type: Any, *others: type) -> Any:
    """A device that derives from a base class and takes its handlers from `others`."""
    return type("Derived", (*others, base_type), {})()


@bases
@given(value=st.integers(-(1 << 70), 1 << 70), size=widths)
def test_read_is_little_endian_and_truncated(base_type: Any, value: int, size: int) -> None:
    device = type("Device", (Registers, base_type), {})(value)
    data = bytearray(size)
    getattr(device, f"{SPACE_OF[base_type]}_read")(BASE, 3, memoryview(data))
    assert int.from_bytes(data, "little") == value % (1 << 8 * size)
    assert device.calls == [(3, size)]


@bases
@given(value=st.integers(0, (1 << 64) - 1), size=widths)
def test_write_is_little_endian(base_type: Any, value: int, size: int) -> None:
    device = type("Device", (Registers, base_type), {})()
    data = value.to_bytes(8, "little")[:size]
    getattr(device, f"{SPACE_OF[base_type]}_write")(BASE, 3, memoryview(data))
    assert device.calls == [(3, size, value % (1 << 8 * size))]


@bases
@pytest.mark.parametrize("direction", ["read", "write"])
def test_missing_handler_is_named(base_type: Any, direction: str) -> None:
    handler = f"{SPACE_OF[base_type]}_{direction}"
    data = bytearray(b"\x5a\x5a")
    with pytest.raises(HandlerMissing, match=f"neither {handler} nor {direction}") as missing:
        getattr(base_type(), handler)(BASE, 0, memoryview(data))
    assert (missing.value.handler, missing.value.device_type) == (handler, base_type.__name__)
    assert data == b"\x5a\x5a"


@bases
@pytest.mark.parametrize("write", [False, True])
def test_base_class_alone_has_no_form(base_type: Any, write: bool) -> None:
    assert handler_form(base_type(), "pio", write=write) is None
    assert handler_form(base_type(), "mmio", write=write) is None
    assert not answers(base_type(), SPACE_OF[base_type])


@bases
@pytest.mark.parametrize("write", [False, True])
def test_form_is_native_before_register_before_view(base_type: Any, write: bool) -> None:
    space = SPACE_OF[base_type]
    device = derived(base_type, Views)
    assert handler_form(device, space, write=write) is HandlerForm.VIEW
    device.read = device.write = lambda *_: 0
    assert handler_form(device, space, write=write) is HandlerForm.REGISTER
    device.native_handler = 0x7F00_0000_0000
    assert handler_form(device, space, write=write) is HandlerForm.NATIVE


@pytest.mark.parametrize("space", ["pio", "mmio"])
@pytest.mark.parametrize("write", [False, True])
def test_form_of_objects_without_a_base_class(space: str, write: bool) -> None:
    assert handler_form(Registers(), space, write=write) is HandlerForm.REGISTER
    assert handler_form(Views(), space, write=write) is HandlerForm.VIEW
    assert handler_form(object(), space, write=write) is None


def test_forms_of_the_two_directions_are_independent() -> None:
    class ReadRegister(DevicePio):
        def read(self, offset: int, size: int) -> int:
            return 0

        def pio_write(self, base: int, offset: int, data: memoryview) -> None:
            del data

    assert handler_form(ReadRegister(), "pio", write=False) is HandlerForm.REGISTER
    assert handler_form(ReadRegister(), "pio", write=True) is HandlerForm.VIEW


@pytest.mark.parametrize("space", ["pio", "mmio"])
def test_view_handlers_of_a_device_that_has_them_are_the_device(space: str) -> None:
    device = Views()
    assert view_handlers(device, space) is device


@pytest.mark.parametrize("space", ["pio", "mmio"])
def test_view_handlers_are_made_from_registers(space: str) -> None:
    device = Registers(0x1234)
    handlers = view_handlers(device, space)
    data = bytearray(2)
    getattr(handlers, f"{space}_read")(BASE, 6, memoryview(data))
    getattr(handlers, f"{space}_write")(BASE, 7, memoryview(b"\x01\x02"))
    assert data == b"\x34\x12"
    assert device.calls == [(6, 2), (7, 2, 0x0201)]


@pytest.mark.parametrize("space", ["pio", "mmio"])
def test_object_without_handlers_is_refused(space: str) -> None:
    with pytest.raises(InvalidDevice, match=f"object cannot answer {space.upper()}") as refused:
        view_handlers(object(), space)
    assert (refused.value.device_type, refused.value.space) == ("object", space)


@pytest.mark.parametrize(
    ("bases_of_device", "pio", "mmio"),
    [
        ((DevicePio,), False, True),
        ((DeviceMmio,), True, False),
        ((DevicePio, DeviceMmio), False, False),
        ((MutDevicePio,), True, True),
        ((MutDeviceMmio,), True, True),
        ((DevicePio, MutDeviceMmio), True, True),
        ((object,), True, True),
    ],
)
def test_mutability_is_declared_by_the_base_classes(
    bases_of_device: tuple[type, ...], pio: bool, mmio: bool
) -> None:
    device_type = type("Device", bases_of_device, {})
    assert (is_mutable(device_type(), "pio"), is_mutable(device_type(), "mmio")) == (pio, mmio)
    assert (is_mutable(device_type, "pio"), is_mutable(device_type, "mmio")) == (pio, mmio)


@pytest.mark.parametrize("space", ["pio", "mmio"])
@pytest.mark.parametrize("kind", [Registers, Views])
def test_a_class_instead_of_its_instance_is_refused(kind: type, space: str) -> None:
    with pytest.raises(InvalidDevice, match="register an instance"):
        view_handlers(kind, space)
