"""A hostile driver made of dice, and an independent reading of the specification that says what must come
of it.

Each case is one seed: it fills descriptors, indirect tables and the available ring with values near every
limit, and optionally rewrites them each time the device looks an address up, which is the moment between
check and use.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from shardio.devices.virtio.errors import QueueError
from shardio.devices.virtio.queue import Chain, VirtQueue
from shardio.errors import MemoryAccessError

RAM = 0x4000
SIZES = (1, 2, 4, 16)
DESC, AVAIL, USED, TABLE = 0x0, 0x400, 0x600, 0x1000
NEXT, WRITE, INDIRECT = 1, 2, 4
INTERESTING = (0, 1, 15, 16, 17, 255, 4096, RAM - 1, RAM, RAM + 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1)


class Ram:
    """Guest RAM whose every lookup is checked here, independently, and during which the driver may strike."""

    def __init__(self) -> None:
        self.bytes = bytearray(RAM)
        self._view = memoryview(self.bytes)
        self.strike: random.Random | None = None

    def read(self, addr: int, length: int) -> bytes:
        return bytes(self.view(addr, length))

    def write(self, addr: int, data: bytes) -> None:
        self.view(addr, len(data))[:] = data

    def view(self, addr: int, length: int) -> memoryview:
        if self.strike is not None:
            at = self.strike.randrange(0, RAM - 16)
            self._view[at : at + 16] = self.strike.randbytes(16)
        if addr < 0 or length < 0 or addr + length > RAM:
            raise MemoryAccessError(addr, length)
        return self._view[addr : addr + length]


@dataclass(frozen=True)
class Case:
    """What one seed chose."""

    size: int
    indirect: bool
    event_idx: bool
    offered: int


def descriptor(rng: random.Random, entries: int) -> bytes:
    """One descriptor: mostly plausible, so that walks get far, sometimes anything."""
    address = rng.randrange(RAM) if rng.random() < 0.8 else rng.choice(INTERESTING)
    length = rng.randrange(64) if rng.random() < 0.8 else rng.choice(INTERESTING) & 0xFFFFFFFF
    flags = rng.choice(
        (0, NEXT, NEXT, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, rng.randrange(0x10000))
    )
    if flags & INDIRECT and rng.random() < 0.9:
        address, length = TABLE, 16 * rng.randrange(1, 9)
    following = rng.randrange(entries + 1) if rng.random() < 0.9 else rng.randrange(0x10000)
    return struct.pack("<QIHH", address & 2**64 - 1, length, flags, following)


def lay_out(ram: Ram, seed: int) -> Case:
    """Fill RAM for one case."""
    rng = random.Random(seed)
    size = rng.choice(SIZES)
    ram.bytes[DESC : DESC + 16 * size] = b"".join(descriptor(rng, size) for _ in range(size))
    ram.bytes[TABLE : TABLE + 128] = b"".join(descriptor(rng, 8) for _ in range(8))
    offered = rng.randrange(size + 1) if rng.random() < 0.9 else rng.randrange(0x10000)
    heads = [rng.randrange(size + 1) if rng.random() < 0.2 else rng.randrange(size) for _ in range(size)]
    struct.pack_into(
        f"<HH{size}HH", ram.bytes, AVAIL, rng.randrange(4), offered, *heads, rng.randrange(0x10000)
    )
    ram.bytes[USED : USED + 6 + 8 * size] = bytes(6 + 8 * size)
    return Case(size, rng.random() < 0.8, rng.random() < 0.5, offered)


def attack(ram: Ram, seed: int) -> str:
    """One case with a driver that strikes between the device's loads. Returns how it ended.

    Whatever the driver does: chains lie in RAM (checked by `Ram.view`), at most `size` are outstanding, the
    only exception is QueueError, and the walk ends.
    """
    ram.strike = None
    case = lay_out(ram, seed)
    queue = VirtQueue(ram, case.size, DESC, AVAIL, USED, indirect=case.indirect, event_idx=case.event_idx)
    ram.strike = random.Random(seed ^ 0x5EED) if seed % 2 else None
    try:
        return drain(queue, case)
    except QueueError:
        return "refused"


def drain(queue: VirtQueue, case: Case) -> str:
    """Pop, fill and push as a device does; a queue's worth at most."""
    queue.disable_notifications()
    taken: list[Chain] = []
    for _ in range(case.size):
        chain = queue.pop()
        if chain is None:
            break
        taken.append(chain)
        assert queue.in_flight == len(taken) <= case.size
    for chain in taken:
        for part in chain.writable:
            part[:8] = b"\xee" * len(part[:8])
        queue.push(chain, chain.writable_bytes & 0xFFFFFFFF)
        queue.needs_interrupt()
    queue.enable_notifications()
    assert queue.in_flight == 0
    return "served" if taken else "idle"


# -- the specification, read a second time --------------------------------------------------------------


def expected(ram: Ram, case: Case, head: int) -> list[tuple[int, int, bool]] | None:
    """The chain at `head` as (address, length, writable) without empty buffers; None where it must be
    refused.
    """
    parts: list[tuple[int, int, bool]] = []
    table, entries, nested = DESC, case.size, False
    seen: set[tuple[int, int]] = set()
    index, total = head, 0
    while True:
        if index >= entries or (table, index) in seen:
            return None
        seen.add((table, index))
        at = table + 16 * index
        address, length, flags, following = struct.unpack("<QIHH", ram.bytes[at : at + 16])
        if flags & INDIRECT:
            if nested or not case.indirect or flags & NEXT or length % 16 or not 0 < length <= 16 * 1024:
                return None
            if address + length > RAM:
                return None
            table, entries, nested, index = address, length // 16, True, 0
            continue
        total += length
        if total >= 2**32 or (length and address + length > RAM):
            return None
        if length:
            writable = bool(flags & WRITE)
            if parts and parts[-1][2] and not writable:
                return None
            parts.append((address, length, writable))
        if not flags & NEXT:
            return parts
        index = following


def compare(ram: Ram, seed: int) -> str:
    """One case without strikes: the device takes exactly the chains that the second reading takes."""
    ram.strike = None
    case = lay_out(ram, seed)
    queue = VirtQueue(ram, case.size, DESC, AVAIL, USED, indirect=case.indirect, event_idx=case.event_idx)
    heads = struct.unpack_from(f"<{case.size}H", ram.bytes, AVAIL + 4)
    taken: set[int] = set()
    for number in range(case.offered):
        head = heads[number % case.size]
        allowed = case.offered - number <= case.size and head < case.size and head not in taken
        parts = expected(ram, case, head) if allowed else None
        try:
            chain = queue.pop()
        except QueueError:
            assert parts is None, f"seed {seed}: refused what the specification allows"
            return "refused"
        assert chain is not None
        assert parts is not None, f"seed {seed}: took what the specification refuses"
        taken.add(head)
        found = [bytes(part) for part in (*chain.readable, *chain.writable)]
        assert found == [bytes(ram.bytes[a : a + n]) for a, n, _ in parts], f"seed {seed}: other buffers"
        assert len(chain.readable) == sum(not writable for _, _, writable in parts)
    return "served"
