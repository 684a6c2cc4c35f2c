"""`SplitBackend`: interrupts of a VM whose local APICs alone are in the kernel (KVM_CAP_SPLIT_IRQCHIP).

Facts. The kernel takes messages, by irqfd and route as ever, and knows no lines. It leaves the guest with
KVM_EXIT_IOAPIC_EOI when a vector ends that a level message (bit 15 of its data) has carried, of a GSI below
the number of pins that the VM was made with, of which it keeps 8 bits.

Consequences. Lines lead to a PIC and an IOAPIC that are devices, over their wires
(`shardio.interrupt.wires`), which a vCPU worker writes. A line that is raised during an access is seen to
by the worker whose access that is; for the rest its eventfd is watched here, and the boot processor's
worker is told. A level line has no resample fd: its controller follows it up and down, by the shard's word
of levels. Messages are given GSIs above those pins until they become level ones.
"""

from __future__ import annotations

import heapq
from dataclasses import replace
from typing import TYPE_CHECKING

from shardio._core import lib
from shardio.errors import InterruptError
from shardio.interrupt.backend import Irqfd
from shardio.interrupt.config import EXTINT, MAX_GSI, MsiConfig
from shardio.interrupt.wires import LINES, line_bit, no_controllers
from shardio.kvm.interrupt import KvmBackend, Moves
from shardio.kvm.vm import SPLIT_PINS

if TYPE_CHECKING:
    from shardio.kvm.vm import Vm

_LEVEL = 1 << 15


class SplitBackend(KvmBackend):
    """An `InterruptBackend` of one VM with a split irqchip. `controllers`: SIO_WIRED_* of those that are
    devices of the machine now.
    """

    _pins = ()

    def __init__(self, vm: Vm) -> None:
        super().__init__(vm)
        self._free_gsis = list(range(SPLIT_PINS, MAX_GSI + 1))
        self._free_pins = list(range(SPLIT_PINS))
        self.controllers = 0

    def allocate(self, gsi: int | None, *, level: bool = False, followed: bool = False) -> Irqfd:
        """See `InterruptBackend.allocate`. Raises InterruptError for a line that leads to no device."""
        if gsi is None:
            return super().allocate(gsi, level=level)
        bit = line_bit(gsi)
        if bit is None or (gsi == EXTINT and not level):
            raise InterruptError(gsi, "no such line", f"use MSI, or lines 0 to {LINES - 1}")
        if not self.controllers:
            raise no_controllers(gsi)
        if gsi == EXTINT:
            return self._watched(gsi, Moves(0, lib.SIO_LINE_OUTPUT_MOVED))
        return self._watched(gsi, Moves(1 << bit, lib.SIO_LINE_MOVED if level else 0))

    def set_route(self, handle: int, message: MsiConfig) -> None:
        """See `InterruptBackend.set_route`."""
        if handle in self._moves:
            raise InterruptError(
                self._known(handle).gsi, "is a line, it carries no message", "allocate one without a GSI"
            )
        if message.data & _LEVEL and self._known(handle).gsi >= SPLIT_PINS:
            self._move_to_pin(handle)
        self._route(self._known(handle).gsi, message)

    def _move_to_pin(self, handle: int) -> None:
        if not self._free_pins:
            raise InterruptError("MSI", f"there are {SPLIT_PINS} level messages", "free some first")
        connected, irqfd = handle in self._connected, self._known(handle)
        self.disconnect(handle)
        self._give_back(irqfd.gsi)
        self._irqfds[handle] = replace(irqfd, gsi=heapq.heappop(self._free_pins))
        if connected:
            self.connect(handle)

    def _let_go(self, moves: Moves) -> None:
        """The controllers learn of it as of every move."""

    def _give_back(self, gsi: int) -> None:
        self._messages.pop(gsi, None)
        heapq.heappush(self._free_pins if gsi < SPLIT_PINS else self._free_gsis, gsi)
