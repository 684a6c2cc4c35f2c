"""`Hardware`: what a machine holds, as far as a kernel must be told of it.

A device says what it is by its class attribute `compatible`, in the words of the device tree ("virtio,mmio",
"ns16550a"); one without is for those who know of it, and is in no table. What its options make of it, a class
tells by `describe`: see `described`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shardio.errors import ShardioError
from shardio.memory import MemoryRegion

VIRTIO_MMIO = "virtio,mmio"
UART = "ns16550a"
RTC = "motorola,mc146818"
KEYBOARD = "intel,8042"
POWER = "acpi,power"
HPET = "intel,hpet"
PCI_HOST = "pci-host-cam-generic"

IO_APIC_PINS = 24
"""KVM_IOAPIC_NUM_PINS: GSI n is pin n."""
ISA_LINES = 16


class PciPin(msgspec.Struct, frozen=True, order=True):
    """An interrupt pin of a function on PCI bus 0: the slot that it is in (0 to 31), INTA to INTD as 1 to
    4, and the line (GSI) that it is wired to. All functions of a slot share its four pins.
    """

    slot: int
    pin: int
    gsi: int


class PlatformDevice(msgspec.Struct, frozen=True):
    """One device: `compatible` is what it is, `base` and `size` (bytes) its range, of ports when `pio`;
    `irq` its interrupt line (GSI), None when it is polled; `level` whether that line is level-triggered.
    `reg_shift`: its registers are `1 << reg_shift` bytes apart (UARTs); `pins`: the pins behind it (PCI
    bridges).
    """

    name: str
    compatible: str
    base: int
    size: int
    pio: bool = False
    irq: int | None = None
    level: bool = False
    reg_shift: int = 0
    pins: tuple[PciPin, ...] = ()


class Hardware(msgspec.Struct, frozen=True):
    """`vcpus` with APIC ids from 0, guest RAM, devices in the order in which they are to be numbered."""

    vcpus: int
    memory: tuple[MemoryRegion, ...]
    devices: tuple[PlatformDevice, ...] = ()

    def of(self, *compatible: str) -> tuple[PlatformDevice, ...]:
        """The devices that are one of these."""
        return tuple(device for device in self.devices if device.compatible in compatible)

    @property
    def pins(self) -> tuple[PciPin, ...]:
        """The interrupt pins of all PCI functions that an IOAPIC pin can take, each once, by slot."""
        found = {pin for bridge in self.of(PCI_HOST) for pin in bridge.pins}
        return tuple(sorted(pin for pin in found if pin.gsi < IO_APIC_PINS))

    @property
    def level_lines(self) -> frozenset[int]:
        """The lines (GSIs) that are level-triggered: those of such devices, and every one that a pin is
        wired to.
        """
        lines = {device.irq for device in self.devices if device.irq is not None and device.level}
        return frozenset(lines | {pin.gsi for pin in self.pins})

    @property
    def io_apic_id(self) -> int:
        """The first APIC id that is no vCPU's."""
        return self.vcpus


def described(factory: object, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of a device make of it, as arguments of `PlatformDevice`.

    A device's class says so by a static method `describe`, which takes the options and gives `reg_shift`, or
    `pins` as tuples of slot, pin and GSI; one without has nothing to tell.
    """
    describe = getattr(factory, "describe", None)
    try:
        told: dict[str, Any] = {} if describe is None else dict(describe(**options))
    except (TypeError, ValueError, ShardioError):  # options that its constructor refuses, which says why
        return {}
    if "pins" in told:
        told["pins"] = tuple(PciPin(*pin) for pin in told["pins"])
    return told
