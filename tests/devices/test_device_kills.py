"""Devices under random accesses, killed now and then, some accesses asked for again: each answers as one that
nobody kills.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from shardio import devices
from tests.devices.successors import successors
from tests.devices.support import Ports, RecordingHost

KINDS: dict[str, Callable[..., Any]] = {
    name: getattr(devices, name)
    for name in (
        "AcpiPower", "CmosRtc", "ExitPort", "FwCfg", "I8042", "PciHost", "Port92", "PostPort", "VgaText",
    )
}  # fmt: skip
BASE = 0x1000
WIDTHS = (1, 1, 1, 2, 4)
NOON = 1_700_000_000.0


def still(kind: Callable[..., Any]) -> Any:
    """One of that class, whose clock stands."""
    device = kind()
    device.clock = lambda: NOON
    return device


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("seed", range(3))
def test_a_device_that_is_killed_answers_as_one_that_is_not(name: str, seed: int) -> None:
    kind, chance = KINDS[name], random.Random(seed)
    model = still(kind)
    bare = Ports(model, BASE)
    with successors(lambda: still(kind), lambda store: RecordingHost(persistent=store), of=kind) as line:
        for _ in range(300):
            offset, size = chance.randrange(model.pio_size), chance.choice(WIDTHS)
            size = size if offset + size <= model.pio_size else 1
            if chance.random() < 0.5:
                value = chance.randrange(1 << 8 * size)
                bare.write(offset, value, size)
                line.write(BASE, offset, value, size)
                expected = None
            else:
                expected = bare.read(offset, size)
                assert line.read(BASE, offset, size) == expected
            if chance.random() < 0.2:
                line.start()
                if chance.random() < 0.5:
                    assert line.again() == expected
        assert line.device.snapshot() == model.snapshot() or name == "PostPort"  # whose log is its shard's
