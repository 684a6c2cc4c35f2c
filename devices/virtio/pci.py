"""The virtio-pci transport, modern (virtio 1.2 section 4.1): BAR 0 in front of a `TransportCore`, with
MSI-X or INTx.

`VirtioPci` answers the BAR like any memory-mapped device; its `function` answers configuration accesses and
is given to the PCI host (`PciHost.add_function`). Both belong to one shard. When the guest moves the BAR or
switches its decoding, `on_bar` is told, so that the owner moves the range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec.structs import replace

from shardio.device import MutDeviceMmio
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import VirtioError
from shardio.devices.virtio.in_flight import MOST_AREA_BYTES
from shardio.devices.virtio.pci_common import CommonConfig
from shardio.devices.virtio.pci_function import (
    BAR_SIZE,
    COMMON_OFFSET,
    COMMON_SIZE,
    DEVICE_OFFSET,
    DEVICE_SIZE,
    ISR_OFFSET,
    MSIX_PBA_OFFSET,
    MSIX_TABLE_OFFSET,
    NOTIFY_MULTIPLIER,
    NOTIFY_OFFSET,
    VirtioFunction,
)
from shardio.devices.virtio.state import NO_VECTOR, CoreState
from shardio.devices.virtio.transport import TransportCore
from shardio.interrupt import Doorbell, InterruptGroup, InterruptMode, LegacyConfig, MsixTable
from shardio.interrupt.msix import MsixState

if TYPE_CHECKING:
    from shardio.device import DeviceHost

ISR_USED: Final = 1
ISR_CONFIG: Final = 2
PIN: Final = 1
"""INTA."""
LINE: Final = 11
"""The GSI that it is wired to where nobody says otherwise."""


class PciState(msgspec.Struct, frozen=True):
    """The device's state: what every transport keeps, the ISR, and configuration space with its MSI-X
    table.
    """

    core: CoreState
    isr: int
    config_vector: int
    config: bytes
    msix: MsixState | None


class VirtioPci(MutDeviceMmio):
    """A virtio device on PCI: one MSI-X vector a queue and one for the configuration, or INTx on `line`."""

    dma = True
    mmio_size = BAR_SIZE
    state_type = PciState
    persistent, persistent_area = 1 << 14, MOST_AREA_BYTES

    @staticmethod
    def intx(line: int = LINE, **_: object) -> tuple[int, int]:
        """Pin and line (GSI) of a device that is made with these options."""
        return PIN, line

    def __init__(self, device: VirtioDevice, *, line: int = LINE, pin: int = PIN) -> None:
        """`line`: the GSI of its INTx pin; `pin`: 1 to 4 for INTA to INTD, 0 for no INTx.

        Raises InterruptError for others; `device` is detached then.
        """
        self.virtio = device
        try:
            self._legacy = LegacyConfig(line, pin) if pin else None
        except BaseException:
            device.detach()
            raise
        self.core = TransportCore(device, self._interrupt)
        queues = len(device.queue_sizes)
        self._vectors = queues + 1
        self.function = VirtioFunction(device.device_id, queues, self._vectors, self, pin=pin, line=line)
        device.paused = True  # until the guest lets it master the bus
        self.on_bar: Callable[[int | None], None] | None = None
        self._bar: int | None = None
        self._group: InterruptGroup | None = None
        self._msix: MsixTable | None = None
        self._pending: PciState | None = None
        self.isr = 0
        self.doorbells = [Doorbell(NOTIFY_OFFSET + NOTIFY_MULTIPLIER * index, 2) for index in range(queues)]
        self.common = CommonConfig(self.core, self._vectors, self._read_isr)
        self._held_vectors: set[int] = set()

    # -- what the shard calls ---------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Take guest RAM and interrupts. Raises VirtioError when the host offers either not."""
        self.core.attach(host)
        try:
            interrupts: Any = getattr(host, "interrupts", None)
            if interrupts is None:
                raise VirtioError(
                    f"device {host.name}: no interrupts to ask for", "give its shard an InterruptManager"
                )
            self._group = interrupts.group(self._vectors, self._legacy)
            self._msix = MsixTable(self._group)
            self._use_intx()
        except BaseException:
            self.detach()
            raise
        if self._pending is not None:
            self.restore(self._pending)

    def detach(self) -> None:
        """Stop the device; let go of guest RAM and interrupts."""
        self.core.detach()
        if self._group is not None:
            self._group.free()
        self._group = self._msix = None

    def doorbell(self, index: int) -> None:
        """The eventfd of `doorbells[index]` fired."""
        self.core.notify(index)

    def read(self, offset: int, size: int) -> int:
        """The BAR; all ones while the guest has memory decoding off."""
        return self.read_bar(offset, size) if self.function.decodes_memory else (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """The BAR; dropped while the guest has memory decoding off."""
        if self.function.decodes_memory:
            self.write_bar(offset, size, value)

    def snapshot(self) -> PciState:
        """The state that `restore` takes; guest RAM and the host's side (image, link) are not part of it."""
        msix = None if self._msix is None else self._msix.snapshot()
        vector = self.common.config_vector
        return PciState(self.core.snapshot(), self.isr, vector, bytes(self.function.data), msix)

    def keep_in(self, _store: object, area: memoryview, _keep: object) -> None:
        """See `PciEndpoint`."""
        self.core.keep_in(area)

    def transient(self, offset: int) -> bool:
        """The ISR and notifications: a successor interrupts, and looks at its queues, in any case."""
        return ISR_OFFSET <= offset < DEVICE_OFFSET or NOTIFY_OFFSET <= offset < MSIX_TABLE_OFFSET

    def kept(self) -> PciState:
        """The state beside what is in the area."""
        return replace(self.snapshot(), core=self.core.kept(), isr=0)

    def restore(self, state: PciState) -> None:
        """Continue from `state`; before `attach`, that is when it happens."""
        if self._msix is None:
            self._pending = state
            return
        self._pending = None
        self.function.data[:] = state.config
        self._set_isr(state.isr)
        self.common.config_vector = state.config_vector
        if state.msix is not None:
            self._msix.restore(state.msix)
        if not self._msix.enabled:
            self._use_intx()
        self._master()
        self.core.restore(state.core)
        self.command_changed()

    # -- BAR 0 ------------------------------------------------------------------------------------------

    def read_bar(self, offset: int, size: int) -> int:
        """A field of its own width, the ISR (which it clears), configuration, MSI-X table or pending
        bits; else 0.
        """
        if COMMON_OFFSET <= offset < COMMON_OFFSET + COMMON_SIZE:
            return self.common.read(offset - COMMON_OFFSET, size)
        if offset == ISR_OFFSET:
            return self._read_isr()
        if DEVICE_OFFSET <= offset < DEVICE_OFFSET + DEVICE_SIZE:
            return self.core.read_config(offset - DEVICE_OFFSET, size)
        if self._msix is not None and offset >= MSIX_PBA_OFFSET:
            return self._msix.read_pba(offset - MSIX_PBA_OFFSET, size)
        if self._msix is not None and offset >= MSIX_TABLE_OFFSET:
            return self._msix.read(offset - MSIX_TABLE_OFFSET, size)
        return 0

    def write_bar(self, offset: int, size: int, value: int) -> None:
        """The same places; a write to a queue's notification address notifies the queue."""
        if COMMON_OFFSET <= offset < COMMON_OFFSET + COMMON_SIZE:
            self.common.write(offset - COMMON_OFFSET, size, value)
        elif DEVICE_OFFSET <= offset < DEVICE_OFFSET + DEVICE_SIZE:
            self.core.write_config(offset - DEVICE_OFFSET, size, value)
        elif NOTIFY_OFFSET <= offset < MSIX_TABLE_OFFSET:
            self.core.notify((offset - NOTIFY_OFFSET) // NOTIFY_MULTIPLIER)
        elif self._msix is not None and MSIX_TABLE_OFFSET <= offset < MSIX_PBA_OFFSET:
            self._msix.write(offset - MSIX_TABLE_OFFSET, size, value)

    # -- interrupts -------------------------------------------------------------------------------------

    def _interrupt(self, index: int | None) -> None:
        if self._group is None or self._msix is None:
            return
        if self._msix.enabled:
            vector = self.common.config_vector if index is None else self.core.queues[index].vector
            if vector == NO_VECTOR:
                return
            if self.virtio.paused:
                self._held_vectors.add(vector)  # a message is a write of the device's
            else:
                self._group[vector].trigger()
            return
        self._set_isr(self.isr | (ISR_CONFIG if index is None else ISR_USED))
        self._drive_intx()

    def _set_isr(self, value: int) -> None:
        self.isr = value
        self.function.set_interrupt_status(value != 0)

    def _read_isr(self) -> int:
        isr = self.isr
        self._set_isr(0)
        self._drive_intx()
        return isr

    def _use_intx(self) -> None:
        if self._group is not None and self._legacy is not None:
            self._group.switch(InterruptMode.INTX)

    def _drive_intx(self) -> None:
        """In INTx mode the line follows the ISR, as far as the command register allows it."""
        if self._group is None or self._group.mode is not InterruptMode.INTX:
            return
        if self.isr and not self.function.intx_disabled:
            self._group[0].trigger()
        else:
            self._group.deassert()

    def _master(self) -> None:
        """The device uses the bus as the command register allows it: DMA and messages (PCI 3.0 6.2.2)."""
        masters = self.function.masters_bus
        if masters != self.virtio.paused:
            return
        if not masters:
            self.virtio.pause()
            return
        self.virtio.resume()
        held, self._held_vectors = self._held_vectors, set()
        for vector in held:
            if self._group is not None and self._msix is not None and self._msix.enabled:
                self._group[vector].trigger()

    # -- what the function asks -------------------------------------------------------------------------

    def read_msix_control(self) -> int:
        """MSI-X message control."""
        return self._msix.read_control() if self._msix is not None else self._vectors - 1

    def write_msix_control(self, value: int) -> None:
        """The guest wrote MSI-X message control: to MSI-X and back to INTx."""
        if self._msix is not None:
            self._msix.write_control(value)
            if not self._msix.enabled:
                self._use_intx()
                self._drive_intx()

    def command_changed(self) -> None:
        """INTx or the bus may have been allowed again, and the BAR may have moved."""
        self._drive_intx()
        self._master()
        bar = self.function.bar(0) if self.function.decodes_memory else None
        if bar != self._bar:
            self._bar = bar
            if self.on_bar is not None:
                self.on_bar(bar)
