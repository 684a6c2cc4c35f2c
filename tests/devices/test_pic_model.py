"""One 8259A against a model that goes through its inputs one by one, in the order of their priority."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardio.devices.pic_chip import (
    Chip,
    acknowledge,
    requested,
    set_elcr,
    set_lines,
    write_command,
    write_data,
)

BYTE = st.integers(0, 255)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("lines"), BYTE, BYTE),
        st.tuples(st.just("mask"), BYTE, st.just(0)),
        st.tuples(st.just("elcr"), BYTE, st.just(0)),
        st.tuples(st.just("eoi"), st.sampled_from([1, 3, 5, 6, 7]), st.integers(0, 7)),
        st.tuples(st.just("mask mode"), st.booleans(), st.just(0)),
        st.tuples(st.just("inta"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Model:
    """Eight inputs, each with what it is, and the order in which they come."""

    def __init__(self) -> None:
        self.order = list(range(8))
        self.high = [False] * 8
        self.latched = [False] * 8
        self.serving = [False] * 8
        self.masked = [False] * 8
        self.level = [False] * 8
        self.mask_mode = False

    def asks(self, n: int) -> bool:
        return self.high[n] if self.level[n] else self.latched[n]

    def lines(self, pulses: int, lines: int) -> None:
        for n in range(8):
            high = bool(lines >> n & 1)
            if (pulses >> n & 1 or (high and not self.high[n])) and not self.level[n]:
                self.latched[n] = True
            self.high[n] = high

    def mask(self, mask: int, _: int) -> None:
        self.masked = [bool(mask >> n & 1) for n in range(8)]

    def elcr(self, elcr: int, _: int) -> None:
        for n in range(8):
            level = bool(elcr >> n & 1)
            if self.level[n] and not level:
                self.latched[n] = self.high[n]  # the request register keeps what the line was
            self.level[n] = level

    def eoi(self, command: int, line: int) -> None:
        if not command & 2:
            found = [n for n in self.order if self.serving[n] and not (self.mask_mode and self.masked[n])]
            if not found:
                return
            line = found[0]
        if command & 1:
            self.serving[line] = False
        if command & 4:
            self.order = [(line + 1 + n) % 8 for n in range(8)]

    def set_mask_mode(self, on: int, _: int) -> None:
        self.mask_mode = bool(on)

    def requested(self) -> int:
        for n in self.order:
            if self.asks(n) and not self.masked[n] and not self.serving[n]:
                return n
            if self.serving[n] and not (self.mask_mode and self.masked[n]):
                return -1
        return -1

    def inta(self) -> int:
        line = self.requested()
        if line >= 0:
            self.latched[line] = False
            self.serving[line] = True
        return line


def drive(chip: Chip, step: str, first: int, second: int) -> None:
    if step == "lines":
        set_lines(chip, first, second)
    elif step == "mask":
        write_data(chip, first)
    elif step == "elcr":
        set_elcr(chip, first)
    elif step == "eoi":
        write_command(chip, first << 5 | second)
    elif step == "mask mode":
        write_command(chip, 0x68 if first else 0x48)
    elif (line := requested(chip)) >= 0:
        acknowledge(chip, line)


@given(STEPS)
def test_it_asks_for_what_the_model_asks_for(steps) -> None:
    chip, model = Chip(), Model()
    told = {
        "lines": model.lines, "mask": model.mask, "elcr": model.elcr, "eoi": model.eoi,
        "mask mode": model.set_mask_mode, "inta": lambda _first, _second: model.inta(),
    }
    for step, first, second in steps:
        drive(chip, step, first, second)
        told[step](first, second)
        assert requested(chip) == model.requested()
        assert [bool(chip.isr >> n & 1) for n in range(8)] == model.serving
        assert [bool(chip.irr >> n & 1) for n in range(8)] == [model.asks(n) for n in range(8)]
