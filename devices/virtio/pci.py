"""The virtio-pci transport, modern (virtio 1.2 section 4.1): BAR 0 in front of a `TransportCore`, with
MSI-X or INTx.

`VirtioPci` answers the BAR like any memory-mapped device; its `function` answers configuration accesses and
is given to the PCI host (`PciHost.add_function`). Both belong to one shard. When the guest moves the BAR or
switches its decoding, `on_bar` is told, so that the owner moves the range.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shardio.device import MutDeviceMmio
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import VirtioError
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

# struct virtio_pci_common_cfg: offsets of the fields.
DEVICE_FEATURE_SELECT: Final = 0x00
DEVICE_FEATURE: Final = 0x04
DRIVER_FEATURE_SELECT: Final = 0x08
DRIVER_FEATURE: Final = 0x0C
CONFIG_VECTOR: Final = 0x10
NUM_QUEUES: Final = 0x12
STATUS: Final = 0x14
CONFIG_GENERATION: Final = 0x15
QUEUE_SELECT: Final = 0x16
QUEUE_SIZE: Final = 0x18
QUEUE_VECTOR: Final = 0x1A
QUEUE_ENABLE: Final = 0x1C
QUEUE_NOTIFY_OFF: Final = 0x1E
QUEUE_DESC: Final = 0x20
QUEUE_DRIVER: Final = 0x28
QUEUE_DEVICE: Final = 0x30

_ADDRESSES: Final = {QUEUE_DESC: "desc", QUEUE_DRIVER: "driver", QUEUE_DEVICE: "device"}


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

    def __init__(self, device: VirtioDevice, *, line: int = 11, pin: int = 1) -> None:
        """`line`: the GSI of its INTx pin; `pin`: 1 to 4 for INTA to INTD, 0 for no INTx."""
        self.virtio = device
        self.core = TransportCore(device, self._interrupt)
        queues = len(device.queue_sizes)
        self._vectors = queues + 1
        self.function = VirtioFunction(device.device_id, queues, self._vectors, self, pin=pin)
        self.on_bar: Callable[[int | None], None] | None = None
        self._bar: int | None = None
        self._legacy = LegacyConfig(line, pin) if pin else None
        self._group: InterruptGroup | None = None
        self._msix: MsixTable | None = None
        self._pending: PciState | None = None
        self.isr = 0
        self.config_vector = NO_VECTOR
        self.doorbells = [Doorbell(NOTIFY_OFFSET + NOTIFY_MULTIPLIER * index, 2) for index in range(queues)]
        self._reads, self._writes = self._registers()

    def _registers(
        self,
    ) -> tuple[dict[tuple[int, int], Callable[[], int]], dict[tuple[int, int], Callable[[int], None]]]:
        """(offset, width) -> what reads and writes the field of the common configuration."""
        core = self.core
        reads: dict[tuple[int, int], Callable[[], int]] = {
            (DEVICE_FEATURE_SELECT, 4): lambda: core.features_page,
            (DEVICE_FEATURE, 4): core.features_word,
            (DRIVER_FEATURE_SELECT, 4): lambda: core.driver_features_page,
            (DRIVER_FEATURE, 4): core.accepted_word,
            (CONFIG_VECTOR, 2): lambda: self.config_vector,
            (NUM_QUEUES, 2): lambda: len(core.queues),
            (STATUS, 1): lambda: core.status,
            (CONFIG_GENERATION, 1): lambda: core.generation & 0xFF,
            (QUEUE_SELECT, 2): lambda: core.queue_select,
            (QUEUE_SIZE, 2): lambda: core.queue.size if core.queue else 0,
            (QUEUE_VECTOR, 2): lambda: core.queue.vector if core.queue else NO_VECTOR,
            (QUEUE_ENABLE, 2): lambda: int(core.queue is not None and core.queue.live is not None),
            (QUEUE_NOTIFY_OFF, 2): lambda: core.queue_select if core.queue else 0,
        }
        writes: dict[tuple[int, int], Callable[[int], None]] = {
            (DEVICE_FEATURE_SELECT, 4): lambda page: setattr(core, "features_page", page),
            (DRIVER_FEATURE_SELECT, 4): lambda page: setattr(core, "driver_features_page", page),
            (DRIVER_FEATURE, 4): core.accept_features,
            (CONFIG_VECTOR, 2): self._set_config_vector,
            (STATUS, 1): self._write_status,
            (QUEUE_SELECT, 2): lambda index: setattr(core, "queue_select", index),
            (QUEUE_SIZE, 2): lambda size: core.set_queue("size", size),
            (QUEUE_VECTOR, 2): self._set_queue_vector,
            (QUEUE_ENABLE, 2): core.write_enable,
        }
        for at, name in _ADDRESSES.items():
            reads[at, 8] = self._address_reader(name, 0)
            reads[at, 4] = self._address_reader(name, 0)
            reads[at + 4, 4] = self._address_reader(name, 32)
            writes[at, 8] = partial(core.set_queue, name)
            writes[at, 4] = core.half_writer(name, high=False)
            writes[at + 4, 4] = core.half_writer(name, high=True)
        return reads, writes

    # -- what the shard calls ---------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Take guest RAM and interrupts. Raises VirtioError when the host offers either not."""
        interrupts: Any = getattr(host, "interrupts", None)
        if interrupts is None:
            raise VirtioError(
                f"device {host.name}: no interrupts to ask for", "give its shard an InterruptManager"
            )
        self.core.attach(host)
        self._group = interrupts.group(self._vectors, self._legacy)
        self._msix = MsixTable(self._group)
        self._use_intx()
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
        return PciState(self.core.snapshot(), self.isr, self.config_vector, bytes(self.function.data), msix)

    def restore(self, state: PciState) -> None:
        """Continue from `state`; before `attach`, that is when it happens."""
        if self._msix is None:
            self._pending = state
            return
        self._pending = None
        self.function.data[:] = state.config
        self.isr, self.config_vector = state.isr, state.config_vector
        if state.msix is not None:
            self._msix.restore(state.msix)
        if not self._msix.enabled:
            self._use_intx()
        self.core.restore(state.core)
        self.command_changed()

    # -- BAR 0 ------------------------------------------------------------------------------------------

    def read_bar(self, offset: int, size: int) -> int:
        """A field of its own width, the ISR (which it clears), configuration, MSI-X table or pending
        bits; else 0.
        """
        if COMMON_OFFSET <= offset < COMMON_OFFSET + COMMON_SIZE:
            field = self._reads.get((offset - COMMON_OFFSET, size))
            return field() & ((1 << 8 * size) - 1) if field is not None else 0
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
            field = self._writes.get((offset - COMMON_OFFSET, size))
            if field is not None:
                field(value)
        elif DEVICE_OFFSET <= offset < DEVICE_OFFSET + DEVICE_SIZE:
            self.core.write_config(offset - DEVICE_OFFSET, size, value)
        elif NOTIFY_OFFSET <= offset < MSIX_TABLE_OFFSET:
            self.core.notify((offset - NOTIFY_OFFSET) // NOTIFY_MULTIPLIER)
        elif self._msix is not None and MSIX_TABLE_OFFSET <= offset < MSIX_PBA_OFFSET:
            self._msix.write(offset - MSIX_TABLE_OFFSET, size, value)

    def _address_reader(self, name: str, shift: int) -> Callable[[], int]:
        return lambda: getattr(self.core.queue, name) >> shift if self.core.queue else 0

    def _write_status(self, value: int) -> None:
        self.core.write_status(value)
        if value & 0xFF == 0:
            self.config_vector = NO_VECTOR
            self._read_isr()

    # -- interrupts -------------------------------------------------------------------------------------

    def _set_config_vector(self, vector: int) -> None:
        self.config_vector = self._valid(vector)

    def _set_queue_vector(self, vector: int) -> None:
        queue = self.core.queue
        if queue is not None:
            queue.vector = self._valid(vector)

    def _valid(self, vector: int) -> int:
        """The driver reads NO_VECTOR back where a vector cannot be had (section 4.1.5.1.2.1)."""
        return vector if vector < self._vectors else NO_VECTOR

    def _interrupt(self, index: int | None) -> None:
        if self._group is None or self._msix is None:
            return
        if self._msix.enabled:
            vector = self.config_vector if index is None else self.core.queues[index].vector
            if vector != NO_VECTOR:
                self._group[vector].trigger()
            return
        self.isr |= ISR_CONFIG if index is None else ISR_USED
        if not self.function.intx_disabled:
            self._group[0].trigger()

    def _read_isr(self) -> int:
        isr, self.isr = self.isr, 0
        if self._group is not None:
            self._group.deassert()
        return isr

    def _use_intx(self) -> None:
        if self._group is not None and self._legacy is not None:
            self._group.switch(InterruptMode.INTX)

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

    def command_changed(self) -> None:
        """INTx may have been allowed again, and the BAR may have moved."""
        if self._group is not None and self._group.mode is InterruptMode.INTX:
            if self.function.intx_disabled:
                self._group.deassert()
            elif self.isr:
                self._group[0].trigger()
        bar = self.function.bar(0) if self.function.decodes_memory else None
        if bar != self._bar:
            self._bar = bar
            if self.on_bar is not None:
                self.on_bar(bar)
