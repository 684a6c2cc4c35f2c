"""`Hardware`: what a machine holds, as far as a kernel must be told of it.

A device says what it is by its class attribute `compatible`, in the words of the device tree ("virtio,mmio",
"ns16550a"); one without is for those who know of it, and is in no table.
"""

from __future__ import annotations

import msgspec

from shardio.memory import MemoryRegion

VIRTIO_MMIO = "virtio,mmio"
UART = "ns16550a"
RTC = "motorola,mc146818"
KEYBOARD = "intel,8042"
PCI_HOST = "pci-host-cam-generic"

IO_APIC_PINS = 24
"""KVM_IOAPIC_NUM_PINS: GSI n is pin n."""
ISA_LINES = 16


class PlatformDevice(msgspec.Struct, frozen=True):
    """One device: `compatible` is what it is, `base` and `size` (bytes) its range, of ports when `pio`; `irq`
    its interrupt line (GSI), None when it is polled; `level` whether that line is level-triggered.
    """

    name: str
    compatible: str
    base: int
    size: int
    pio: bool = False
    irq: int | None = None
    level: bool = False


class Hardware(msgspec.Struct, frozen=True):
    """`vcpus` with APIC ids from 0, guest RAM, devices in the order in which they are to be numbered."""

    vcpus: int
    memory: tuple[MemoryRegion, ...]
    devices: tuple[PlatformDevice, ...] = ()

    def of(self, *compatible: str) -> tuple[PlatformDevice, ...]:
        """The devices that are one of these."""
        return tuple(device for device in self.devices if device.compatible in compatible)

    @property
    def io_apic_id(self) -> int:
        """The first APIC id that is no vCPU's."""
        return self.vcpus
