"""`TransportCore`: the part of a virtio transport that has no register addresses, shared by MMIO and PCI.

It keeps what virtio 1.2 chapters 2 and 3 define for every transport: the status byte and its rules, feature
negotiation, where each queue lies, reset, DEVICE_NEEDS_RESET and the configuration generation. A transport
maps its registers to these attributes and says how the driver is interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Final

from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import QueueError, VirtioError
from shardio.devices.virtio.queue import VirtQueue

if TYPE_CHECKING:
    from shardio.device import DeviceHost, HostMemory

log = logging.getLogger("shardio.devices.virtio")

F_INDIRECT_DESC: Final = 1 << 28
F_EVENT_IDX: Final = 1 << 29
F_VERSION_1: Final = 1 << 32
TRANSPORT_FEATURES: Final = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1

NO_VECTOR: Final = 0xFFFF
"""VIRTIO_MSI_NO_VECTOR: no MSI-X vector is assigned."""


def replace_half(address: int, high: bool, word: int) -> int:
    """`address` (64 bits) with one 32-bit half replaced.

    >>> hex(replace_half(0x1_0000_2000, False, 0x3000))
    '0x100003000'
    """
    return (address & 0xFFFFFFFF) | word << 32 if high else (address & ~0xFFFFFFFF) | word


class Status(IntFlag):
    """Device status bits (virtio 1.2 section 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


# Everything that the driver may set; NEEDS_RESET is the device's to set.
_DRIVER_BITS: Final = (
    Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK | Status.FEATURES_OK | Status.FAILED
)


@dataclass(slots=True)
class QueueSetup:
    """What the driver wrote about one queue: its size in entries and guest physical addresses."""

    max_size: int
    size: int
    desc: int = 0
    driver: int = 0
    device: int = 0
    vector: int = NO_VECTOR
    live: VirtQueue | None = None


class TransportCore:
    """State machine of one virtio device. Implements `DeviceSide` for its device."""

    def __init__(self, device: VirtioDevice, interrupt: Callable[[int | None], None]) -> None:
        """`interrupt(index)`: interrupt the driver about queue `index`, or about the configuration when
        None.
        """
        self.device = device
        self._interrupt = interrupt
        self._memory: HostMemory | None = None
        self.offered = device.features | TRANSPORT_FEATURES
        self.generation = 0
        self._clear()

    def _clear(self) -> None:
        self.status = Status(0)
        self.accepted = 0
        self.features_page = 0
        self.driver_features_page = 0
        self.queue_select = 0
        self.queues = [QueueSetup(size, size) for size in self.device.queue_sizes]

    def attach(self, host: DeviceHost) -> None:
        """Take guest RAM and the device's host services.

        Raises VirtioError when the shard has no guest RAM mapped.
        """
        if host.memory is None:
            raise VirtioError(
                f"device {host.name}: its shard has not mapped guest RAM", "declare dma = True on the device"
            )
        self._memory = host.memory
        self.device.attach(host)

    def detach(self) -> None:
        """Stop, let go of guest RAM, close the device's files."""
        self.reset()
        self._memory = None
        self.device.detach()

    # -- status and features ----------------------------------------------------------------------------

    def write_status(self, value: int) -> None:
        """The driver writes the status byte: 0 resets, anything else sets bits (none can be cleared)."""
        if value & 0xFF == 0:
            self.reset()
            return
        asked = Status(value & _DRIVER_BITS) & ~self.status
        if asked & Status.FEATURES_OK and not self._features_agree():
            asked &= ~Status.FEATURES_OK  # the driver re-reads the byte and finds its features refused
        if asked & Status.DRIVER_OK and not (self.status | asked) & Status.FEATURES_OK:
            asked &= ~Status.DRIVER_OK
        self.status |= asked
        if asked & Status.DRIVER_OK and not self.status & Status.NEEDS_RESET:
            self.device.activate(self, [queue.live for queue in self.queues], self.accepted)

    def _features_agree(self) -> bool:
        return bool(self.accepted & F_VERSION_1) and not self.accepted & ~self.offered

    def features_word(self) -> int:
        """32 bits of the offered features, the page that `features_page` selects."""
        return self.offered >> (32 * self.features_page) & 0xFFFFFFFF if self.features_page < 2 else 0

    def accepted_word(self) -> int:
        """32 bits of the driver's features, the page that `driver_features_page` selects."""
        return (
            self.accepted >> (32 * self.driver_features_page) & 0xFFFFFFFF
            if self.driver_features_page < 2
            else 0
        )

    def accept_features(self, word: int) -> None:
        """The driver writes 32 of its feature bits; ignored once FEATURES_OK is set."""
        page = self.driver_features_page
        if self.status & Status.FEATURES_OK:
            return
        if page > 1:
            # No feature lies there: remember any bit as one that was never offered, so that FEATURES_OK is
            # refused.
            self.accepted |= word and 1 << 64
            return
        self.accepted = self.accepted & ~(0xFFFFFFFF << (32 * page)) | (word & 0xFFFFFFFF) << (32 * page)

    # -- queues -----------------------------------------------------------------------------------------

    @property
    def queue(self) -> QueueSetup | None:
        """The selected queue, or None when there is no such queue."""
        return self.queues[self.queue_select] if self.queue_select < len(self.queues) else None

    def enable_queue(self, queue: QueueSetup) -> None:
        """The driver says that the selected queue is set up. Needs FEATURES_OK; a bad set-up fails the
        device.
        """
        if queue.live is not None or not self.status & Status.FEATURES_OK or self._memory is None:
            return
        try:
            if queue.size > queue.max_size:
                raise QueueError("size is larger than the device offers", size=queue.size, max=queue.max_size)
            queue.live = VirtQueue(
                self._memory,
                queue.size,
                queue.desc,
                queue.driver,
                queue.device,
                indirect=bool(self.accepted & F_INDIRECT_DESC),
                event_idx=bool(self.accepted & F_EVENT_IDX),
            )
        except QueueError as error:
            self.fail(error)

    def notify(self, index: int) -> None:
        """The driver rang queue `index`. Ignored before DRIVER_OK, after a failure, and for no such queue."""
        if self.running and index < len(self.queues):
            self.device.notify(index)

    @property
    def running(self) -> bool:
        """DRIVER_OK is set and nothing is broken."""
        return self.status & (Status.DRIVER_OK | Status.NEEDS_RESET | Status.FAILED) == Status.DRIVER_OK

    # -- configuration space ----------------------------------------------------------------------------

    def read_config(self, offset: int, size: int) -> int:
        """`size` bytes of the device's configuration, little-endian; zero past its end."""
        return int.from_bytes(self.device.config()[offset : offset + size], "little")

    def write_config(self, offset: int, size: int, value: int) -> None:
        """The driver writes `size` bytes of the device's configuration; dropped past its end."""
        if offset + size <= len(self.device.config()):
            self.device.write_config(offset, value.to_bytes(size, "little"))

    # -- what the device tells us -----------------------------------------------------------------------

    def used(self, index: int) -> None:
        """Queue `index` has new used chains."""
        queue = self.queues[index].live
        if queue is not None and queue.needs_interrupt():
            self._interrupt(index)

    def config_changed(self) -> None:
        """New configuration: the next generation, and an interrupt once the driver runs."""
        self.generation = (self.generation + 1) & 0xFFFFFFFF
        if self.status & Status.DRIVER_OK:
            self._interrupt(None)

    def fail(self, error: QueueError) -> None:
        """The driver broke a rule: no queue is touched again until it resets the device."""
        if self.status & Status.NEEDS_RESET:
            return
        # As text: a log record that kept the error would keep its frames, and with them views of guest RAM.
        log.warning("virtio device type %d: %s", self.device.device_id, str(error))
        self.status |= Status.NEEDS_RESET
        if self.status & Status.DRIVER_OK:
            self._interrupt(None)

    def reset(self) -> None:
        """Everything that the driver set goes; no guest RAM is in use afterwards."""
        self.device.reset()
        self._clear()
