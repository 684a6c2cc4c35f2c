"""AcpiPower: power-off, reset and the timer (ACPI 6.5, section 4.8.3)."""

from __future__ import annotations

import pytest

from shardio.devices.acpi_power import FREQUENCY, AcpiPower
from tests.devices.support import Ports, RecordingHost


class Clock:
    """Seconds that the test sets."""

    now = 7.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def host() -> RecordingHost:
    return RecordingHost()


@pytest.fixture
def power(host: RecordingHost) -> Ports:
    device = AcpiPower()
    device.attach(host)  # type: ignore[arg-type]
    return Ports(device, 0x600)


def timed() -> tuple[AcpiPower, Clock]:
    """A device whose timer began at this moment of the clock."""
    device, clock = AcpiPower(), Clock()
    device.clock = clock
    device.read(4, 4)
    return device, clock


@pytest.mark.parametrize(("value", "exits"), [
    (5 << 2 | 0x20, [0]), (5 << 2, []), (0x20, []), (3 << 2 | 0x20, []),
])  # fmt: skip
def test_the_sleep_control_register_powers_off(
    power: Ports, host: RecordingHost, value: int, exits: list[int]
) -> None:
    power.write(0, value)

    assert (host.exits, host.resets) == (exits, 0)
    assert power.read(0) == value & 0x1C  # SLP_EN reads as 0
    assert power.read(1) == 0


@pytest.mark.parametrize(("value", "resets"), [(1, 1), (0, 0), (2, 0)])
def test_the_reset_register_resets(power: Ports, host: RecordingHost, value: int, resets: int) -> None:
    power.write(2, value)

    assert (host.exits, host.resets) == ([], resets)
    assert power.read(2) == 0


def test_the_timer_counts_at_its_frequency_and_wraps_at_32_bits() -> None:
    device, clock = timed()
    ports = Ports(device, 0x600)
    clock.now += 1.0
    assert ports.read(4, size=4) == FREQUENCY
    assert ports.read(5) == FREQUENCY >> 8 & 0xFF
    ports.write(4, 0, size=4)
    assert ports.read(4, size=4) == FREQUENCY
    clock.now += 1200.0  # 1201 s in all, a little more than the 1199.9 s of a turn
    assert ports.read(4, size=4) == 1201 * FREQUENCY - (1 << 32)


def test_the_timer_goes_on_in_another_owner() -> None:
    (first, clock), (second, later) = timed(), timed()
    clock.now += 1.234567890
    state = first.snapshot()
    later.now += 55.0
    second.restore(state)

    assert second.read(4, 4) == first.read(4, 4)
    later.now += 1.0
    assert second.read(4, 4) - first.read(4, 4) == FREQUENCY
