"""`VirtioDevice`: what rng, console, block and net have in common, whatever transport carries them.

A device sees chains and knows nothing of registers, addresses or interrupts; the transport
(`TransportCore`) knows nothing of what is in a chain. Between the two: the transport calls `activate`,
`notify` and `reset`, the device calls `take`, `give_back` and `tell_used`. All calls come from the shard's
loop; a device that works in threads comes back to the loop before it gives a chain back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from shardio.devices.virtio.errors import QueueError
from shardio.devices.virtio.queue import Chain, VirtQueue

if TYPE_CHECKING:
    from shardio.device import DeviceHost


class DeviceSide(Protocol):
    """What a transport offers to its device."""

    def used(self, index: int) -> None:
        """Queue `index` has new used chains: interrupt the driver unless it asked not to be."""

    def config_changed(self) -> None:
        """The configuration space changed: new generation, and an interrupt."""

    def fail(self, error: QueueError) -> None:
        """The driver broke a rule: set DEVICE_NEEDS_RESET and tell the driver."""


class VirtioDevice:
    """Base of the device types. A subclass gives the class attributes and `serve`."""

    device_id: ClassVar[int]
    """Virtio device type (virtio 1.2 section 5)."""
    queue_sizes: tuple[int, ...]
    """Largest size of each queue, entries, powers of two."""

    def __init__(self, features: int = 0) -> None:
        """`features`: the device type's own feature bits (0-23); the transport adds those of queues."""
        self.features = features
        self.negotiated = 0
        self.queues: list[VirtQueue | None] = []
        self.paused = False
        """Whether the device may not touch guest RAM for now; see `pause`."""
        self.host: DeviceHost | None = None
        self._side: DeviceSide | None = None

    # -- what a subclass may override -------------------------------------------------------------------

    def config(self) -> bytes:
        """The device-specific configuration space, little-endian, as the driver reads it."""
        return b""

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver wrote `data` at `offset` of the configuration space. Ignored unless a device says
        otherwise.
        """

    def serve(self, index: int, chain: Chain) -> int | None:
        """Serve one chain of queue `index`.

        Returns how many bytes of its writable buffers were filled, or None when `give_back` will follow
        later. Raises QueueError when the request is malformed beyond an error status.
        """
        raise NotImplementedError

    def started(self) -> None:
        """The driver set DRIVER_OK: queues are live."""

    def save(self) -> bytes:
        """What the driver or the host has set, beside what the transport keeps: `load` takes it. MessagePack.
        """
        return b""

    def load(self, saved: bytes) -> bool:
        """Take over what `save` of another owner gave. True: `config` is not what the driver was told.

        Raises ValueError for anything else.
        """
        return False

    def stopped(self) -> None:
        """The device is being reset. On return no buffer of guest RAM is in use any more."""

    def stop_queue(self, index: int) -> None:
        """The driver took queue `index` back. On return none of its buffers is in use any more; the others go
        on.
        """
        if index < len(self.queues):
            self.queues[index] = None

    def pause(self) -> None:
        """The bus may carry no access of the device (PCI: bus mastering is off). On return guest RAM is left
        alone until `resume`; nothing is forgotten.
        """
        self.paused = True

    def resume(self) -> None:
        """Guest RAM may be used again: go on with what waits."""
        self.paused = False
        for index in range(len(self.queues)):
            self.notify(index)

    def notify(self, index: int) -> None:
        """The driver made chains available in queue `index`."""
        self.drain(index)

    def attach(self, host: DeviceHost) -> None:
        """Called once, in the owner shard, before anything else."""
        self.host = host

    def detach(self) -> None:
        """Called once, after everything else: close what was opened."""

    # -- what the transport calls -----------------------------------------------------------------------

    def activate(self, side: DeviceSide, queues: Sequence[VirtQueue | None], negotiated: int) -> None:
        """Queues are live (None: not set up by the driver), features are final."""
        self._side, self.queues, self.negotiated = side, list(queues), negotiated
        if not self.paused:
            self.started()

    def start_queue(self, index: int, queue: VirtQueue) -> None:
        """The driver set queue `index` up while the device runs."""
        if index < len(self.queues):
            self.queues[index] = queue

    def reset(self) -> None:
        """Back to the state before `activate`; safe to call when never activated."""
        self.stopped()
        self._side, self.queues, self.negotiated = None, [], 0

    # -- what a subclass calls --------------------------------------------------------------------------

    def take(self, index: int) -> Chain | None:
        """The next chain of queue `index`; None when there is none, the device is paused, or it waits to be
        reset.
        """
        queue = self.queues[index] if index < len(self.queues) else None
        if queue is None or self.paused:
            return None
        try:
            return queue.pop()
        except QueueError as error:
            self.fail(error)
            return None

    def take_or_ask(self, index: int) -> Chain | None:
        """`take`, and when there is none, be sure to be notified of the next one."""
        chain = self.take(index)
        if chain is None and not self.paused and self.queues:
            queue = self.queues[index]
            if queue is not None and queue.enable_notifications():
                chain = self.take(index)
        return chain

    def give_back(self, index: int, chain: Chain, written: int) -> None:
        """Give `chain` back with `written` bytes filled; `tell_used` follows. Nothing once the device
        failed.
        """
        self.give_back_together(index, ((chain, written),))

    def give_back_together(self, index: int, chains: Iterable[tuple[Chain, int]]) -> None:
        """The same for several, of which the driver sees all or none."""
        queue = self.queues[index] if index < len(self.queues) else None
        if queue is not None:
            queue.push_together(chains)

    def tell_used(self, index: int) -> None:
        """Interrupt the driver about what was given back, if it wants that."""
        if self.queues and self._side is not None:
            self._side.used(index)

    def fail(self, error: QueueError) -> None:
        """Stop all queues until the driver resets the device."""
        self.queues = []
        if self._side is not None:
            self._side.fail(error)

    def config_changed(self) -> None:
        """Tell the driver that `config()` returns something new."""
        if self._side is not None:
            self._side.config_changed()

    def drain(self, index: int) -> None:
        """Serve what queue `index` holds, one queue's worth at most: the rest waits for the loop's next
        turn.
        """
        queue = self.queues[index] if index < len(self.queues) else None
        if queue is None or self._side is None or self.paused:
            return
        pushed = False
        queue.disable_notifications()
        for _ in range(queue.size):
            chain = self.take(index)
            if chain is None:
                if not self.queues:
                    return  # the driver broke a rule
                if queue.enable_notifications():
                    continue
                break
            try:
                written = self.serve(index, chain)
            except QueueError as error:
                self.fail(error)
                return
            if written is not None:
                queue.push(chain, written)
                pushed = True
        else:
            self._later(index)
        if pushed:
            self._side.used(index)

    def _later(self, index: int) -> None:
        if self.host is not None:
            self.host.loop.call_soon(self.drain, index)
