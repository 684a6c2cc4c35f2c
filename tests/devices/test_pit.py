"""Pit: modes, counts in both notations, latches and read-back, gates and port 0x61, and interrupts in time.

Right values are the Intel 8254 data sheet's.
"""

from __future__ import annotations

import pytest

from shardio.devices import Pit
from shardio.devices.pit import FREQUENCY_HZ
from tests.devices.board import Board
from tests.devices.support import RecordingHost

COUNTER0, COUNTER2, CONTROL, PORT_B = 0x40, 0x42, 0x43, 0x61
OUTPUT, NULL = 0x80, 0x40
SQUARE, RATE, TERMINAL, STROBE, ONE_SHOT, HARDWARE_STROBE = 3, 2, 0, 4, 1, 5
TICK_S = 1 / FREQUENCY_HZ


class Timer(Board):
    """A PIT whose time is counted in ticks by the test."""

    def __init__(self, host: RecordingHost | None = None, pit: Pit | None = None) -> None:
        super().__init__(pit or Pit())
        self.host = host or RecordingHost()
        self.device.clock = lambda: round((self.host.loop.time() + TICK_S / 2) * 1e9)

    def advance(self, ticks: int) -> None:
        self.host.loop.advance(ticks * TICK_S)

    def program(self, channel: int, mode: int, count: int, decimal: int = 0) -> None:
        self.outb(CONTROL, channel << 6 | 0x30 | mode << 1 | decimal)
        self.outb(COUNTER0 + channel, count & 0xFF)
        self.outb(COUNTER0 + channel, count >> 8)

    def count(self, channel: int) -> int:
        self.outb(CONTROL, channel << 6)
        return self.inb(COUNTER0 + channel) | self.inb(COUNTER0 + channel) << 8

    def status(self, channel: int) -> int:
        self.outb(CONTROL, 0xE0 | 2 << channel)
        return self.inb(COUNTER0 + channel)

    def output(self, channel: int) -> bool:
        return bool(self.status(channel) & OUTPUT)


@pytest.fixture
def timer():
    timer = Timer()
    timer.device.attach(timer.host)
    return timer


def test_mode_0_rises_at_its_end_and_counts_on(timer):
    timer.program(2, TERMINAL, 1000)
    timer.outb(PORT_B, 1)
    timer.advance(999)
    assert (timer.count(2), timer.output(2)) == (1, False)
    timer.advance(1)
    assert (timer.count(2), timer.output(2)) == (0, True)
    timer.advance(1)
    assert (timer.count(2), timer.output(2)) == (0xFFFF, True)


def test_mode_0_stops_at_the_first_byte_of_a_new_count(timer):
    timer.program(0, TERMINAL, 100)
    timer.advance(200)
    timer.outb(COUNTER0, 50)
    assert not timer.output(0)
    timer.advance(200)
    assert not timer.output(0)
    timer.outb(COUNTER0, 0)
    timer.advance(50)
    assert timer.output(0)


def test_mode_2_is_low_for_the_last_tick(timer):
    timer.program(0, RATE, 10)
    seen = []
    for _ in range(20):
        seen.append((timer.count(0), timer.output(0)))
        timer.advance(1)
    assert seen == [(n, n != 1) for n in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)] * 2


@pytest.mark.parametrize(
    ("count", "values"), [(6, [6, 4, 2, 6, 4, 2]), (5, [4, 2, 0, 4, 2])]
)
def test_mode_3_counts_by_two_through_each_half(timer, count, values):
    timer.program(0, SQUARE, count)
    seen = []
    for _ in range(count):
        seen.append((timer.count(0), timer.output(0)))
        timer.advance(1)
    assert seen == [(value, n < (count + 1) // 2) for n, value in enumerate(values)]


def test_mode_4_strobes_once(timer):
    timer.program(0, STROBE, 5)
    seen = []
    for _ in range(12):
        seen.append(timer.output(0))
        timer.advance(1)
    assert seen == [True] * 5 + [False] + [True] * 6


def test_mode_1_is_low_for_its_count_after_each_trigger(timer):
    timer.program(2, ONE_SHOT, 100)
    timer.advance(500)
    assert timer.output(2)
    timer.outb(PORT_B, 1)
    assert not timer.output(2)
    timer.outb(PORT_B, 0)
    timer.advance(99)
    assert not timer.output(2)
    timer.outb(PORT_B, 1)  # triggered again
    timer.advance(99)
    assert not timer.output(2)
    timer.advance(1)
    assert timer.output(2)


def test_mode_5_strobes_its_count_after_a_trigger(timer):
    timer.program(2, HARDWARE_STROBE, 3)
    timer.outb(PORT_B, 1)
    seen = []
    for _ in range(6):
        seen.append(timer.output(2))
        timer.advance(1)
    assert seen == [True, True, True, False, True, True]


def test_a_one_shots_new_count_is_for_its_next_trigger(timer):
    timer.program(2, ONE_SHOT, 100)
    timer.outb(PORT_B, 1)
    timer.outb(COUNTER2, 10)
    timer.outb(COUNTER2, 0)
    timer.advance(50)
    assert not timer.output(2)
    timer.outb(PORT_B, 0)
    timer.outb(PORT_B, 1)
    timer.advance(10)
    assert timer.output(2)


def test_the_gate_stops_mode_0_and_lets_it_go_on(timer):
    timer.outb(PORT_B, 1)
    timer.program(2, TERMINAL, 100)
    timer.advance(40)
    timer.outb(PORT_B, 0)
    timer.advance(1000)
    assert timer.count(2) == 60
    timer.outb(PORT_B, 1)
    timer.advance(60)
    assert timer.output(2)


def test_the_gate_begins_modes_2_and_3_anew_and_its_fall_makes_them_high(timer):
    timer.outb(PORT_B, 1)
    timer.program(2, SQUARE, 100)
    timer.advance(70)
    assert not timer.output(2)
    timer.outb(PORT_B, 0)
    assert timer.output(2)
    timer.advance(1000)
    timer.outb(PORT_B, 1)
    assert timer.count(2) == 100


def test_a_rates_new_count_is_loaded_at_the_end_of_its_cycle(timer):
    timer.program(0, RATE, 10)
    timer.advance(24)
    timer.outb(COUNTER0, 4)
    timer.outb(COUNTER0, 0)
    assert timer.status(0) & NULL
    timer.advance(5)
    assert timer.count(0) == 1
    timer.advance(1)
    assert (timer.count(0), timer.status(0) & NULL) == (4, 0)


def test_a_square_waves_new_count_is_loaded_at_the_end_of_its_half_cycle(timer):
    timer.program(0, SQUARE, 10)
    timer.advance(1)
    timer.outb(COUNTER0, 4)
    timer.outb(COUNTER0, 0)
    seen = []
    for _ in range(10):
        seen.append(timer.output(0))
        timer.advance(1)
    assert seen == [True] * 4 + [False] * 2 + [True] * 2 + [False] * 2


@pytest.mark.parametrize(("written", "ticks"), [(0x1000, 1000), (0x0000, 10_000), (0x0250, 250)])
def test_counts_in_decimal_notation(timer, written, ticks):
    timer.program(0, TERMINAL, written, decimal=1)
    timer.advance(ticks - 1)
    assert (timer.count(0), timer.output(0)) == (1, False)
    timer.advance(1)
    assert timer.output(0)
    timer.advance(1)
    assert timer.count(0) == 0x9999


def test_a_count_of_0_is_65536(timer):
    timer.program(0, TERMINAL, 0)
    timer.advance(65_535)
    assert not timer.output(0)
    timer.advance(1)
    assert timer.output(0)


@pytest.mark.parametrize(("access", "byte", "ticks"), [(1, 7, 7), (2, 1, 256)])
def test_a_count_of_one_byte(timer, access, byte, ticks):
    timer.outb(CONTROL, access << 4)
    timer.outb(COUNTER0, byte)
    timer.advance(ticks - 1)
    assert not timer.output(0)
    timer.advance(1)
    assert timer.output(0)


@pytest.mark.parametrize(("access", "byte"), [(1, 0x34), (2, 0x12)])
def test_a_read_of_one_byte(timer, access, byte):
    timer.outb(CONTROL, access << 4)
    timer.outb(COUNTER0, byte)
    assert (timer.inb(COUNTER0), timer.inb(COUNTER0)) == (byte, byte)


def test_an_unlatched_read_alternates_between_low_and_high(timer):
    timer.program(0, RATE, 0x1234)
    assert [timer.inb(COUNTER0) for _ in range(3)] == [0x34, 0x12, 0x34]


def test_a_latched_count_stays_until_it_is_read(timer):
    timer.program(0, RATE, 0x1234)
    timer.outb(CONTROL, 0x00)
    timer.advance(0x10)
    timer.outb(CONTROL, 0x00)  # a second latch command changes nothing
    assert (timer.inb(COUNTER0), timer.inb(COUNTER0)) == (0x34, 0x12)
    assert timer.inb(COUNTER0) == 0x24


def test_read_back_latches_status_and_count_of_several(timer):
    timer.program(0, SQUARE, 0x1234)
    timer.program(2, TERMINAL, 0x4321)
    timer.outb(CONTROL, 0xC0 | 0x0A)
    timer.advance(0x10)
    assert [timer.inb(COUNTER0) for _ in range(3)] == [OUTPUT | 0x36, 0x34, 0x12]
    assert [timer.inb(COUNTER2) for _ in range(3)] == [0x30, 0x21, 0x43]


def test_status_tells_that_no_count_is_loaded(timer):
    timer.outb(CONTROL, 0x36)
    assert timer.status(0) == OUTPUT | NULL | 0x36
    timer.outb(COUNTER0, 0x00)
    timer.outb(COUNTER0, 0x10)
    assert timer.status(0) == OUTPUT | 0x36


@pytest.mark.parametrize(("written", "mode"), [(6, 2), (7, 3)])
def test_modes_6_and_7_are_2_and_3(timer, written, mode):
    timer.program(0, written, 100)
    assert timer.status(0) & 0x0E == mode << 1


def test_the_control_port_reads_0(timer):
    assert timer.inb(CONTROL) == 0


def test_a_wide_access_is_one_of_each_port(timer):
    timer.outb(CONTROL, 0x10)
    timer.outb(CONTROL, 0x50)
    timer.outb(COUNTER0, 0x0908, 2)
    assert timer.inb(COUNTER0, 2) == 0x0908


def test_port_61_keeps_its_low_bits_and_shows_channel_2(timer):
    timer.outb(PORT_B, 0xFF)
    assert timer.inb(PORT_B) & 0xCF == 0x0F
    timer.program(2, TERMINAL, 100)
    assert not timer.inb(PORT_B) & 0x20
    timer.advance(100)
    assert timer.inb(PORT_B) & 0x20


def test_port_61s_refresh_toggles_every_15_us(timer):
    first = timer.inb(PORT_B) & 0x10
    timer.host.loop.advance(15.085e-6)
    second = timer.inb(PORT_B) & 0x10
    assert first ^ second == 0x10


@pytest.mark.parametrize("mode", [RATE, SQUARE])
def test_periodic_interrupts_do_not_drift(timer, mode):
    timer.program(0, mode, 11_932)
    timer.advance(11_931)
    assert timer.host.trigger.count == 0
    timer.advance(11_932 * 100)
    assert timer.host.trigger.count == 100


@pytest.mark.parametrize(("mode", "ticks"), [(TERMINAL, 3000), (STROBE, 3001)])
def test_one_interrupt_of_the_modes_that_do_not_repeat(timer, mode, ticks):
    timer.program(0, mode, 3000)
    timer.advance(ticks - 2)
    assert timer.host.trigger.count == 0
    timer.advance(100_000)
    assert timer.host.trigger.count == 1
    assert timer.host.loop.pending == 0


def test_a_late_host_sends_one_interrupt_for_all_that_it_missed(timer):
    timer.program(0, RATE, 1_193)
    timer.host.loop.now += 0.1
    timer.advance(0)
    assert timer.host.trigger.count == 1
    timer.advance(1_193 * 5)
    assert timer.host.trigger.count == 6


def test_a_period_that_is_too_short_does_not_flood(timer):
    timer.program(0, RATE, 2)
    timer.host.loop.advance(0.1)
    assert 0 < timer.host.trigger.count <= 501


def test_no_timer_without_a_count(timer):
    timer.outb(CONTROL, 0x34)
    timer.outb(COUNTER0, 0x10)
    assert timer.host.loop.pending == 0


def test_a_new_control_word_ends_the_interrupts(timer):
    timer.program(0, RATE, 1_193)
    timer.outb(CONTROL, 0x34)
    timer.advance(10_000)
    assert timer.host.trigger.count == 0


def test_other_channels_do_not_interrupt(timer):
    timer.outb(PORT_B, 1)
    timer.program(1, RATE, 100)
    timer.program(2, RATE, 100)
    timer.advance(10_000)
    assert timer.host.trigger.count == 0


def test_detach_cancels_the_timer(timer):
    timer.program(0, RATE, 1_193)
    timer.device.detach()
    assert timer.host.loop.pending == 0


def test_a_successor_goes_on_in_time(timer):
    timer.program(0, RATE, 1_193)
    timer.advance(1_193 * 3 + 500)
    state = timer.device.snapshot()
    timer.device.detach()
    successor = Timer(timer.host)
    successor.device.restore(state)
    successor.device.attach(timer.host)
    assert timer.host.trigger.count == 3
    successor.advance(693)
    assert timer.host.trigger.count == 4
    assert timer.device.snapshot() == state
