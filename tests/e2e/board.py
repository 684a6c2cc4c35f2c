"""Machines whose PIC, IOAPIC and PIT are devices, under KVM's split irqchip."""

from __future__ import annotations

from typing import Any

from shardio import Machine
from tests.e2e.support import add_exit_port, machine

BOARD = "board"
"""The shard of the controllers."""


def board_machine(**options: Any) -> Machine:
    """A machine with a PIC and an IOAPIC in a shard of their own, and an exit port in another."""
    vm = machine(irqchip="split", shards=2, **options)
    vm.add("shardio.devices:Pic", shard=BOARD)
    vm.add("shardio.devices:IoApic", shard=BOARD)
    add_exit_port(vm, shard="two")
    return vm
