"""Hpet: the main counter, one-shot and periodic comparators of 32 and 64 bits, levels, legacy replacement.

Right values are those of the IA-PC HPET specification 1.0a; its sections are named where they decide.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from shardio.devices import Hpet
from shardio.devices.hpet import COUNT, LEGACY_LINES, SHORTEST_NS, TICK_NS, HpetState
from shardio.errors import DeviceOptionError
from tests.devices.board import Board, InterruptHost
from tests.devices.support import RecordingHost

BASE = 0xFED0_0000
CAPABILITIES, CONFIG, STATUS, COUNTER = 0x000, 0x010, 0x020, 0x0F0
LEVEL, ENABLE, PERIODIC, SET, MODE_32 = 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 8
LINE = 21
TICK_S = TICK_NS / 1e9
MS = 100_000
"""Ticks of a millisecond."""


def at(number: int) -> int:
    """The offset of a timer's configuration."""
    return 0x100 + 0x20 * number


class Clock(Board):
    """An HPET whose time the test counts in ticks."""

    def __init__(self, host: InterruptHost, device: Hpet | None = None) -> None:
        super().__init__(device or Hpet())
        self.host = host
        self.device.clock = lambda: round((self.host.loop.time() + TICK_S / 2) * 1e9)

    def get(self, offset: int, size: int = 8) -> int:
        return self.load(BASE + offset, size)

    def set(self, offset: int, value: int, size: int = 8) -> None:
        self.store(BASE + offset, value, size)

    def advance(self, ticks: int) -> None:
        self.host.loop.advance(ticks * TICK_S)

    def program(self, number: int, bits: int, *values: int, line: int = LINE) -> None:
        self.set(at(number), bits | ENABLE | line << 9)
        for value in values:
            self.set(at(number) + 8, value)

    def interrupts(self, line: int = LINE) -> int:
        return self.host.backend.delivered(line)


@pytest.fixture
def host() -> Iterator[InterruptHost]:
    host = InterruptHost()
    yield host
    host.interrupts.close()
    host.backend.close()


@pytest.fixture
def hpet(host: InterruptHost) -> Clock:
    """Attached, its counter halted at 0."""
    clock = Clock(host)
    clock.device.attach(host)
    return clock


@pytest.fixture
def running(hpet: Clock) -> Clock:
    """The same, and it counts."""
    hpet.set(CONFIG, 1)
    return hpet


# ---- what it is ----


def test_it_says_what_it_is(hpet: Clock) -> None:
    """Section 2.3.4: three timers of 64 bits, legacy replacement, and a period of at most 100 ns."""
    value = hpet.get(CAPABILITIES)

    assert value >> 32 == 10_000_000 <= 0x05F5E100
    assert (value >> 8 & 0x1F, value >> 13 & 1, value >> 15 & 1, value & 0xFF) == (COUNT - 1, 1, 1, 1)
    assert [hpet.get(at(number), 4) for number in range(COUNT)] == [1 << 5 | 1 << 4] * COUNT
    assert [hpet.get(at(number) + 4, 4) for number in range(COUNT)] == [0x00F0_0000] * COUNT


def test_what_is_read_only_stays(hpet: Clock) -> None:
    before = hpet.get(CAPABILITIES), hpet.get(at(0)), hpet.get(0x3F8)
    for offset in (CAPABILITIES, 0x3F8):
        hpet.set(offset, 2**64 - 1)
    hpet.set(at(0) + 4, 2**32 - 1, 4)

    assert (hpet.get(CAPABILITIES), hpet.get(at(0)), hpet.get(0x3F8)) == before


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (1, 2), (4, 4), (2, 4), (0, 8), (3, 1)])
def test_reads_of_any_width_are_parts_of_the_register(hpet: Clock, offset: int, size: int) -> None:
    whole = hpet.get(CAPABILITIES).to_bytes(8, "little")

    assert hpet.get(offset, size) == int.from_bytes(whole[offset : offset + size], "little")


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 2), (2, 4), (4, 8), (6, 4)])
def test_writes_of_other_widths_or_places_are_dropped(hpet: Clock, offset: int, size: int) -> None:
    hpet.set(COUNTER + offset, 2 ** (8 * size) - 1, size)

    assert hpet.get(COUNTER) == 0


@pytest.mark.parametrize("lines", [[], [24], [-1], ["20"], [True], 20, "20"])
def test_lines_that_cannot_be_are_refused(lines: object) -> None:
    with pytest.raises(DeviceOptionError, match="lines"):
        Hpet(lines)  # type: ignore[arg-type]


# ---- the counter ----


def test_the_counter_counts_while_it_is_enabled(hpet: Clock) -> None:
    hpet.advance(50)
    halted = hpet.get(COUNTER)
    hpet.set(CONFIG, 1)
    hpet.advance(70)
    counted = hpet.get(COUNTER)
    hpet.set(CONFIG, 0)
    hpet.advance(1000)
    again = hpet.get(COUNTER)
    hpet.set(CONFIG, 1)
    hpet.advance(5)

    assert (halted, counted, again, hpet.get(COUNTER)) == (0, 70, 70, 75)


def test_the_counter_is_written_whole_or_by_halves_while_it_is_halted(hpet: Clock) -> None:
    hpet.set(COUNTER, 0x1122_3344_5566_7788)
    hpet.set(COUNTER, 0xAABB_CCDD, 4)
    low = hpet.get(COUNTER)
    hpet.set(COUNTER + 4, 1, 4)

    assert (low, hpet.get(COUNTER), hpet.get(COUNTER + 4, 4)) == (0x1122_3344_AABB_CCDD, 0x1_AABB_CCDD, 1)


def test_a_counter_that_counts_is_not_written(running: Clock) -> None:
    running.advance(10)
    running.set(COUNTER, 1000)

    assert running.get(COUNTER) == 10


def test_the_counter_wraps(hpet: Clock) -> None:
    hpet.set(COUNTER, 2**64 - 10)
    hpet.program(0, 0, 5)
    hpet.set(CONFIG, 1)
    hpet.advance(14)
    before = hpet.interrupts()
    hpet.advance(1)

    assert (before, hpet.interrupts(), hpet.get(COUNTER)) == (0, 1, 5)


# ---- one shot ----


@pytest.mark.parametrize("number", range(COUNT))
def test_a_comparator_interrupts_once_when_the_counter_meets_it(running: Clock, number: int) -> None:
    running.program(number, 0, 3 * MS)
    running.advance(3 * MS - 1)
    early = running.interrupts()
    running.advance(1)
    there = running.interrupts()
    running.advance(100 * MS)

    assert (early, there, running.interrupts(), running.get(STATUS)) == (0, 1, 0, 0)


def test_a_comparator_that_is_past_does_not_interrupt(running: Clock) -> None:
    running.advance(100)
    running.program(0, 0, 99)
    running.advance(1000 * MS)

    assert (running.interrupts(), running.host.loop.pending) == (0, 0)


def test_a_comparator_of_32_bits_is_met_at_each_round_of_the_low_half(running: Clock) -> None:
    """Section 2.3.9.2.1."""
    running.program(0, MODE_32, 5 * MS)
    running.advance(5 * MS)
    first = running.interrupts()
    running.advance(2**32 - 1)
    before = running.interrupts()
    running.advance(1)

    assert (first, before, running.interrupts()) == (1, 0, 1)


def test_a_timer_that_may_not_interrupt_does_not(running: Clock) -> None:
    running.set(at(0), LINE << 9)
    running.set(at(0) + 8, MS)
    running.advance(2 * MS)

    assert (running.interrupts(), running.host.loop.pending) == (0, 0)


def test_a_halted_counter_meets_nothing(running: Clock) -> None:
    running.program(0, 0, MS)
    running.set(CONFIG, 0)
    running.advance(10 * MS)
    halted = running.interrupts(), running.host.loop.pending
    running.set(CONFIG, 1)
    running.advance(MS)

    assert (halted, running.interrupts()) == ((0, 0), 1)


# ---- periodic ----


def test_a_periodic_timer_interrupts_every_period_from_its_first_match_on(running: Clock) -> None:
    """Section 2.3.9.2.2, as Linux does it: the comparator under VAL_SET, then the period."""
    running.program(0, PERIODIC | SET | MODE_32, 3 * MS, 10 * MS)
    seen = []
    for _ in range(4):
        running.advance(3 * MS - 1 if not seen else 10 * MS - 1)
        seen.append(running.interrupts())
        running.advance(1)
        seen.append(running.interrupts())

    assert seen == [0, 1] * 4
    assert running.get(at(0) + 8) == 43 * MS
    assert not running.get(at(0)) & SET


@pytest.mark.parametrize("mode", [0, MODE_32])
def test_a_periodic_timer_is_set_by_halves_too(running: Clock, mode: int) -> None:
    running.advance(0x1_0000_0000)
    first = 0x1_0000_0000 + 7 * MS
    running.set(at(0), PERIODIC | SET | ENABLE | mode | LINE << 9, 4)
    running.set(at(0) + 8, first & 0xFFFF_FFFF, 4)
    running.set(at(0) + 12, first >> 32, 4)
    running.set(at(0) + 8, 20 * MS, 4)
    running.set(at(0) + 12, 0, 4)
    running.advance(7 * MS)
    there = running.interrupts()
    running.advance(20 * MS)

    assert (there, running.interrupts()) == (1, 1)


def test_periods_that_a_late_host_missed_are_one_interrupt(running: Clock) -> None:
    running.program(0, PERIODIC | SET, MS, MS)
    running.host.loop.now += 25.5 * MS * TICK_S
    running.advance(0)

    assert (running.interrupts(), running.get(at(0) + 8)) == (1, 26 * MS)


def test_a_period_that_is_too_short_floods_nobody(running: Clock) -> None:
    running.program(0, PERIODIC | SET, 1, 1)
    running.advance(SHORTEST_NS // TICK_NS * 100)

    assert running.interrupts() <= 101


# ---- levels ----


def test_a_level_timer_sets_its_status_until_that_is_cleared(running: Clock) -> None:
    """Section 2.3.6."""
    running.program(1, LEVEL, MS)
    running.advance(MS)
    during = running.get(STATUS), running.interrupts()
    running.set(STATUS, 0b101)
    other = running.get(STATUS)
    running.set(STATUS, 0b010)
    running.program(1, LEVEL, 3 * MS)
    running.advance(2 * MS)

    assert (during, other) == ((0b010, 1), 0b010)
    assert (running.get(STATUS), running.interrupts()) == (0b010, 1)


def test_a_level_timer_that_may_not_interrupt_sets_its_status_alone(running: Clock) -> None:
    """Section 2.3.8, Tn_INT_ENB_CNF: it still generates appropriate status bits."""
    running.set(at(0), LEVEL | LINE << 9)
    running.set(at(0) + 8, MS)
    running.advance(MS)
    alone = running.get(STATUS), running.interrupts()
    running.set(at(0), LEVEL | ENABLE | LINE << 9)

    assert (alone, running.interrupts()) == ((1, 0), 1)


# ---- where interrupts go ----


@pytest.mark.parametrize(("number", "line"), [(0, 0), (1, 8), (2, LINE)])
def test_legacy_replacement_sends_the_first_two_to_the_lines_of_pit_and_rtc(
    hpet: Clock, number: int, line: int
) -> None:
    """Section 2.3.5: whatever their own routes say; the third one's is its own."""
    hpet.set(CONFIG, 3)
    hpet.program(number, 0, MS)
    hpet.advance(MS)

    assert {each: hpet.interrupts(each) for each in (*LEGACY_LINES, LINE)} == {
        each: int(each == line) for each in (*LEGACY_LINES, LINE)
    }


def test_a_line_that_it_has_not_is_not_taken(running: Clock) -> None:
    """Section 2.3.8: software finds out by reading the field back."""
    running.program(0, 0, MS, line=20)
    running.set(at(0), ENABLE | 3 << 9)
    kept = running.get(at(0), 4) >> 9 & 0x1F
    running.advance(MS)

    assert (kept, running.interrupts(20), running.interrupts(3)) == (20, 1, 0)


def test_one_whose_line_nobody_chose_interrupts_nowhere(running: Clock) -> None:
    running.set(at(0), ENABLE)
    running.set(at(0) + 8, MS)
    running.advance(2 * MS)

    assert [running.interrupts(line) for line in range(24)] == [0] * 24


def test_without_interrupts_it_counts_all_the_same() -> None:
    device = Hpet()
    host = RecordingHost()
    device.clock = lambda: round(host.loop.time() * 1e9)
    device.attach(host)
    device.write(CONFIG, 4, 1)
    device.write(at(0), 4, LEVEL | ENABLE | MODE_32 | LINE << 9)
    device.write(at(0) + 8, 4, MS)
    host.loop.advance(0.01)

    assert (device.read(STATUS, 4), device.read(COUNTER, 4)) == (1, 10 * MS)


# ---- other owners ----


@pytest.mark.parametrize("bits", [0, LEVEL])
def test_a_successor_goes_on_where_the_snapshot_was(running: Clock, bits: int) -> None:
    running.program(2, bits, 9 * MS)
    running.advance(4 * MS)
    packed = msgspec.msgpack.encode(running.device.snapshot())
    running.device.detach()
    assert running.host.loop.pending == 0
    successor = Clock(running.host)
    successor.device.attach(running.host)
    successor.device.restore(msgspec.msgpack.decode(packed, type=HpetState))
    successor.advance(5 * MS - 1)
    early = successor.interrupts()
    successor.advance(1)

    assert (early, successor.interrupts(), successor.get(COUNTER)) == (0, 1, 9 * MS)


def test_its_state_has_room_in_what_it_declares(running: Clock) -> None:
    running.set(CONFIG, 0)
    running.set(COUNTER, 2**64 - 1)
    for number in range(COUNT):
        running.program(number, PERIODIC | SET | LEVEL, 2**64 - 1, 2**64 - 1)
    running.set(CONFIG, 3)

    assert len(msgspec.msgpack.encode(running.device.snapshot())) <= Hpet.persistent
