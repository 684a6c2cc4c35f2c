"""The devices that are measured: each form keeps what it is given."""

from __future__ import annotations

import pytest

from shardio import IoManager, MmioAddress, MmioRange
from shardio.bench.devices import calibrated_steps, make
from shardio.bench.errors import BenchError

BASE = MmioAddress(0xD000_0000)


@pytest.mark.parametrize("name", ["register", "view", "compute:10"])
def test_a_device_reads_what_was_written(name: str) -> None:
    manager, data = IoManager(), bytearray(1)
    manager.register_mmio(MmioRange(BASE, 16), make(name))

    manager.mmio_write(BASE, b"\x5a")
    manager.mmio_read(BASE, memoryview(data))

    assert data == b"\x5a"


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(BenchError, match="turbo"):
        make("turbo")


def test_no_time_is_no_steps() -> None:
    assert calibrated_steps(0) == 0


def test_more_time_is_more_steps() -> None:
    assert calibrated_steps(1_000_000, rounds=3) > calibrated_steps(1000, rounds=3)
