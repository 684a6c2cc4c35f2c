"""One HPET comparator against a model that counts tick by tick."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardio.devices import hpet_timer
from shardio.devices.hpet_timer import MODE_32, PERIODIC, VALUE_SET, Timer

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("config"), st.sampled_from([0, PERIODIC, PERIODIC | VALUE_SET])),
        st.tuples(st.just("write"), st.integers(0, 60)),
        st.tuples(st.just("pass"), st.integers(1, 30)),
    ),
    max_size=30,
)


class Model:
    """Section 2.3.9, a tick at a time: an equal count expires, and a periodic comparator goes on by its
    period.
    """

    def __init__(self, counter: int, mask: int) -> None:
        self.counter, self.mask = counter, mask
        self.comparator, self.period, self.config = mask, 0, 0
        self.told = False
        self.look()

    def write(self, value: int) -> None:
        if not self.config & PERIODIC or self.config & VALUE_SET:
            self.comparator = value
        if self.config & PERIODIC:
            self.period = value
        self.config &= ~VALUE_SET
        self.told = False
        self.look()

    def look(self) -> None:
        if self.counter & self.mask == self.comparator:
            self.told = True
            if self.config & PERIODIC and self.period:
                self.comparator = self.comparator + self.period & self.mask

    def tick(self) -> None:
        self.counter += 1
        self.look()


@given(STEPS, st.sampled_from([0, MODE_32]), st.integers(0, 50))
def test_a_comparator_expires_as_the_model_does(steps: list[tuple[str, int]], mode: int, start: int) -> None:
    base = (1 << 32) - 40 + start if mode else start  # so that the low half wraps
    timer, model = Timer(), Model(base, hpet_timer.LOW if mode else hpet_timer.ALL)
    hpet_timer.write_config(timer, mode, 0)
    hpet_timer.start(timer, base)

    def told() -> None:
        """What the device does at each access: it tells of all that has expired by then."""
        assert hpet_timer.expire(timer, model.counter) == model.told
        model.told = False

    for step, value in steps:
        if step == "config":
            told()
            hpet_timer.write_config(timer, value | mode, 0)
            timer.seen = model.counter
            model.config = value
        elif step == "write":
            told()
            at = base + value - 30 & model.mask  # around where the counter is
            hpet_timer.write_comparator(timer, at, model.counter)
            model.write(at)
        else:
            for _ in range(value):
                model.tick()
            told()
        if timer.config & PERIODIC and timer.period and not model.told:
            assert timer.comparator == model.comparator
