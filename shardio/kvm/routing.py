"""GSI routes: which interrupt controller pin or which message a global system interrupt becomes.

KVM holds one table a VM and only replaces it whole (KVM_SET_GSI_ROUTING): build each from `default_routes()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardio._core import ffi, lib


@dataclass(frozen=True, slots=True)
class IrqchipRoute:
    """`gsi` drives `pin` of an in-kernel `chip`: 0 and 1 are the PICs, 2 is the IOAPIC (KVM_IRQCHIP_*)."""

    gsi: int
    chip: int
    pin: int


@dataclass(frozen=True, slots=True)
class MsiRoute:
    """`gsi` is sent as a message: 64-bit `address`, 32-bit `data`, and `devid` where one is wanted."""

    gsi: int
    address: int
    data: int
    devid: int | None = None


GsiRoute = IrqchipRoute | MsiRoute


def default_routes() -> tuple[IrqchipRoute, ...]:
    """What KVM_CREATE_IRQCHIP sets up on x86-64: GSI n is IOAPIC pin n and, below 16, a PIC pin too."""
    pics = tuple(
        IrqchipRoute(gsi, lib.KVM_IRQCHIP_PIC_MASTER if gsi < 8 else lib.KVM_IRQCHIP_PIC_SLAVE, gsi % 8)
        for gsi in range(16)
    )
    ioapic = tuple(IrqchipRoute(pin, lib.KVM_IRQCHIP_IOAPIC, pin) for pin in range(lib.KVM_IOAPIC_NUM_PINS))
    return pics + ioapic


def routing_table(routes: tuple[GsiRoute, ...]) -> Any:
    """`routes` as a cffi `struct kvm_irq_routing *`."""
    table = ffi.new("struct kvm_irq_routing *", {"entries": max(len(routes), 1)})
    table.nr = len(routes)
    for entry, route in zip(table.entries, routes, strict=False):
        _fill(entry, route)
    return table


def _fill(entry: Any, route: GsiRoute) -> None:
    entry.gsi = route.gsi
    if isinstance(route, IrqchipRoute):
        entry.type = lib.KVM_IRQ_ROUTING_IRQCHIP
        entry.u.irqchip.irqchip, entry.u.irqchip.pin = route.chip, route.pin
        return
    entry.type = lib.KVM_IRQ_ROUTING_MSI
    entry.u.msi.address_lo, entry.u.msi.address_hi = route.address & 0xFFFF_FFFF, route.address >> 32
    entry.u.msi.data = route.data
    if route.devid is not None:
        entry.flags, entry.u.msi.devid = lib.KVM_MSI_VALID_DEVID, route.devid
