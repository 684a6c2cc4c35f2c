"""`KvmBackend`: the interrupt abstraction over KVM's irqfds and GSI routing. Used by the process that made
the VM.

Facts. KVM replaces a VM's routing table whole, so its single owner is this object: the controllers' default
pins plus one MSI entry for each dynamic GSI that has a message. Legacy lines keep the GSIs of the IOAPIC's
pins; dynamic ones begin above them. Several irqfds may share a GSI; with resample fds KVM ORs the line and
tells all of them of the guest's EOI. A split irqchip has neither legacy pins in the kernel nor resample:
see `shardio.kvm.split`.

A line whose controller follows it both ways cannot be an irqfd, which KVM lowers at the guest's EOI: its
eventfd is watched here, and whoever sees to it makes KVM_IRQ_LINE what the device's level is.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from shardio._core import lib
from shardio.errors import InterruptError
from shardio.interrupt.backend import RISE, Irqfd
from shardio.interrupt.config import MAX_GSI, MsiConfig
from shardio.kvm.routing import GsiRoute, MsiRoute, default_routes

if TYPE_CHECKING:
    from shardio.kvm.vm import Vm

FIRST_DYNAMIC_GSI = 24
"""The first GSI after the pins of KVM's IOAPIC (KVM_IOAPIC_NUM_PINS)."""


class Moves(NamedTuple):
    """What a write to a line's eventfd means (SIO_LINE_*): an edge, or that a level line has moved."""

    edge: int
    level: int


class KvmBackend:
    """An `InterruptBackend` (floor 2) of one VM. Close it before the VM."""

    _pins: tuple[GsiRoute, ...] = default_routes()
    """Routes to the controllers in the kernel, which are there with every message."""

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._irqfds: dict[int, Irqfd] = {}
        self._connected: set[int] = set()
        self._messages: dict[int, MsiConfig] = {}
        self._next_handle = 1
        self._free_gsis = list(range(FIRST_DYNAMIC_GSI, MAX_GSI + 1))  # sorted, hence a heap
        self._moves: dict[int, Moves] = {}
        """Of the lines that are watched, by handle."""
        self._watch: Callable[[int, Callable[[], None]], None] = _nobody
        self._forget: Callable[[int], None] = _nobody
        self._tell: Callable[[int], None] = _nobody
        self._follow: Callable[[int], None] = _nobody

    def connect_to(
        self,
        watch: Callable[[int, Callable[[], None]], None],
        forget: Callable[[int], None],
        tell: Callable[[int], None],
        follow: Callable[[int], None],
    ) -> None:
        """`watch(fd, then)` calls `then` whenever the descriptor is readable, until `forget(fd)`;
        `tell(lines)` is to see to lines that have moved (SIO_LINE_*), and `follow(lines)` is told which (bit
        n: GSI n) the controllers are to follow up and down.
        """
        self._watch, self._forget, self._tell, self._follow = watch, forget, tell, follow

    @property
    def followed(self) -> int:
        """The lines (bit n: GSI n) that the controllers are to follow up and down."""
        lines = 0
        for handle, moves in self._moves.items():
            lines |= moves.edge if moves.level and handle in self._connected else 0
        return lines

    def allocate(self, gsi: int | None, *, level: bool = False, followed: bool = False) -> Irqfd:
        """See `InterruptBackend.allocate`. Raises InterruptError for a line that this VM does not have."""
        if gsi is None and level:
            raise InterruptError("MSI", "messages are edges", "ask for a level interrupt on a line")
        if gsi is not None and not 0 <= gsi < FIRST_DYNAMIC_GSI:
            raise InterruptError(gsi, "no such line", f"use MSI, or lines 0 to {FIRST_DYNAMIC_GSI - 1}")
        if gsi is None and not self._free_gsis:
            raise InterruptError("MSI", "all GSIs are in use", "free interrupts that are no longer used")
        if gsi is not None and level and followed:
            return self._watched(gsi, Moves(1 << gsi, lib.SIO_LINE_MOVED))
        fds = _eventfds(2 if level else 1)
        return self._keep(heapq.heappop(self._free_gsis) if gsi is None else gsi, fds)

    def _watched(self, gsi: int, moves: Moves) -> Irqfd:
        irqfd = self._keep(gsi, _eventfds(1))
        self._moves[irqfd.handle] = moves
        return irqfd

    def _keep(self, gsi: int, fds: list[int]) -> Irqfd:
        irqfd = Irqfd(self._next_handle, gsi, fds[0], fds[1] if len(fds) > 1 else None)
        self._next_handle += 1
        self._irqfds[irqfd.handle] = irqfd
        return irqfd

    def set_route(self, handle: int, message: MsiConfig) -> None:
        """See `InterruptBackend.set_route`. Raises KvmError when the kernel refuses the table."""
        gsi = self._known(handle).gsi
        if gsi < FIRST_DYNAMIC_GSI:
            raise InterruptError(
                gsi, "is a line, it carries no message", "allocate an interrupt without a GSI"
            )
        self._route(gsi, message)

    def _route(self, gsi: int, message: MsiConfig) -> None:
        self._messages[gsi] = message
        self._publish()

    def connect(self, handle: int) -> None:
        """See `InterruptBackend.connect`. Raises KvmError when the kernel refuses the irqfd."""
        if handle in self._connected:
            return
        irqfd = self._known(handle)
        if handle in self._moves:
            self._watch(irqfd.fd, partial(self._moved, irqfd.fd, self._moves[handle]))
        else:
            self._vm.irqfd(irqfd.fd, irqfd.gsi, resample_fd=irqfd.resample_fd)
        self._connected.add(handle)
        if handle in self._moves:
            self._follow(self.followed)

    def disconnect(self, handle: int) -> None:
        """See `InterruptBackend.disconnect`."""
        if handle not in self._connected:
            return
        irqfd = self._known(handle)
        if handle in self._moves:
            self._forget(irqfd.fd)
        else:
            self._vm.irqfd(irqfd.fd, irqfd.gsi, deassign=True)
        self._connected.remove(handle)
        if handle in self._moves:
            self._let_go(self._moves[handle])

    def free(self, handle: int) -> None:
        """See `InterruptBackend.free`."""
        self.disconnect(handle)
        irqfd = self._known(handle)
        del self._irqfds[handle]
        os.close(irqfd.fd)
        if irqfd.resample_fd is not None:
            os.close(irqfd.resample_fd)
        if self._moves.pop(handle, None) is None:
            self._give_back(irqfd.gsi)

    def close(self) -> None:
        """Free everything."""
        for handle in list(self._irqfds):
            self.free(handle)

    def _let_go(self, moves: Moves) -> None:
        """A line that nobody has followed any more is low."""
        self._follow(self.followed)
        if moves.level and not self.followed & moves.edge:
            self._vm.irq_line(moves.edge.bit_length() - 1, 0)

    def _moved(self, fd: int, moves: Moves) -> None:
        with suppress(BlockingIOError):
            # A rise is an edge, whatever the level is by the time that the controller is told.
            edge = os.eventfd_read(fd) >= RISE or not moves.level
            self._tell(moves.level | (moves.edge if edge else 0))

    def _give_back(self, gsi: int) -> None:
        if gsi >= FIRST_DYNAMIC_GSI:
            # The stale route does no harm, nothing is bound to its GSI: the next table leaves it out.
            self._messages.pop(gsi, None)
            heapq.heappush(self._free_gsis, gsi)

    def _known(self, handle: int) -> Irqfd:
        try:
            return self._irqfds[handle]
        except KeyError:
            raise InterruptError(f"handle {handle}", "is not allocated", "free each irqfd once") from None

    def _publish(self) -> None:
        messages = tuple(
            MsiRoute(gsi, message.address, message.data, message.device_id)
            for gsi, message in sorted(self._messages.items())
        )
        self._vm.set_gsi_routing(self._pins + messages)


def _nobody(*_arguments: object) -> None:
    """In the place of whom lines are told to, before a machine runs."""


def _eventfds(count: int) -> list[int]:
    """Raises InterruptError where there are no descriptors left."""
    fds: list[int] = []
    try:
        for _ in range(count):
            fds.append(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
    except OSError as error:
        for fd in fds:
            os.close(fd)
        raise InterruptError(
            "eventfd", str(error.strerror), "raise the limit on open files (ulimit -n)"
        ) from error
    return fds
