"""One comparator of an HPET: its registers, and when the main counter meets it. Nothing here knows of time,
interrupts or addresses.

Source: IA-PC HPET specification 1.0a, sections 2.3.8 (configuration), 2.3.9 (comparator).

>>> timer = Timer()
>>> write_comparator(timer, 100, counter=40)
>>> next_match(timer), expire(timer, 99), expire(timer, 100), next_match(timer) is None
(100, False, True, True)
"""

from __future__ import annotations

import msgspec

LEVEL = 1 << 1
ENABLE = 1 << 2
PERIODIC = 1 << 3
PERIODIC_CAPABLE = 1 << 4
SIZE_CAPABLE = 1 << 5
VALUE_SET = 1 << 6
MODE_32 = 1 << 8
ROUTE_SHIFT = 9
ROUTE = 0x1F << ROUTE_SHIFT

_WRITABLE = LEVEL | ENABLE | PERIODIC | VALUE_SET | MODE_32
CAPABILITIES = PERIODIC_CAPABLE | SIZE_CAPABLE
LOW = 0xFFFF_FFFF
ALL = 0xFFFF_FFFF_FFFF_FFFF
_FAR = 1 << 63
"""Ticks that no counter makes in the life of a machine."""


class Timer(msgspec.Struct, array_like=True):
    """`config`: the low word of its configuration; `comparator`, `period`: in ticks. `seen`: the counter up
    to which every match has been told of. `high_follows`: the low half of the comparator was set under
    VALUE_SET, and its high half may be written next.
    """

    config: int = CAPABILITIES
    comparator: int = ALL
    period: int = 0
    seen: int = 0
    high_follows: bool = False

    @property
    def route(self) -> int:
        """The line of the I/O APIC that it interrupts, where it does not replace a legacy device."""
        return self.config >> ROUTE_SHIFT & 0x1F

    @property
    def mask(self) -> int:
        """The bits of the counter that it compares."""
        return LOW if self.config & MODE_32 else ALL


def write_config(timer: Timer, value: int, routes: int) -> None:
    """The guest writes the low word of the configuration; a route that is not in `routes` (bit n: line n) is
    not taken, as software finds out by reading it back.
    """
    keep = timer.config & (CAPABILITIES | ROUTE)
    route = value >> ROUTE_SHIFT & 0x1F
    if routes >> route & 1:
        keep = keep & ~ROUTE | route << ROUTE_SHIFT
    timer.config = keep | value & _WRITABLE
    if timer.config & MODE_32:
        timer.comparator &= LOW
        timer.period &= LOW


def write_comparator(timer: Timer, value: int, counter: int, *, low: bool = True, high: bool = True) -> None:
    """The guest writes the comparator, or its `low` or `high` half alone; `value` has the written half in
    its place. In periodic mode it sets the period, and the comparator too under VALUE_SET, which this write
    clears (section 2.3.9.2.2).
    """
    half = (LOW if low else 0) | (ALL ^ LOW if high else 0)
    half &= timer.mask
    periodic = bool(timer.config & PERIODIC)
    sets = not periodic or bool(timer.config & VALUE_SET) or (timer.high_follows and not low)
    timer.high_follows = low and not high and periodic and bool(timer.config & VALUE_SET)
    if sets:
        timer.comparator = timer.comparator & ~half | value & half
    if periodic:
        timer.period = timer.period & ~half | value & half
    timer.config &= ~VALUE_SET
    start(timer, counter)


def start(timer: Timer, counter: int) -> None:
    """Matches count from `counter` on, itself included."""
    timer.seen = counter - 1


def next_match(timer: Timer) -> int | None:
    """The count of the main counter at which the timer expires next, beyond 64 bits where the counter wraps
    before; None where that takes longer than a counter of 64 bits runs: the count is past.
    """
    distance = _distance(timer)
    return timer.seen + distance if distance <= _FAR else None


def _distance(timer: Timer) -> int:
    return (timer.comparator - timer.seen - 1 & timer.mask) + 1


def expire(timer: Timer, counter: int) -> bool:
    """Whether the timer has expired up to `counter`; then it goes on to its next match. Matches that were
    missed are one.
    """
    elapsed = counter - timer.seen & ALL
    distance = _distance(timer)
    if elapsed < distance or elapsed > _FAR:
        return False
    if timer.config & PERIODIC and timer.period:
        late = elapsed - distance
        steps = late // timer.period + 1
        timer.comparator = timer.comparator + steps * timer.period & timer.mask
    timer.seen = counter
    return True
