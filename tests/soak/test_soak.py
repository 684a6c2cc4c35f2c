"""The soak, ten minutes of it for `make soak` and two seconds for every test run."""

from __future__ import annotations

import os
import time

import pytest

from tests.soak.soak import VCPUS, Report, soak

SOAK_S = float(os.environ.get("SHARDIO_SOAK_S", "600"))
MEMORY_KIB = 512
"""What any process may grow by: counters become larger numbers, the interpreter's free lists fill up."""

pytestmark = pytest.mark.kvm


def assert_sound(report: Report) -> None:
    """No difference, no lost wake-up, nothing that made no sense, and flat memory and descriptors."""
    assert report.status == 0
    assert report.differences == []
    assert report.lost_wakeups == 0
    assert report.malformed == 0
    assert report.fd_growth == {}
    assert report.memory_growth < MEMORY_KIB


def test_a_short_soak_finds_no_difference() -> None:
    report = soak(2.0, every=0.5)

    assert_sound(report)
    assert report.checkpoints >= 1
    assert min(report.accesses) > 1000
    assert report.statistics is not None
    devices = [device for device in report.statistics.devices if device.name.startswith("Echo")]
    assert all(device.reads and device.writes for device in devices)
    assert sum(device.strings for device in devices) > 0
    assert [bool(device.posted) for device in devices] == [False] * 4 + [True] * 4


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 300)
def test_ten_minutes_of_random_accesses(capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    report = soak(SOAK_S, seed=time.time_ns() & 0xFFFF_FFFF, tell=tell)

    tell(str(report))
    assert_sound(report)
    assert len(report.accesses) == VCPUS
