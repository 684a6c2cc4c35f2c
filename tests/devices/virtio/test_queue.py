"""`shardio.devices.virtio.queue` against the model driver: what goes in comes back, what lies is refused."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.virtio.errors import QueueError
from shardio.devices.virtio.queue import INDIRECT_LIMIT, VirtQueue
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import INDIRECT, NEXT, WRITE, ModelDriver

RAM = 0x100000


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(RAM) as memory:
        yield memory


@pytest.fixture
def driver(memory: GuestMemory) -> ModelDriver:
    return ModelDriver(memory)


# -- a driver that keeps the rules ----------------------------------------------------------------------


def test_an_empty_queue_has_no_chain(driver: ModelDriver) -> None:
    assert driver.queue().pop() is None


def test_a_chain_arrives_with_its_buffers_in_order(driver: ModelDriver) -> None:
    queue = driver.queue()
    head = driver.add([b"first", b"second"], [3, 4])

    chain = queue.pop()

    assert chain is not None
    assert chain.head == head
    assert [bytes(part) for part in chain.readable] == [b"first", b"second"]
    assert [len(part) for part in chain.writable] == [3, 4]
    assert (chain.readable_bytes, chain.writable_bytes) == (11, 7)


def test_what_the_device_writes_the_driver_finds(driver: ModelDriver) -> None:
    queue = driver.queue()
    head = driver.add([], [3, 4])
    chain = queue.pop()
    assert chain is not None

    chain.writable[0][:] = b"abc"
    chain.writable[1][:] = b"defg"
    queue.push(chain, 7)

    assert driver.collect() == [(head, 7, b"abcdefg")]


def test_an_indirect_chain_is_the_same_as_a_direct_one(driver: ModelDriver) -> None:
    queue = driver.queue()
    driver.add([b"header", b"data"], [1], indirect=True)

    chain = queue.pop()

    assert chain is not None
    assert [bytes(part) for part in chain.readable] == [b"header", b"data"]
    assert chain.writable_bytes == 1


def test_direct_descriptors_may_end_in_an_indirect_one(driver: ModelDriver) -> None:
    queue = driver.queue()
    head = driver.add([b"inside"], indirect=True)
    first = driver.free.pop()
    address, length = driver.buffer(b"direct")
    driver.put_desc(first, address, length, NEXT, head)
    driver.put_u16(driver.avail + 4, first)

    chain = queue.pop()

    assert chain is not None
    assert [bytes(part) for part in chain.readable] == [b"direct", b"inside"]


def test_an_empty_buffer_is_left_out(driver: ModelDriver) -> None:
    queue = driver.queue()
    driver.add([b"", b"x"], [0])

    chain = queue.pop()

    assert chain is not None
    assert [bytes(part) for part in chain.readable] == [b"x"]
    assert chain.writable == ()


def test_chains_may_complete_out_of_order(driver: ModelDriver) -> None:
    queue = driver.queue()
    first, second = driver.add([b"1"]), driver.add([b"2"])
    chains = [queue.pop(), queue.pop()]

    for chain in reversed(chains):
        assert chain is not None
        queue.push(chain, 0)

    assert [head for head, _, _ in driver.collect()] == [second, first]


def test_a_chain_can_be_pushed_once_only(driver: ModelDriver) -> None:
    queue = driver.queue()
    driver.add([b"1"])
    chain = queue.pop()
    assert chain is not None
    queue.push(chain, 0)

    with pytest.raises(ValueError, match="not in flight"):
        queue.push(chain, 0)


operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.lists(st.binary(max_size=9), max_size=3),
            st.lists(st.integers(0, 9), max_size=3),
            st.booleans(),
        ),
        st.tuples(st.just("take")),
        st.tuples(st.just("give"), st.integers(0, 7)),
        st.tuples(st.just("collect")),
    ),
    max_size=60,
)


@given(operations=operations, size=st.sampled_from([1, 2, 8]), start=st.sampled_from([0, 0xFFFC]))
def test_any_history_matches_a_model(operations: list[tuple[object, ...]], size: int, start: int) -> None:
    """Chains come out as they went in, in order; used elements come back exact, cursors near their wrap
    included.
    """
    with GuestMemory(RAM) as memory:
        driver = ModelDriver(memory, size)
        queue = driver.queue()
        wind(driver, queue, start)
        offered: deque[tuple[int, bytes, int]] = deque()
        taken = []
        given_back: deque[tuple[int, int, bytes]] = deque()
        for operation in operations:
            match operation:
                case ("add", list() as readable, list() as writable, bool() as indirect):
                    parts = len(readable) + len(writable)
                    if parts and (1 if indirect else parts) <= len(driver.free):
                        head = driver.add(readable, writable, indirect=indirect)
                        offered.append((head, b"".join(readable), sum(writable)))
                case ("take",):
                    chain = queue.pop()
                    expected = offered.popleft() if offered else None
                    found = chain and (chain.head, b"".join(chain.readable), chain.writable_bytes)
                    assert found == expected
                    if chain:
                        taken.append(chain)
                case ("give", int() as which) if taken:
                    chain = taken.pop(which % len(taken))
                    content = b"".join(bytes([chain.head + 1]) * len(part) for part in chain.writable)
                    for part in chain.writable:
                        part[:] = bytes([chain.head + 1]) * len(part)
                    queue.push(chain, chain.writable_bytes)
                    given_back.append((chain.head, chain.writable_bytes, content))
                case ("collect",):
                    assert driver.collect() == list(given_back)
                    given_back.clear()
        assert queue.in_flight == len(taken)


def wind(driver: ModelDriver, queue: VirtQueue, index: int) -> None:
    """Set all four indices to `index`, as if so many chains had gone round."""
    driver.avail_index = driver.seen_used = driver.published = index
    driver.put_u16(driver.avail + 2, index)
    driver.put_u16(driver.used + 2, index)
    queue._next_avail = queue._next_used = queue._signalled = index


# -- who is told when -----------------------------------------------------------------------------------


def serve_one(driver: ModelDriver, queue: VirtQueue) -> None:
    driver.add([b"x"])
    chain = queue.pop()
    assert chain is not None
    queue.push(chain, 0)


def test_without_event_idx_the_flag_suppresses_interrupts(driver: ModelDriver) -> None:
    queue = driver.queue()
    serve_one(driver, queue)
    wanted = queue.needs_interrupt()
    driver.put_u16(driver.avail, 1)
    serve_one(driver, queue)

    assert (wanted, queue.needs_interrupt()) == (True, False)


def test_nothing_pushed_needs_no_interrupt(driver: ModelDriver) -> None:
    assert not driver.queue().needs_interrupt()


def test_event_idx_interrupts_when_the_wished_index_is_passed(memory: GuestMemory) -> None:
    driver = ModelDriver(memory, event_idx=True)
    queue = driver.queue()
    driver.ask_interrupt_after(1)
    seen = []
    for _ in range(3):
        serve_one(driver, queue)
        seen.append(queue.needs_interrupt())

    assert seen == [False, True, False]


@given(st.lists(st.integers(1, 4), max_size=30), st.sampled_from([0, 0xFFFA]))
def test_event_idx_never_loses_the_interrupt_a_driver_waits_for(rounds: list[int], start: int) -> None:
    """A driver that asks for the next chain, after having collected all, is interrupted by the next one."""
    with GuestMemory(RAM) as memory:
        driver = ModelDriver(memory, event_idx=True)
        queue = driver.queue()
        wind(driver, queue, start)
        driver.ask_interrupt_after(driver.seen_used)
        for chains in rounds:
            for _ in range(chains):
                serve_one(driver, queue)
            assert queue.needs_interrupt()
            driver.collect()
            driver.ask_interrupt_after(driver.seen_used)


@pytest.mark.parametrize("event_idx", [False, True])
def test_notifications_can_be_asked_for_and_a_late_chain_is_seen(
    memory: GuestMemory, event_idx: bool
) -> None:
    driver = ModelDriver(memory, event_idx=event_idx)
    queue = driver.queue()
    queue.disable_notifications()
    nothing = queue.enable_notifications()
    driver.add([b"x"])
    wanted = driver.must_notify()

    assert (nothing, wanted, queue.enable_notifications()) == (False, True, True)


def test_disabled_notifications_keep_the_driver_quiet(driver: ModelDriver) -> None:
    queue = driver.queue()
    queue.disable_notifications()
    driver.add([b"x"])

    assert not driver.must_notify()


def test_event_idx_keeps_the_driver_quiet_until_asked(memory: GuestMemory) -> None:
    driver = ModelDriver(memory, event_idx=True)
    queue = driver.queue()
    driver.add([b"1"])
    first = driver.must_notify()
    driver.add([b"2"])

    assert (first, driver.must_notify()) == (True, False)
    assert queue.pop() is not None


# -- a driver that lies ---------------------------------------------------------------------------------


def refused(driver: ModelDriver, rule: str, *, indirect: bool = True) -> None:
    with pytest.raises(QueueError, match=rule):
        driver.queue(indirect=indirect).pop()


def test_more_chains_than_entries(driver: ModelDriver) -> None:
    driver.put_u16(driver.avail + 2, 9)
    refused(driver, "more chains are available")


def test_a_head_outside_the_table(driver: ModelDriver) -> None:
    driver.offer(8)
    refused(driver, "head is outside")


def test_a_head_offered_twice_while_in_flight(driver: ModelDriver) -> None:
    queue = driver.queue()
    driver.offer(driver.add([b"x"]))
    queue.pop()

    with pytest.raises(QueueError, match="in flight already"):
        queue.pop()


@pytest.mark.parametrize("length", [0, 1])
def test_a_loop(driver: ModelDriver, length: int) -> None:
    driver.put_desc(0, 0x20000, length, NEXT, 1)
    driver.put_desc(1, 0x20000, length, NEXT, 0)
    driver.offer(0)
    refused(driver, "loops")


def test_a_chain_of_the_whole_table_is_no_loop(driver: ModelDriver) -> None:
    driver.add([b"x"] * 8)
    assert driver.queue().pop() is not None


def test_next_outside_the_table(driver: ModelDriver) -> None:
    driver.put_desc(0, 0x20000, 1, NEXT, 8)
    driver.offer(0)
    refused(driver, "next is outside")


@pytest.mark.parametrize("address", [RAM, RAM - 1, 2**64 - 1, 0xD000_0000])
@pytest.mark.parametrize("flags", [0, WRITE, INDIRECT])
def test_an_address_outside_ram(driver: ModelDriver, address: int, flags: int) -> None:
    driver.put_desc(0, address, 16, flags)
    driver.offer(0)
    refused(driver, "outside guest RAM")


def test_a_length_that_wraps_the_address_space(driver: ModelDriver) -> None:
    driver.put_desc(0, 2**64 - 8, 0x20, WRITE)
    driver.offer(0)
    refused(driver, "outside guest RAM")


def test_a_chain_of_four_gigabytes(driver: ModelDriver) -> None:
    driver.put_desc(0, 0, RAM, NEXT, 1)
    driver.put_desc(1, 0, 2**32 - 1, 0)
    driver.offer(0)
    refused(driver, "4 GiB")


def test_a_readable_buffer_after_a_writable_one(driver: ModelDriver) -> None:
    driver.put_desc(0, 0x20000, 1, NEXT | WRITE, 1)
    driver.put_desc(1, 0x20000, 1, 0)
    driver.offer(0)
    refused(driver, "after a device-writable")


def test_an_indirect_descriptor_that_was_not_negotiated(driver: ModelDriver) -> None:
    driver.add([b"x"], indirect=True)
    refused(driver, "not negotiated", indirect=False)


def test_an_indirect_descriptor_with_a_next_one(driver: ModelDriver) -> None:
    driver.put_desc(0, 0x20000, 16, INDIRECT | NEXT, 1)
    driver.offer(0)
    refused(driver, "with a next one")


@pytest.mark.parametrize("length", [0, 8, 17, 16 * (INDIRECT_LIMIT + 1)])
def test_an_indirect_table_of_no_whole_size(driver: ModelDriver, length: int) -> None:
    driver.put_desc(0, 0x20000, length, INDIRECT)
    driver.offer(0)
    refused(driver, "whole descriptors")


def test_an_indirect_table_inside_another(driver: ModelDriver) -> None:
    driver.memory.write(0x20000, bytes(12) + b"\x04\x00\x00\x00")
    driver.put_desc(0, 0x20000, 16, INDIRECT)
    driver.offer(0)
    refused(driver, "inside an indirect table")


def test_a_loop_inside_an_indirect_table(driver: ModelDriver) -> None:
    driver.memory.write(0x20000, bytes(12) + b"\x01\x00\x00\x00")
    driver.put_desc(0, 0x20000, 16, INDIRECT)
    driver.offer(0)
    refused(driver, "loops")


def test_every_descriptor_is_read_once(memory: GuestMemory) -> None:
    """A driver that rewrites a descriptor after the device looked at it changes nothing: no second load."""
    driver = ModelDriver(memory)
    queue = driver.queue()
    driver.add([b"good"])
    chain = queue.pop()
    driver.put_desc(0, 2**63, 0xFFFFFFFF, WRITE)

    assert chain is not None
    assert b"".join(chain.readable) == b"good"


@pytest.mark.parametrize("size", [0, 3, 65536, -4])
def test_a_size_that_is_no_power_of_two(memory: GuestMemory, size: int) -> None:
    with pytest.raises(QueueError, match="power of two"):
        VirtQueue(memory, size, 0x1000, 0x2000, 0x3000)


@pytest.mark.parametrize(
    "tables", [(0x1008, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002)]
)
def test_a_misaligned_table(memory: GuestMemory, tables: tuple[int, int, int]) -> None:
    with pytest.raises(QueueError, match="aligned"):
        VirtQueue(memory, 8, *tables)


@pytest.mark.parametrize("tables", [(RAM - 16, 0, 0), (0, RAM - 16, 0), (0, 0, RAM - 16)])
def test_a_table_outside_ram(memory: GuestMemory, tables: tuple[int, int, int]) -> None:
    with pytest.raises(QueueError, match="outside guest RAM"):
        VirtQueue(memory, 8, *tables)


def test_the_error_survives_pickling() -> None:
    error = QueueError("head is outside the descriptor table", head=9)

    copy = pickle.loads(pickle.dumps(error))

    assert (str(copy), copy.rule, copy.values) == (str(error), error.rule, {"head": 9})
