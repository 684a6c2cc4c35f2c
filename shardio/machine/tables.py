"""What a machine tells its kernel of: its devices in the terms of `shardio.platform`."""

from __future__ import annotations

from collections.abc import Iterable

from shardio.machine.devices import DeviceRequest, IrqMode
from shardio.memory import GuestMemory
from shardio.platform import Hardware, PlatformDevice
from shardio.range import PioRange


def hardware(vcpus: int, memory: GuestMemory, devices: Iterable[DeviceRequest]) -> Hardware:
    """The machine's hardware; devices whose class says nothing of itself (`compatible`) are left out."""
    return Hardware(
        vcpus,
        memory.regions,
        tuple(
            PlatformDevice(
                device.name,
                device.compatible,
                int(span.base),
                span.size,
                pio=isinstance(span, PioRange),
                irq=device.irq,
                level=device.irq_mode is IrqMode.LEVEL,
            )
            for device in devices
            if device.compatible
            for span in device.spans
        ),
    )
