"""Device resources: what a device asks for (constraints), what it gets, and the allocator in between."""

from shardio.resources.allocator import PC_ISA_IRQS, ResourceAllocator
from shardio.resources.constraint import (
    GenericIrqConstraint,
    KvmMemSlotConstraint,
    LegacyIrqConstraint,
    MmioAddressConstraint,
    PciMsiIrqConstraint,
    PciMsixIrqConstraint,
    PioAddressConstraint,
    ResourceConstraint,
)
from shardio.resources.device_resources import DeviceResources
from shardio.resources.resource import (
    KvmMemSlot,
    LegacyIrq,
    MacAddress,
    MmioAddressRange,
    MsiIrq,
    MsiIrqType,
    PioAddressRange,
    Resource,
)

__all__ = [
    "PC_ISA_IRQS", "DeviceResources", "GenericIrqConstraint", "KvmMemSlot", "KvmMemSlotConstraint",
    "LegacyIrq", "LegacyIrqConstraint", "MacAddress", "MmioAddressConstraint", "MmioAddressRange", "MsiIrq",
    "MsiIrqType", "PciMsiIrqConstraint", "PciMsixIrqConstraint", "PioAddressConstraint", "PioAddressRange",
    "Resource", "ResourceAllocator", "ResourceConstraint",
]
