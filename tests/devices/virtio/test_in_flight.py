"""`InFlight`: a successor does again what its predecessor took and did not give back, and nothing else."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator

import pytest

from shardio.devices.virtio.in_flight import KEPT, InFlight, area_bytes
from shardio.devices.virtio.queue import Chain, QueueState, VirtQueue
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import RAM, ModelDriver

SIZE = 8


class Killed(BaseException):
    """In the place of SIGKILL."""


class Words:
    """The area, of which only the next `left` stores arrive."""

    def __init__(self, memory: bytearray, left: int) -> None:
        self._words = memoryview(memory).cast("Q")
        self._left = left

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        if not self._left:
            raise Killed
        self._left -= 1
        self._words[index] = value


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(RAM) as memory:
        yield memory


def queue_of(driver: ModelDriver, area: bytearray) -> tuple[VirtQueue, InFlight]:
    """The device's side, with its words."""
    kept = InFlight(memoryview(area))
    places = driver.desc, driver.avail, driver.used
    return VirtQueue(driver.memory, SIZE, *places, event_idx=False, kept=kept), kept


def successor(driver: ModelDriver, area: bytearray) -> VirtQueue:
    """The queue of the next owner."""
    queue, _ = queue_of(driver, area)
    queue.resume(QueueState(KEPT, 0))
    return queue


def popped(queue: VirtQueue) -> list[int]:
    """The heads of all that there is to do."""
    chains: list[Chain] = []
    while (chain := queue.pop()) is not None:
        chains.append(chain)
    return [chain.head for chain in chains]


def test_chains_come_again_in_the_order_in_which_they_were_taken(memory: GuestMemory) -> None:
    driver, area = ModelDriver(memory, SIZE), bytearray(area_bytes(SIZE))
    first, _ = queue_of(driver, area)
    first.keep()
    heads = [driver.add([b"x"]) for _ in range(4)]
    chains = [first.pop() for _ in range(3)]
    assert chains[1] is not None
    first.push(chains[1], 0)

    assert popped(successor(driver, area)) == [heads[0], heads[2], heads[3]]


@pytest.mark.parametrize("act", ["pop", "push"])
def test_a_kill_at_each_store_forgets_no_chain_and_repeats_none(memory: GuestMemory, act: str) -> None:
    found = set()
    for cut in range(5):
        driver, area = ModelDriver(memory, SIZE), bytearray(area_bytes(SIZE))
        first, kept = queue_of(driver, area)
        first.keep()
        driver.add([b"x"])
        driver.add([b"y"])
        chain = first.pop() if act == "push" else None
        kept._words = Words(area, cut)  # type: ignore[assignment]
        step: Callable[[], object] = first.pop
        if chain is not None:
            step = functools.partial(first.push, chain, 0)
        try:
            step()
        except Killed:
            found.add(cut)
        returned = [head for head, _, _ in driver.collect()]
        again = popped(successor(driver, area))
        assert sorted(returned + again) == [0, 1]
    assert found


def test_many_owners_lose_nothing(memory: GuestMemory) -> None:
    """Chains go round for long, out of order, while owners are killed: each comes back once."""
    chance = random.Random(3)
    driver, area = ModelDriver(memory, SIZE), bytearray(area_bytes(SIZE))
    queue, _ = queue_of(driver, area)
    queue.keep()
    offered = returned = 0
    taken: list[Chain] = []
    for _ in range(3000):
        step = chance.random()
        if step < 0.4 and driver.free:
            driver.add([b"x"])
            offered += 1
        elif step < 0.7 and (chain := queue.pop()) is not None:
            taken.append(chain)
        elif step < 0.95 and taken:
            queue.push(taken.pop(chance.randrange(len(taken))), 0)
        elif step >= 0.95:
            queue, taken = successor(driver, area), []
        returned += len(driver.collect())
    while (last := queue.pop()) is not None:
        taken.append(last)
    for chain in taken:
        queue.push(chain, 0)
    returned += len(driver.collect())

    assert returned == offered > 500


def test_a_state_from_elsewhere_is_noted(memory: GuestMemory) -> None:
    driver, area = ModelDriver(memory, SIZE), bytearray(area_bytes(SIZE))
    plain = driver.queue()
    heads = [driver.add([b"x"]) for _ in range(3)]
    plain.pop()
    moved, _ = queue_of(driver, area)
    moved.resume(plain.snapshot())
    moved.keep()

    assert popped(successor(driver, area)) == heads
