"""IoManager: registration by resources, all or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from shardio import (
    DeviceOverlap,
    DeviceResources,
    InvalidDevice,
    IoManager,
    MmioRange,
    MutDeviceMmio,
    MutDevicePio,
    PioRange,
    Resource,
)


class Device(MutDevicePio, MutDeviceMmio):
    """Answers in both spaces, where anybody asks."""

    def pio_read(self, base: Any, offset: int, data: memoryview) -> None:
        raise AssertionError("nobody asks")

    pio_write = mmio_read = mmio_write = pio_read


UART = [
    Resource.PioAddressRange(0x3F8, 8),
    Resource.LegacyIrq(4),
    Resource.MmioAddressRange(0xD000_0000, 0x1000),
]


def test_resources_register_every_range_and_pass_over_the_rest() -> None:
    manager, device = IoManager(), Device()
    manager.register_resources(device, DeviceResources(UART))
    assert manager.pio_device(0x3FA) == (PioRange(0x3F8, 8), device)
    assert manager.mmio_device(0xD000_0FFF) == (MmioRange(0xD000_0000, 0x1000), device)
    assert manager.deregister_resources(UART) == 2
    assert manager.deregister_resources(UART) == 0
    assert [*manager.pio_devices(), *manager.mmio_devices()] == []


def test_one_space_of_the_resources() -> None:
    manager, device = IoManager(), Device()
    manager.register_pio_resources(device, UART)
    assert list(manager.mmio_devices()) == []
    manager.register_mmio_resources(device, UART)
    assert manager.deregister_resources(UART) == 2


@pytest.mark.parametrize("blocked", ["pio", "mmio"])
@pytest.mark.parametrize("order", [1, -1])
def test_resources_are_registered_all_or_none(blocked: str, order: int) -> None:
    manager, device, other = IoManager(), Device(), Device()
    manager.register_resources(other, {"pio": UART[:1], "mmio": UART[2:]}[blocked])
    before = [*manager.pio_devices(), *manager.mmio_devices()]
    with pytest.raises(DeviceOverlap):
        manager.register_resources(device, UART[::order])
    assert [*manager.pio_devices(), *manager.mmio_devices()] == before


def test_resources_that_overlap_each_other_register_none() -> None:
    manager, device = IoManager(), Device()
    with pytest.raises(DeviceOverlap):
        manager.register_resources(device, [UART[0], Resource.PioAddressRange(0x3FC, 1)])
    assert list(manager.pio_devices()) == []


def test_resources_need_a_handler_in_each_of_their_spaces() -> None:
    manager, device = IoManager(), MutDevicePio()
    device.pio_write = device.pio_read = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(InvalidDevice):
        manager.register_resources(device, UART)
    assert list(manager.pio_devices()) == []


def test_deregister_by_resources_spares_a_range_that_moved_or_differs() -> None:
    manager, device, other = IoManager(), Device(), Device()
    manager.register_resources(device, UART)
    manager.move_pio(0x3F8, 0x2F8)
    manager.register_pio(PioRange(0x3F0, 16), other)
    assert manager.deregister_resources(UART) == 1
    assert [range_ for range_, _ in manager.pio_devices()] == [PioRange(0x2F8, 8), PioRange(0x3F0, 16)]
