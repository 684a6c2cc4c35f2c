"""`TransportCore`: the part of a virtio transport that has no register addresses, shared by MMIO and PCI.

It keeps what virtio 1.2 chapters 2 and 3 define for every transport: the status byte and its rules, feature
negotiation, where each queue lies, reset, DEVICE_NEEDS_RESET and the configuration generation. A transport
maps its registers to these attributes and says how the driver is interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import QueueError, VirtioError
from shardio.devices.virtio.in_flight import KEPT, InFlight, area_bytes
from shardio.devices.virtio.queue import QueueState, VirtQueue
from shardio.devices.virtio.state import (
    F_EVENT_IDX,
    F_INDIRECT_DESC,
    F_VERSION_1,
    TRANSPORT_FEATURES,
    CoreState,
    QueueSetup,
    SetupState,
    Status,
    replace_half,
)
from shardio.rate import guest_log

if TYPE_CHECKING:
    from shardio.device import DeviceHost, HostMemory


log = logging.getLogger("shardio.devices.virtio")

# Everything that the driver may set; NEEDS_RESET is the device's to set.
_DRIVER_BITS: Final = (
    Status.ACKNOWLEDGE | Status.DRIVER | Status.DRIVER_OK | Status.FEATURES_OK | Status.FAILED
)


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
        self._pending: CoreState | None = None
        self._areas: list[InFlight] = []
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

        Raises VirtioError when the shard has no guest RAM mapped, and what the device raises; its host's
        side is closed then.
        """
        try:
            if host.memory is None:
                raise VirtioError(
                    f"device {host.name}: its shard has not mapped guest RAM",
                    "declare dma = True on the device",
                )
            self.device.attach(host)
        except BaseException:
            self.device.detach()
            raise
        self._memory = host.memory
        if self._pending is not None:
            self.restore(self._pending)

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

    def set_queue(self, field: str, value: int) -> None:
        """The driver sets `field` of the selected queue; dropped where there is none, or it is live."""
        if self.queue is not None and self.queue.live is None:
            setattr(self.queue, field, value)

    def half_writer(self, field: str, *, high: bool) -> Callable[[int], None]:
        """What takes 32 bits of an address of the selected queue: the `high` half, or the low one."""

        def write(word: int) -> None:
            if self.queue is not None:
                self.set_queue(field, replace_half(getattr(self.queue, field), high, word))

        return write

    def write_enable(self, value: int) -> None:
        """The driver says that the selected queue is set up, by a 1; other values do nothing.

        A transport whose driver may stop one queue calls `disable_queue` for a 0.
        """
        if value == 1:
            self.enable_queue()

    def disable_queue(self) -> None:
        """The driver takes the selected queue back: nothing of it is in use afterwards."""
        queue = self.queue
        if queue is not None and queue.live is not None:
            self.device.stop_queue(self.queue_select)
            queue.live = None

    def enable_queue(self) -> None:
        """The driver says that the selected queue is set up. Needs FEATURES_OK; a bad set-up fails the
        device.
        """
        queue = self.queue
        if queue is None or queue.live is not None or self._memory is None:
            return
        if not self.status & Status.FEATURES_OK:
            return
        try:
            if queue.size > queue.max_size:
                raise QueueError("size is larger than the device offers", size=queue.size, max=queue.max_size)
            queue.live = self._make(queue, self._memory)
        except QueueError as error:
            self.fail(error)
            return
        queue.live.keep()
        self.device.start_queue(self.queue_select, queue.live)

    def _make(self, queue: QueueSetup, memory: HostMemory) -> VirtQueue:
        return VirtQueue(
            memory,
            queue.size,
            queue.desc,
            queue.driver,
            queue.device,
            indirect=bool(self.accepted & F_INDIRECT_DESC),
            event_idx=bool(self.accepted & F_EVENT_IDX),
            kept=self._area_of(queue),
        )

    def _area_of(self, queue: QueueSetup) -> InFlight | None:
        areas = zip(self.queues, self._areas, strict=False)
        return next((area for each, area in areas if each is queue), None)

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
        guest_log.warning(log, "virtio device type %d: %s", self.device.device_id, str(error))
        self.status |= Status.NEEDS_RESET
        if self.status & Status.DRIVER_OK:
            self._interrupt(None)

    def reset(self) -> None:
        """Everything that the driver set goes; no guest RAM is in use afterwards."""
        self.device.reset()
        self._clear()

    # -- changing owners --------------------------------------------------------------------------------

    def snapshot(self) -> CoreState:
        """What `restore` continues from, in another process if need be."""
        queues = tuple(
            SetupState(
                queue.size,
                queue.desc,
                queue.driver,
                queue.device,
                queue.vector,
                None if queue.live is None else queue.live.snapshot(),
            )
            for queue in self.queues
        )
        return CoreState(
            int(self.status),
            self.accepted,
            self.generation,
            self.features_page,
            self.driver_features_page,
            self.queue_select,
            queues,
            self.device.save(),
        )

    def keep_in(self, area: memoryview) -> None:
        """Say in `area`, which outlives the shard, what is in flight; before `restore` and `attach`."""
        at, sizes = 0, self.device.queue_sizes
        for size in sizes if sum(map(area_bytes, sizes)) <= len(area) else ():
            self._areas.append(InFlight(area[at : at + area_bytes(size)]))
            at += area_bytes(size)

    def kept(self) -> CoreState:
        """The state beside what is in the area."""
        there = QueueState(KEPT, 0)
        state = self.snapshot()
        queues = tuple(replace(each, live=None if each.live is None else there) for each in state.queues)
        return replace(state, queues=queues)

    def restore(self, state: CoreState) -> None:
        """Become what `state` says; before `attach`, that is when it happens. Chains in flight are served
        again.

        A queue whose rings no longer fit the state fails the device, as a lying driver does.
        """
        if self._memory is None:
            self._pending = state
            return
        self._pending = None
        self.reset()
        self.status, self.accepted = Status(state.status), state.accepted
        self.generation = state.generation
        self.features_page, self.driver_features_page = state.features_page, state.driver_features_page
        self.queue_select = state.queue_select
        changed = bool(state.device) and self.device.load(state.device)
        try:
            for queue, saved in zip(self.queues, state.queues, strict=True):
                queue.size, queue.desc, queue.driver = saved.size, saved.desc, saved.driver
                queue.device, queue.vector = saved.device, saved.vector
                if saved.live is not None:
                    queue.live = self._make(queue, self._memory)
                    queue.live.resume(saved.live)
                    if saved.live.next_avail != KEPT:
                        queue.live.keep()
        except QueueError as error:
            self.fail(error)
        if self.running:
            self.device.activate(self, [queue.live for queue in self.queues], self.accepted)
            self._catch_up()
        if changed:
            self.config_changed()

    def _catch_up(self) -> None:
        """A notification or an interrupt may have died with the last owner: one too many does no harm."""
        for index, queue in enumerate(self.queues):
            if queue.live is not None:
                self.device.notify(index)
                self._interrupt(index)
