"""`shardio.shard.persistent`: what a successor finds, and that each access counts once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from shardio.errors import DeviceStateError
from shardio.shard.persistent import Persistent, persistent_memory

SIZE = 64


class Killed(BaseException):
    """In the place of SIGKILL."""


class Counter:
    """A device whose reads and writes count; each access changes its state."""

    def __init__(self, store: Persistent) -> None:
        self.store = store
        self.value = int.from_bytes(store.state or b"", "little")

    def mmio_read(self, base: int, offset: int, data: memoryview) -> None:
        self.value += 1
        self.store.save(self.value.to_bytes(8, "little"))
        data[:] = self.value.to_bytes(len(data), "little")

    def mmio_write(self, base: int, offset: int, data: memoryview) -> None:
        self.value += int.from_bytes(data, "little")
        self.store.save(self.value.to_bytes(8, "little"))


class Shards:
    """One owner after another of the same memory."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.journal = 0
        self.stores: list[Persistent] = []

    def successor(self) -> Counter:
        store = Persistent(self.fd, SIZE, lambda: self.journal)
        self.stores.append(store)
        return Counter(store)


@pytest.fixture
def shards() -> Iterator[Shards]:
    fd = persistent_memory(SIZE)
    shards = Shards(fd)
    yield shards
    for store in shards.stores:
        store.close()
    os.close(fd)


def read(device: Counter) -> int:
    data = bytearray(4)
    device.store.guard(device, "mmio").mmio_read(0, 0, memoryview(data))
    return int.from_bytes(data, "little")


def write(device: Counter, value: int) -> None:
    device.store.guard(device, "mmio").mmio_write(0, 0, memoryview(value.to_bytes(4, "little")))


def test_nothing_is_found_at_first(shards: Shards) -> None:
    assert shards.successor().store.state is None


@pytest.mark.parametrize("saves", [1, 2, 3])
def test_what_was_saved_last_is_found(shards: Shards, saves: int) -> None:
    first = shards.successor()
    for n in range(saves):
        first.store.save(bytes([n]) * (n + 1))

    assert shards.successor().store.state == bytes([saves - 1]) * saves


def test_a_state_may_fill_the_memory_and_not_more(shards: Shards) -> None:
    first = shards.successor()
    first.store.save(b"x" * SIZE)
    with pytest.raises(DeviceStateError, match="65 bytes"):
        first.store.save(b"y" * (SIZE + 1))

    assert shards.successor().store.state == b"x" * SIZE


def test_an_access_that_did_not_end_has_changed_nothing(shards: Shards) -> None:
    first = shards.successor()
    shards.journal = 5
    write(first, 10)
    shards.journal = 6
    first.store.begin()
    first.mmio_write(0, 0, memoryview(b"\x07"))  # and is killed before the end

    assert shards.successor().value == 10


def test_a_read_that_is_asked_again_has_the_same_answer_once(shards: Shards) -> None:
    shards.journal = 5
    assert read(shards.successor()) == 1
    successor = shards.successor()

    again = read(successor)
    shards.journal = 6

    assert (again, read(successor)) == (1, 2)


def test_a_write_that_is_asked_again_counts_once(shards: Shards) -> None:
    shards.journal = 5
    write(shards.successor(), 10)
    successor = shards.successor()

    write(successor, 10)
    shards.journal = 6
    write(successor, 10)

    assert successor.value == 20


def test_another_access_is_made(shards: Shards) -> None:
    shards.journal = 5
    write(shards.successor(), 10)
    shards.journal = 6
    successor = shards.successor()
    write(successor, 10)

    assert successor.value == 20


def test_a_save_outside_accesses_forgets_no_answer(shards: Shards) -> None:
    shards.journal = 5
    read(shards.successor())
    second = shards.successor()
    second.store.save((7).to_bytes(8, "little"))
    third = shards.successor()

    assert (third.value, read(third)) == (7, 1)


def test_a_string_is_repeated_from_its_beginning(shards: Shards) -> None:
    shards.journal = 5
    first = shards.successor()
    write(first, 1)
    write(first, 1)
    successor = shards.successor()
    write(successor, 1)

    assert successor.value == 3


def test_a_kill_at_each_store_leaves_one_state_or_the_other(shards: Shards) -> None:
    """Each word of the copy that does not count is a store, and the one that makes it count."""
    found = set()
    for cut in range(6):
        first = shards.successor()
        shards.journal += 1
        before = first.value
        words = _Stores(first.store._words, cut)
        first.store._words = words  # type: ignore[assignment]
        try:
            write(first, 10)
        except Killed:
            words.killed = True
        first.store._words = words.words
        found.add((shards.successor().value - before, words.killed))

    assert found == {(0, True), (10, False)}


class _Stores:
    """Words that only `left` stores reach."""

    def __init__(self, words: memoryview, left: int) -> None:
        self.words, self.left, self.killed = words, left, False

    def __getitem__(self, index: int) -> int:
        return self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        self.words[index] = value


def test_the_memory_cannot_be_resized() -> None:
    fd = persistent_memory(SIZE)
    seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)

    assert seals & fcntl.F_SEAL_SHRINK


def test_a_length_that_cannot_be_is_cut(shards: Shards) -> None:
    first = shards.successor()
    first.store.save(b"abc")
    first.store._words[first.store._place(1) + 3] = 1 << 40

    assert len(shards.successor().store.state or b"") == SIZE
