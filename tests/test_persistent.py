"""`shardio.persistent`: what a successor finds, and that each access counts once."""

from __future__ import annotations

import array
import fcntl
import itertools
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from shardio.device import MutDevicePio
from shardio.errors import DeviceStateError
from shardio.mark import Mark
from shardio.persistent import Journal, Persistent, persistent_memory

SIZE = 64


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


class LatchState(msgspec.Struct):
    held: int


class Shards:
    """One owner after another of the same memory."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.names = Journal()
        self.journal = self.element = 0
        self.stores: list[Persistent] = []

    def __setattr__(self, name: str, value: Any) -> None:
        """The access in hand is another one."""
        super().__setattr__(name, value)
        if name in ("journal", "element"):
            self.names.name(getattr(self, "journal", 0), getattr(self, "element", 0))

    def successor(self) -> Counter:
        store = Persistent(self.fd, SIZE, self.names.control_at)
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


def test_the_element_of_a_string_that_is_asked_again_counts_once(shards: Shards) -> None:
    shards.journal = 5
    first = shards.successor()
    write(first, 1)
    shards.element = 1
    write(first, 1)
    successor = shards.successor()
    write(successor, 1)
    shards.element = 2
    write(successor, 1)

    assert successor.value == 3


def test_another_access_of_its_vcpu_says_that_none_will_be_repeated(shards: Shards) -> None:
    shards.journal = 5
    write(shards.successor(), 10)
    successor = shards.successor()
    for shards.journal in (6, 5):
        write(successor, 10)

    assert successor.value == 30


def test_an_access_of_another_vcpu_says_nothing_of_it(shards: Shards) -> None:
    shards.journal = 5
    write(shards.successor(), 10)
    successor = shards.successor()
    for shards.journal in (1 << 48 | 5, 5):
        write(successor, 10)

    assert successor.value == 20


class Latch(MutDevicePio):
    """A device in register form whose state is a Struct, and which saves nothing by itself."""

    state_type = LatchState

    def __init__(self) -> None:
        self.held = 0

    def read(self, offset: int, size: int) -> int:
        self.held += 1
        return self.held

    def write(self, offset: int, size: int, value: int) -> None:
        self.held = value

    def snapshot(self) -> LatchState:
        return LatchState(self.held)

    def restore(self, state: LatchState) -> None:
        self.held = state.held


def latch(shards: Shards) -> Any:
    """It, guarded, in the next shard."""
    store = shards.successor().store
    device = Latch()
    return store.guard(device, "pio", store.keeper(device))


def test_a_state_that_is_a_snapshot_is_kept_for_the_device(shards: Shards) -> None:
    shards.journal = 5
    latch(shards).write(0, 1, 40)
    shards.journal = 6
    read = latch(shards).read(0, 1)
    repeated = latch(shards).read(0, 1)
    shards.journal = 7

    assert (read, repeated, latch(shards).read(0, 1)) == (41, 41, 42)


class Registers(MutDevicePio):
    """A device whose state is a buffer."""

    state_type = LatchState

    def __init__(self) -> None:
        self.state_bytes = bytearray(8)

    def read(self, offset: int, size: int) -> int:
        return self.state_bytes[offset]

    def write(self, offset: int, size: int, value: int) -> None:
        self.state_bytes[offset] = value

    def snapshot(self) -> LatchState:
        raise NotImplementedError


def test_a_state_that_is_a_buffer_is_kept_as_it_is(shards: Shards) -> None:
    for shards.journal, register in enumerate((3, 5), 1):
        store = shards.successor().store
        device = Registers()
        guarded = store.guard(device, "pio", store.keeper(device))
        guarded.write(register, 1, 10 + register)
        before = words_of(shards.fd)
        read = guarded.read(register, 1)

        assert read == 10 + register
        assert words_of(shards.fd) == before  # it has changed nothing

    assert shards.successor().store.state == bytes((0, 0, 0, 13, 0, 15, 0, 0))


class Polled(Latch):
    """Whose status at 1 is read without a change."""

    unguarded_reads = frozenset((1,))

    def read(self, offset: int, size: int) -> int:
        return super().read(offset, size) if (offset, size) != (1, 1) else 0x80


def test_a_read_that_changes_nothing_is_the_devices_alone(shards: Shards) -> None:
    store = shards.successor().store
    device = Polled()
    guarded = store.guard(device, "pio", store.keeper(device))
    before = words_of(shards.fd)
    assert guarded.read(1, 1) == 0x80
    assert words_of(shards.fd) == before

    guarded.read(1, 2)  # another register is in it
    wide = words_of(shards.fd)
    guarded.write(1, 1, 7)

    assert before != wide != words_of(shards.fd)
    assert device.held == 7


def test_a_handler_that_raises_ends_its_access(shards: Shards) -> None:
    """What it has saved counts, with 0 as the answer; the next access is another one."""

    class Raising(Latch):
        def read(self, offset: int, size: int) -> int:
            raise ArithmeticError

        def write(self, offset: int, size: int, value: int) -> None:
            store.save(b"\x81\xa4held\x09")
            raise ArithmeticError

    store = shards.successor().store
    guarded = store.guard(Raising(), "pio")
    shards.journal = 5
    with pytest.raises(ArithmeticError):
        guarded.write(0, 1, 7)
    shards.journal = 6
    with pytest.raises(ArithmeticError):
        guarded.read(0, 1)
    store.save(b"outside of accesses, and so at once")

    assert shards.successor().store.state == b"outside of accesses, and so at once"


def test_a_closed_memory_is_told(shards: Shards) -> None:
    store = shards.successor().store
    guarded = store.guard(Latch(), "pio")
    store.close()

    for use in (lambda: guarded.read(0, 1), lambda: guarded.write(0, 1, 7), store.begin, store.journal):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_an_area_is_what_it_was_and_a_mark_goes_with_its_access() -> None:
    fd = persistent_memory(SIZE, 64)
    journal = Journal()
    journal.name(5, 1)
    stores = [Persistent(fd, SIZE, journal.control_at, area=64) for _ in range(2)]
    stores[0].area[56:60] = b"here"
    mark = Mark(stores[0].area[: Mark.BYTES])
    for value in (7, 8):
        mark.set(stores[0].journal(), value)
    found = Mark(stores[1].area[: Mark.BYTES]).get(), bytes(stores[1].area[56:60])
    for store in stores:
        store.close()
    os.close(fd)

    assert found == (((5, 1), 8), b"here")


@pytest.mark.parametrize("saves", [1, 2])
def test_a_kill_at_each_store_leaves_one_state_or_the_other(shards: Shards, saves: int) -> None:
    """The word that counts is stored last (a release in native/persistent.c): as long as it is not, whatever
    else of an access has reached the memory changes nothing.
    """
    for shards.journal in range(1, saves + 1):
        write(shards.successor(), 100)
    before = words_of(shards.fd)
    shards.journal += 1
    write(shards.successor(), 10)
    after = words_of(shards.fd)
    changed = [at for at, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1] and at]
    found = []
    for reached in itertools.product((False, True), repeat=len(changed)):
        cut = list(before)
        for at, here in zip(changed, reached, strict=True):
            cut[at] = after[at] if here else before[at]
        set_words(shards.fd, cut)
        found.append(shards.successor().value)
    set_words(shards.fd, after)

    assert len(changed) >= 2  # the name of the access, and the state
    assert set(found) == {100 * saves}
    assert shards.successor().value == 100 * saves + 10


def words_of(fd: int) -> list[int]:
    """The memory, of which the first word is the one that counts."""
    return array.array("Q", os.pread(fd, os.fstat(fd).st_size, 0)).tolist()


def set_words(fd: int, words: list[int]) -> None:
    os.pwrite(fd, array.array("Q", words).tobytes(), 0)


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
    words = words_of(shards.fd)
    words[words.index(3)] = 1 << 40
    set_words(shards.fd, words)

    assert len(shards.successor().store.state or b"") == SIZE
