"""A lying driver, many times: never another exception than the one that stops the device, never outside
guest RAM.

The counts here take about a second; `make soak` runs the million.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from shardio.devices.virtio import VirtioMmioRng, mmio
from shardio.memory import GuestMemory
from tests.devices.virtio.fuzz import Ram, attack, compare
from tests.devices.virtio.guest import NEEDS_RESET, MmioGuest, attached

CASES = 4000
SOAK_CASES = 1_000_000


def test_a_hostile_queue_is_served_or_refused() -> None:
    ram = Ram()
    outcomes = Counter(attack(ram, seed) for seed in range(CASES))

    assert sum(outcomes.values()) == CASES
    assert min(outcomes["served"], outcomes["refused"]) > CASES // 20, outcomes


def test_exactly_what_the_specification_allows_is_taken() -> None:
    ram = Ram()
    outcomes = Counter(compare(ram, seed) for seed in range(CASES))

    assert min(outcomes["served"], outcomes["refused"]) > CASES // 20, outcomes


def test_a_device_survives_any_driver_and_works_after_a_reset(memory: GuestMemory) -> None:
    """Random registers, features, queues and notifications; then a reset and one honest request."""
    with attached(VirtioMmioRng(), memory) as guest:
        broken = sum(torment(guest, random.Random(seed)) for seed in range(400))
        guest.start()
        guest.queues[0].add(writable=[8])
        guest.notify(0)
        served = len(guest.queues[0].collect())

    assert served == 1
    assert broken > 20


def torment(guest: MmioGuest, rng: random.Random) -> bool:
    """One hostile session; whether the device ended up asking for a reset."""
    guest.start()
    guest.queues[0].add(writable=[8])
    for _ in range(20):
        address = rng.randrange(0x1000, 0x1200)
        guest.memory.write(address, rng.randbytes(4))
        guest.device.write(
            rng.choice((0x30, 0x38, 0x44, 0x80, 0x90, 0xA0, 0x20, 0x64)), 4, rng.randrange(2**32)
        )
        guest.notify(0)
    return bool(guest.get(mmio.STATUS) & NEEDS_RESET)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("case", [attack, compare])
def test_a_million_hostile_queues(case: object) -> None:
    ram = Ram()
    outcomes = Counter(case(ram, seed) for seed in range(SOAK_CASES))  # type: ignore[operator]

    assert min(outcomes["served"], outcomes["refused"]) > SOAK_CASES // 20, outcomes
