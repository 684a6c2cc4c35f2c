"""IoApic against a model of each pin by itself, which is told what happens to it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from shardio.devices import IoApic
from tests.devices.board import IOAPIC_LINES, Board

PINS = (0, 9, 23)
VECTORS = (0x31, 0x51)
PIN_SETS = st.sets(st.sampled_from(PINS))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lines"), PIN_SETS, PIN_SETS),
        st.tuples(st.just("route"), st.sampled_from(PINS),
                  st.tuples(st.sampled_from(VECTORS), st.booleans(), st.booleans())),
        st.tuples(st.just("end"), st.sampled_from(VECTORS), st.none()),
    ),
    max_size=60,
)


@dataclass
class Pin:
    vector: int = 0
    level: bool = False
    masked: bool = True
    high: bool = False
    in_service: bool = False
    sent: int = 0

    def move(self, pulse: bool, high: bool) -> None:
        rose = pulse or (high and not self.high)
        self.high = high
        if rose and not self.masked and not (self.level and self.in_service):
            self.send()

    def route(self, vector: int, level: bool, masked: bool) -> None:
        self.vector, self.level, self.masked = vector, level, masked
        self.in_service = self.in_service and level
        self.look()

    def end(self, vector: int) -> None:
        if self.in_service and self.vector == vector:
            self.in_service = False
            self.look()

    def look(self) -> None:
        if self.level and self.high and not self.masked and not self.in_service:
            self.send()

    def send(self) -> None:
        self.sent += 1
        self.in_service = self.level


class Counter:
    """In the message's place."""

    count = 0

    def trigger(self) -> None:
        self.count += 1

    def configure(self, _config: object) -> None:
        pass

    def enable(self) -> None:
        pass


class CountingHost:
    """A host whose messages count."""

    def __init__(self) -> None:
        self.interrupts = self
        self.persistent = None

    def message(self, _config: object) -> Counter:
        return Counter()


def bits(pins: set[int]) -> int:
    return sum(1 << pin for pin in pins)


@given(STEPS)
def test_each_pin_sends_what_the_model_sends(steps) -> None:
    ioapic = IoApic()
    ioapic.attach(CountingHost())
    board, model = Board(ioapic), {pin: Pin() for pin in PINS}
    for step, first, second in steps:
        if step == "lines":
            board.wires(IOAPIC_LINES, pulses=bits(first), levels=bits(second))
            for number, pin in model.items():
                pin.move(number in first, number in second)
        elif step == "route":
            vector, level, masked = second
            board.store(0xFEC0_0000, 0x10 + 2 * first)
            board.store(0xFEC0_0010, vector | level << 15 | masked << 16)
            model[first].route(vector, level, masked)
        else:
            board.store(0xFEC0_0040, first)
            for pin in model.values():
                pin.end(first)
        counts = [getattr(ioapic._messages[pin], "count", 0) for pin in PINS]
        assert counts == [model[pin].sent for pin in PINS]
