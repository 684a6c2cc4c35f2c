"""GSI routes: the default table, and the kernel's struct for each kind."""

from __future__ import annotations

from shardio._core import lib
from shardio.kvm.routing import IrqchipRoute, MsiRoute, default_routes, routing_table


def test_every_gsi_has_its_ioapic_pin_and_the_first_16_a_pic_pin():
    routes = default_routes()
    assert [route.gsi for route in routes if route.chip == lib.KVM_IRQCHIP_IOAPIC] == list(range(24))
    pics = [route for route in routes if route.chip != lib.KVM_IRQCHIP_IOAPIC]
    assert [(route.gsi, route.chip * 8 + route.pin) for route in pics] == [(gsi, gsi) for gsi in range(16)]


def test_an_irqchip_route_in_the_table():
    table = routing_table((IrqchipRoute(4, 2, 7),))
    entry = table.entries[0]
    assert (table.nr, entry.gsi, entry.type) == (1, 4, lib.KVM_IRQ_ROUTING_IRQCHIP)
    assert (entry.u.irqchip.irqchip, entry.u.irqchip.pin) == (2, 7)


def test_a_message_route_in_the_table():
    table = routing_table((IrqchipRoute(4, 2, 7), MsiRoute(24, 0x1_FEE0_0000, 0x41)))
    entry = table.entries[1]
    assert (table.nr, entry.gsi, entry.type, entry.flags) == (2, 24, lib.KVM_IRQ_ROUTING_MSI, 0)
    assert (entry.u.msi.address_hi, entry.u.msi.address_lo, entry.u.msi.data) == (1, 0xFEE0_0000, 0x41)


def test_a_device_id_is_flagged_valid():
    entry = routing_table((MsiRoute(24, 0, 0, devid=0x10),)).entries[0]
    assert (entry.flags, entry.u.msi.devid) == (lib.KVM_MSI_VALID_DEVID, 0x10)
