"""`shardio.devices.virtio.queue` against the model driver: what goes in comes back, and who is told when."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.virtio.queue import VirtQueue
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import NEXT, RAM, ModelDriver, serve_one

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
    assert chain.writable == []


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


def test_without_event_idx_the_flag_suppresses_interrupts(driver: ModelDriver) -> None:
    queue = driver.queue()
    driver.add([b"x"])
    serve_one(queue)
    wanted = queue.needs_interrupt()
    driver.put_u16(driver.avail, 1)
    driver.add([b"x"])
    serve_one(queue)

    assert (wanted, queue.needs_interrupt()) == (True, False)


def test_nothing_pushed_needs_no_interrupt(driver: ModelDriver) -> None:
    assert not driver.queue().needs_interrupt()


def test_event_idx_interrupts_when_the_wished_index_is_passed(memory: GuestMemory) -> None:
    driver = ModelDriver(memory, event_idx=True)
    queue = driver.queue()
    driver.ask_interrupt_after(1)
    seen = []
    for _ in range(3):
        driver.add([b"x"])
        serve_one(queue)
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
                driver.add([b"x"])
                serve_one(queue)
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


def test_a_chain_that_is_served_again_is_seen_when_notifications_are_asked_for(driver: ModelDriver) -> None:
    first = driver.queue()
    driver.add([b"x"])
    first.pop()
    queue = driver.queue()
    queue.resume(first.snapshot())

    assert queue.enable_notifications()


def test_what_a_predecessor_gave_back_needs_no_interrupt_of_its_successor(driver: ModelDriver) -> None:
    first = driver.queue()
    driver.add([b"x"])
    serve_one(first)
    queue = driver.queue()
    queue.resume(first.snapshot())

    assert not queue.needs_interrupt()
