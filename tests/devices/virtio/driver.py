"""The driver's side of a split virtqueue, written from the specification alone: the model the device is
held to.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from shardio.device import HostMemory
from shardio.devices.virtio.queue import VirtQueue

NEXT, WRITE, INDIRECT = 1, 2, 4
RAM = 0x100000
"""Bytes of the guest RAM in which most of these tests lay their queues out."""


class ModelDriver:
    """Lays a queue of `size` entries out at `base`, and hands buffers out from `base + 0x10000` up."""

    def __init__(
        self, memory: HostMemory, size: int = 8, base: int = 0x1000, *, event_idx: bool = False
    ) -> None:
        self.memory, self.size, self.event_idx = memory, size, event_idx
        self.desc = base
        self.avail = base + 16 * size
        self.used = self.avail + 6 + 2 * size + (-(6 + 2 * size) % 4)
        self.heap = self.heap_base = base + 0x10000
        self.free = list(range(size))
        self.avail_index = 0
        self.seen_used = 0
        self.published = 0
        self.chains: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}
        memory.write(base, bytes(self.used + 6 + 8 * size - base))

    def queue(self, *, indirect: bool = True) -> VirtQueue:
        """The device's side of this queue."""
        return VirtQueue(
            self.memory,
            self.size,
            self.desc,
            self.avail,
            self.used,
            indirect=indirect,
            event_idx=self.event_idx,
        )

    # -- raw words: what a hostile driver writes --------------------------------------------------------

    def u16(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 2), "little")

    def put_u16(self, address: int, value: int) -> None:
        self.memory.write(address, (value & 0xFFFF).to_bytes(2, "little"))

    def put_desc(self, index: int, address: int, length: int, flags: int, following: int = 0) -> None:
        self.memory.write(self.desc + 16 * index, struct.pack("<QIHH", address, length, flags, following))

    def offer(self, head: int) -> None:
        """Put `head`, whatever it is, into the available ring and publish it."""
        self.put_u16(self.avail + 4 + 2 * (self.avail_index % self.size), head)
        self.avail_index = (self.avail_index + 1) & 0xFFFF
        self.put_u16(self.avail + 2, self.avail_index)

    # -- well-behaved driver ----------------------------------------------------------------------------

    def buffer(self, data: bytes | int) -> tuple[int, int]:
        """Address and length of a fresh buffer that holds `data`, or that many zero bytes."""
        content = bytes(data) if isinstance(data, int) else data
        address = self.heap
        self.memory.write(address, content)
        self.heap += len(content)
        return address, len(content)

    def add(
        self, readable: Sequence[bytes] = (), writable: Sequence[int] = (), *, indirect: bool = False
    ) -> int:
        """Make one chain available. Returns its head."""
        parts = [(*self.buffer(data), 0) for data in readable]
        targets = [self.buffer(length) for length in writable]
        parts += [(address, length, WRITE) for address, length in targets]
        if indirect:
            table = b"".join(
                struct.pack("<QIHH", address, length, flags | (NEXT if i + 1 < len(parts) else 0), i + 1)
                for i, (address, length, flags) in enumerate(parts)
            )
            parts = [(*self.buffer(table), INDIRECT)]
        taken = [self.free.pop(0) for _ in parts]
        for i, (address, length, flags) in enumerate(parts):
            last = i + 1 == len(parts)
            self.put_desc(
                taken[i], address, length, flags | (0 if last else NEXT), 0 if last else taken[i + 1]
            )
        self.chains[taken[0]] = (taken, targets)
        self.offer(taken[0])
        return taken[0]

    def must_notify(self) -> bool:
        """Whether the device wants to hear of what was published since the last call."""
        before, self.published = self.published, self.avail_index
        if not self.event_idx:
            return not self.u16(self.used) & 1
        event = self.u16(self.used + 4 + 8 * self.size)
        return (self.avail_index - event - 1) & 0xFFFF < (self.avail_index - before) & 0xFFFF

    def collect(self) -> list[tuple[int, int, bytes]]:
        """(head, bytes written, content of all writable buffers) of each chain that came back since the
        last call.
        """
        done = []
        while self.seen_used != self.u16(self.used + 2):
            slot = self.used + 4 + 8 * (self.seen_used % self.size)
            head, written = struct.unpack("<II", self.memory.read(slot, 8))
            self.seen_used = (self.seen_used + 1) & 0xFFFF
            taken, targets = self.chains.pop(head)
            self.free += taken
            done.append((head, written, b"".join(self.memory.read(a, n) for a, n in targets)))
        if not self.chains:
            self.heap = self.heap_base
        return done

    def ask_interrupt_after(self, used_index: int) -> None:
        """Event idx: interrupt once the used index passes `used_index`."""
        self.put_u16(self.avail + 4 + 2 * self.size, used_index)


def serve_one(queue: VirtQueue) -> None:
    """What a device does with a chain in which it writes nothing."""
    chain = queue.pop()
    assert chain is not None
    queue.push(chain, 0)
