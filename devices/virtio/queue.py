"""The device's side of a split virtqueue (virtio 1.2 section 2.7), safe against any driver.

Facts. Three tables lie in guest RAM: descriptors (address, length, flags, next), the available ring (the
driver says: here is work) and the used ring (the device says: done). The driver may be buggy or hostile,
and other vCPUs may rewrite any byte at any moment, also between two of our loads.

Consequences. (1) Every word of the driver is loaded once, and only the loaded copy is checked and used. (2)
Cursors (`_next_avail`, `_next_used`) are private: nothing that we wrote is ever read back. (3) Each chain
has a budget of descriptors, so a loop ends. (4) An address becomes a `memoryview` of guest RAM through
`GuestMemory.view`, which refuses what is not RAM, or it is not used at all. (5) A head that is still in
flight cannot be taken again, so at most `size` chains are ever outstanding. (6) Any broken rule is a
`QueueError`: the transport then sets DEVICE_NEEDS_RESET and does not touch the queue again.

Ring indices are loaded and stored as whole aligned 16-bit words (a memoryview cast to "H"), because the
driver must never see half an index. Two places need a full fence, marked A and B below; each names its
partner in the driver, which has the same shape: publish, fence, look.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from shardio.device import HostMemory
from shardio.devices.virtio.errors import QueueError
from shardio.devices.virtio.fence import full_fence, light_fence
from shardio.devices.virtio.in_flight import KEPT, InFlight
from shardio.errors import ShardioError

DESC_F_NEXT: Final = 1
DESC_F_WRITE: Final = 2
DESC_F_INDIRECT: Final = 4
AVAIL_F_NO_INTERRUPT: Final = 1
USED_F_NO_NOTIFY: Final = 1

QUEUE_SIZE_LIMIT: Final = 32768
# Section 2.7.5.3.1 limits an indirect table to the queue's size, but Linux goes past it on small queues. What
# bounds our work is a limit, not that one.
INDIRECT_LIMIT: Final = 1024
CHAIN_BYTES_LIMIT: Final = 2**32 - 1

_DESC: Final = struct.Struct("<QIHH")
_USED: Final = struct.Struct("<II")


class Chain(msgspec.Struct, frozen=True, gc=False):
    """One request: the head to give back, and its buffers in guest RAM in the driver's order.

    The bytes in the buffers may still change under the device: copy what is to be interpreted, once.
    """

    head: int
    readable: Sequence[memoryview]
    writable: Sequence[memoryview]

    @property
    def readable_bytes(self) -> int:
        """How many bytes the driver offers to be read."""
        return sum(map(len, self.readable))

    @property
    def writable_bytes(self) -> int:
        """How many bytes the driver offers to be filled."""
        return sum(map(len, self.writable))


class QueueState(msgspec.Struct, frozen=True):
    """What a queue's next owner needs: both cursors (16 bits), and the heads in flight, oldest first."""

    next_avail: int
    next_used: int
    in_flight: tuple[int, ...] = ()


class VirtQueue:
    """One enabled split virtqueue. Single owner: all calls come from the device's shard."""

    def __init__(
        self,
        memory: HostMemory,
        size: int,
        desc: int,
        driver: int,
        device: int,
        *,
        indirect: bool = True,
        event_idx: bool = True,
        kept: InFlight | None = None,
    ) -> None:
        """`size`: entries, a power of two up to 32768. `desc`, `driver`, `device`: guest physical addresses
        of the three tables, aligned to 16, 2 and 4 bytes. `indirect`, `event_idx`: whether
        VIRTIO_F_INDIRECT_DESC and VIRTIO_F_EVENT_IDX were negotiated. `kept`: what says to a successor which
        chains are in flight.

        Raises QueueError for a bad size, a misaligned table, or one that is not wholly in RAM.
        """
        if not 0 < size <= QUEUE_SIZE_LIMIT or size & (size - 1):
            raise QueueError("size is not a power of two from 1 to 32768", size=size)
        self.size = size
        self._memory = memory
        self._mask = size - 1
        self._indirect = indirect
        self._event_idx = event_idx
        self._desc = self._table("descriptor table", desc, 16 * size, 16)
        available = self._table("available ring", driver, 6 + 2 * size, 2)
        used = self._table("used ring", device, 6 + 8 * size, 4)
        # 16-bit words: [0] flags, [1] index, then the ring; the available ring ends with used_event, the
        # used ring
        # (whose entries are 8 bytes, reached through `_used`) with avail_event.
        self._avail16 = available.cast("H")
        self._used = used
        self._used16 = used.cast("H")
        self._used_event = 2 + size
        self._avail_event = 2 + 4 * size
        self._next_avail = 0
        self._next_used = 0
        self._signalled = 0
        self._in_flight: dict[int, None] = {}  # in the order in which they were taken
        self._again: deque[int] = deque()
        self._kept = kept

    def _table(self, name: str, address: int, length: int, alignment: int) -> memoryview:
        if address % alignment:
            raise QueueError(f"{name} is not aligned to {alignment} bytes", address=address)
        return self._buffer(name, address, length)

    def _buffer(self, name: str, address: int, length: int) -> memoryview:
        try:
            return self._memory.view(address, length)
        except ShardioError:
            raise QueueError(f"{name} is outside guest RAM", address=address, length=length) from None

    # -- taking work ------------------------------------------------------------------------------------

    def pop(self) -> Chain | None:
        """The next chain that the driver made available, or None when there is none.

        Raises QueueError when the driver broke a rule.
        """
        if self._again:
            return self._take(self._again.popleft())
        if not self._offered(self._next_avail):
            return None
        light_fence()  # the index is loaded before the head; pairs with the driver's store of avail.idx
        chain = self._take(self._avail16[2 + (self._next_avail & self._mask)])
        self._next_avail = (self._next_avail + 1) & 0xFFFF
        return chain

    def _offered(self, since: int) -> int:
        """How many chains the driver made available since the index `since`."""
        offered = (self._avail16[1] - since) & 0xFFFF
        if offered > self.size:
            raise QueueError(
                "more chains are available than the queue holds", offered=offered, size=self.size
            )
        return offered

    def _take(self, head: int) -> Chain:
        if head >= self.size:
            raise QueueError("head is outside the descriptor table", head=head, size=self.size)
        if head in self._in_flight:
            raise QueueError("head is in flight already", head=head)
        chain = self._walk(head)
        self._in_flight[head] = None
        if self._kept is not None:
            self._kept.taken(head)
        return chain

    def _walk(self, head: int) -> Chain:
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        table: memoryview | bytes = self._desc
        entries = budget = self.size
        in_indirect = False
        total = 0
        index = head
        while True:
            if not budget:
                raise QueueError("chain is longer than its table: it loops", head=head, entries=entries)
            budget -= 1
            address, length, flags, following = _DESC.unpack_from(table, 16 * index)
            if flags & DESC_F_INDIRECT:
                if in_indirect:
                    raise QueueError("indirect table inside an indirect table", head=head, index=index)
                table = self._indirect_table(address, length, flags)
                entries = budget = len(table) // 16
                in_indirect = True
                index = 0
                continue
            total += length
            if total > CHAIN_BYTES_LIMIT:
                raise QueueError("chain is 4 GiB or longer", head=head, total=total)
            if length:
                buffer = self._buffer("buffer", address, length)
                if flags & DESC_F_WRITE:
                    writable.append(buffer)
                elif writable:
                    raise QueueError(
                        "device-readable buffer after a device-writable one", head=head, index=index
                    )
                else:
                    readable.append(buffer)
            if not flags & DESC_F_NEXT:
                return Chain(head, readable, writable)
            if following >= entries:
                raise QueueError("next is outside the descriptor table", next=following, entries=entries)
            index = following

    def _indirect_table(self, address: int, length: int, flags: int) -> bytes:
        if not self._indirect:
            raise QueueError(
                "indirect descriptor, but VIRTIO_F_INDIRECT_DESC was not negotiated", address=address
            )
        if flags & DESC_F_NEXT:
            raise QueueError("indirect descriptor with a next one", address=address)
        if not 0 < length <= 16 * INDIRECT_LIMIT or length % 16:
            raise QueueError("indirect table is not 1 to 1024 whole descriptors", length=length)
        return bytes(self._buffer("indirect table", address, length))

    # -- giving it back ---------------------------------------------------------------------------------

    def push(self, chain: Chain, written: int) -> None:
        """Give a chain back: `written` bytes (from the start) of its writable buffers were filled.

        Raises ValueError for a chain that is not in flight: a bug of the device, never of the driver.
        """
        self.push_together(((chain, written),))

    def push_together(self, chains: Iterable[tuple[Chain, int]]) -> None:
        """`push` several, in this order: the driver sees all of them or none.

        Raises ValueError as `push` does.
        """
        next_used = self._next_used
        for chain, written in chains:
            if chain.head not in self._in_flight:
                raise ValueError(f"chain {chain.head} is not in flight; each popped chain is pushed once")
            _USED.pack_into(self._used, 4 + 8 * (next_used & self._mask), chain.head, written)
            next_used = (next_used + 1) & 0xFFFF
            del self._in_flight[chain.head]
            if self._kept is not None:
                self._kept.returning(chain.head)
        self._next_used = next_used
        light_fence()  # the elements are visible before the index; pairs with the driver's load of used.idx
        self._used16[1] = next_used
        if self._kept is not None:
            self._kept.returned(next_used)

    def needs_interrupt(self) -> bool:
        """Whether the driver wants an interrupt for what was pushed since the last call (section 2.7.7)."""
        # Sync point A: used.idx is visible before we look; the driver writes used_event, fences, then looks.
        full_fence()
        before, self._signalled = self._signalled, self._next_used
        pushed = (self._next_used - before) & 0xFFFF
        if not pushed:
            return False
        if not self._event_idx:
            return not self._avail16[0] & AVAIL_F_NO_INTERRUPT
        wanted = self._avail16[self._used_event]
        return (self._next_used - wanted - 1) & 0xFFFF < pushed

    # -- being told -------------------------------------------------------------------------------------

    def disable_notifications(self) -> None:
        """Ask the driver not to notify while the device looks at the queue anyway; a hint, it may still
        do so.
        """
        if not self._event_idx:
            self._used16[0] = USED_F_NO_NOTIFY

    def enable_notifications(self) -> bool:
        """Ask to be notified of the next chain. True: one came meanwhile; `pop` again, nothing else tells."""
        if self._event_idx:
            self._used16[self._avail_event] = self._next_avail
        else:
            self._used16[0] = 0
        # Sync point B: the wish is visible before we look; the driver writes avail.idx, fences, then looks.
        full_fence()
        return bool(self._again) or bool(self._avail16[1] != self._next_avail)

    @property
    def in_flight(self) -> int:
        """How many chains were popped and not yet pushed."""
        return len(self._in_flight)

    # -- changing owners --------------------------------------------------------------------------------

    def snapshot(self) -> QueueState:
        """What `resume` continues from, in another process if need be."""
        return QueueState(self._next_avail, self._next_used, (*self._in_flight, *self._again))

    def resume(self, state: QueueState) -> None:
        """Continue where another owner of the same rings stopped, or died some time after `state` was taken.

        The rings tell what happened since: what was offered and has not come back is served again, in order.
        Raises QueueError when more went round since than the rings remember.
        """
        if state.next_avail == KEPT and self._kept is not None:
            self._next_used = self._signalled = self._used16[1]
            self._again = deque(self._kept.resume(self._next_used))
            self._next_avail = (self._next_used + len(self._again)) & 0xFFFF
            return
        returned = (self._used16[1] - state.next_used) & 0xFFFF
        if returned > self.size:
            raise QueueError("the snapshot is older than the used ring", returned=returned, size=self.size)
        offered = self._offered(state.next_avail)
        waiting = [*state.in_flight, *self._heads(state.next_avail, offered)]
        for index in range(state.next_used, state.next_used + returned):
            head, _ = _USED.unpack_from(self._used, 4 + 8 * (index & self._mask))
            if head not in waiting:
                raise QueueError("a chain came back that was never offered", head=head)
            waiting.remove(head)
        self._again = deque(waiting)
        self._next_avail = (state.next_avail + offered) & 0xFFFF
        self._next_used = self._signalled = (state.next_used + returned) & 0xFFFF

    def keep(self) -> None:
        """The queue is new, or at a state from elsewhere: note for a successor what is in flight."""
        if self._kept is not None:
            self._kept.begin(self._next_used, [*self._in_flight, *self._again])

    def _heads(self, since: int, count: int) -> list[int]:
        return [self._avail16[2 + (index & self._mask)] for index in range(since, since + count)]
