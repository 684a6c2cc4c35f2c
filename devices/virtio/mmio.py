"""The virtio-mmio transport, version 2 (virtio 1.2 section 4.2): registers in front of a `TransportCore`.

Registers are 32 bits wide and are accessed as such; another width reads zero and writes nothing. The
configuration space from 0x100 up takes any width. A write to QueueNotify is either an access like any other
or, where the shard bound the `doorbells`, an eventfd that calls `doorbell`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from shardio.device import MutDeviceMmio
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.in_flight import MOST_AREA_BYTES
from shardio.devices.virtio.state import CoreState
from shardio.devices.virtio.transport import TransportCore
from shardio.interrupt import Doorbell

if TYPE_CHECKING:
    from shardio.device import DeviceHost

MAGIC: Final = 0x74726976  # "virt"
VERSION: Final = 2
VENDOR_ID: Final = 0x4F_49_44_53  # "SDIO"

MAGIC_VALUE: Final = 0x000
VERSION_REGISTER: Final = 0x004
DEVICE_ID: Final = 0x008
VENDOR: Final = 0x00C
DEVICE_FEATURES: Final = 0x010
DEVICE_FEATURES_SEL: Final = 0x014
DRIVER_FEATURES: Final = 0x020
DRIVER_FEATURES_SEL: Final = 0x024
QUEUE_SEL: Final = 0x030
QUEUE_SIZE_MAX: Final = 0x034
QUEUE_SIZE: Final = 0x038
QUEUE_READY: Final = 0x044
QUEUE_NOTIFY: Final = 0x050
INTERRUPT_STATUS: Final = 0x060
INTERRUPT_ACK: Final = 0x064
STATUS: Final = 0x070
QUEUE_DESC: Final = 0x080
QUEUE_DRIVER: Final = 0x090
QUEUE_DEVICE: Final = 0x0A0
SHM_SEL: Final = 0x0AC
SHM_REGISTERS: Final = range(0x0B0, 0x0C0, 4)
CONFIG_GENERATION: Final = 0x0FC
CONFIG: Final = 0x100

INTERRUPT_USED: Final = 1
INTERRUPT_CONFIG: Final = 2

_ADDRESSES: Final = {QUEUE_DESC: "desc", QUEUE_DRIVER: "driver", QUEUE_DEVICE: "device"}


class MmioState(msgspec.Struct, frozen=True):
    """The device's state: what every transport keeps, and the interrupt status register."""

    core: CoreState
    interrupt_status: int


class VirtioMmio(MutDeviceMmio):
    """A virtio device at a range of guest addresses. `dma`: its shard maps guest RAM."""

    dma = True
    persistent, persistent_area, state_type = 1 << 13, MOST_AREA_BYTES, MmioState
    unguarded = frozenset((QUEUE_NOTIFY, INTERRUPT_STATUS, INTERRUPT_ACK))
    """A notification or an interrupt too many does no harm, and a successor makes both."""
    compatible = "virtio,mmio"
    mmio_size = 0x1000

    def __init__(self, device: VirtioDevice) -> None:
        self.virtio = device
        self.core = TransportCore(device, self._interrupt)
        self.interrupt_status = 0
        self._trigger: Callable[[], None] | None = None
        self._deassert: Callable[[], None] | None = None
        self.doorbells = [Doorbell(QUEUE_NOTIFY, 4, index) for index in range(len(device.queue_sizes))]
        core = self.core
        self._reads: dict[int, Callable[[], int]] = {
            MAGIC_VALUE: lambda: MAGIC,
            VERSION_REGISTER: lambda: VERSION,
            DEVICE_ID: lambda: device.device_id,
            VENDOR: lambda: VENDOR_ID,
            DEVICE_FEATURES: core.features_word,
            QUEUE_SIZE_MAX: lambda: core.queue.max_size if core.queue else 0,
            QUEUE_READY: lambda: int(core.queue is not None and core.queue.live is not None),
            INTERRUPT_STATUS: lambda: self.interrupt_status,
            STATUS: lambda: core.status,
            CONFIG_GENERATION: lambda: core.generation,
            # No shared memory region exists, whichever is selected: length and base read as -1 (section
            # 4.2.2.1).
            **{register: lambda: 0xFFFFFFFF for register in SHM_REGISTERS},
        }
        self._writes: dict[int, Callable[[int], None]] = {
            DEVICE_FEATURES_SEL: lambda page: setattr(core, "features_page", page),
            DRIVER_FEATURES_SEL: lambda page: setattr(core, "driver_features_page", page),
            DRIVER_FEATURES: core.accept_features,
            QUEUE_SEL: lambda index: setattr(core, "queue_select", index),
            QUEUE_SIZE: lambda size: core.set_queue("size", size),
            QUEUE_READY: self._write_ready,
            QUEUE_NOTIFY: core.notify,
            INTERRUPT_ACK: self._acknowledge,
            STATUS: self._write_status,
            **{low: core.half_writer(name, high=False) for low, name in _ADDRESSES.items()},
            **{low + 4: core.half_writer(name, high=True) for low, name in _ADDRESSES.items()},
        }

    # -- what the shard calls ---------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Take the interrupt and guest RAM. Raises VirtioError when there is no guest RAM."""
        trigger = host.trigger
        self._trigger = trigger.trigger if trigger is not None else None
        # A level interrupt goes down when the driver has acknowledged everything; an edge one has no such
        # method.
        self._deassert = getattr(trigger, "deassert", None)
        if (store := getattr(host, "persistent", None)) is not None:
            self.core.keep_in(store.area)
        self.core.attach(host)

    def detach(self) -> None:
        """Stop the device, let go of guest RAM, close its files."""
        self.core.detach()
        self._trigger = self._deassert = None

    def doorbell(self, index: int) -> None:
        """The eventfd of `doorbells[index]` fired: queue `index` was notified."""
        self.core.notify(index)

    def read(self, offset: int, size: int) -> int:
        """A register (32 bits) or `size` bytes of configuration space."""
        if offset >= CONFIG:
            return self.core.read_config(offset - CONFIG, size)
        read = self._reads.get(offset) if size == 4 else None
        return read() if read is not None else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """A register (32 bits) or `size` bytes of configuration space."""
        if offset >= CONFIG:
            self.core.write_config(offset - CONFIG, size, value)
            return
        write = self._writes.get(offset) if size == 4 else None
        if write is not None:
            write(value)

    def snapshot(self) -> MmioState:
        """The state that `restore` takes; guest RAM and the host's side (image, link) are not part of it."""
        return MmioState(self.core.snapshot(), self.interrupt_status)

    def kept(self) -> MmioState:
        """The state beside what is in the area. A successor interrupts in any case."""
        return MmioState(self.core.kept(), 0)

    def restore(self, state: MmioState) -> None:
        """Continue from `state`, before or after `attach`."""
        self.interrupt_status = state.interrupt_status
        self.core.restore(state.core)

    # -- registers --------------------------------------------------------------------------------------

    def _write_ready(self, value: int) -> None:
        """1 starts the selected queue, 0 stops it (section 4.2.2)."""
        if value == 0:
            self.core.disable_queue()
        else:
            self.core.write_enable(value)

    def _write_status(self, value: int) -> None:
        self.core.write_status(value)
        if value & 0xFF == 0:
            self._acknowledge(0xFFFFFFFF)

    def _acknowledge(self, bits: int) -> None:
        self.interrupt_status &= ~bits
        if not self.interrupt_status and self._deassert is not None:
            self._deassert()

    def _interrupt(self, index: int | None) -> None:
        self.interrupt_status |= INTERRUPT_CONFIG if index is None else INTERRUPT_USED
        if self._trigger is not None:
            self._trigger()
