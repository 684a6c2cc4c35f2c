"""One 8254 channel against a model that counts tick by tick."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardio.devices import pit_channel
from shardio.devices.pit_channel import Channel

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("control"), st.integers(0, 5)),
        st.tuples(st.just("count"), st.integers(2, 40)),
        st.tuples(st.just("gate"), st.booleans()),
        st.tuples(st.just("pass"), st.integers(1, 100)),
    ),
    max_size=40,
)


class Model:
    """`left`: ticks until the cycle, half cycle or shot ends; None before it begins."""

    def __init__(self) -> None:
        self.mode, self.count, self.next, self.left, self.gate = 0, 0, 0, None, True
        self.out, self.rises = False, 0

    def set_out(self, out: bool) -> None:
        self.rises += out and not self.out
        self.out = out

    def control(self, mode: int) -> None:
        self.mode, self.next, self.left = mode, 0, None
        self.out = mode != 0

    def write(self, count: int) -> None:
        if self.mode in (1, 5) or (self.mode in (2, 3) and self.left is not None):
            self.next = count
        else:
            self.load(count)

    def load(self, count: int) -> None:
        self.count, self.next = count, 0
        self.out = self.mode not in (0, 1)
        self.left = (count + 1) // 2 if self.mode == 3 else count
        self.strobes = True

    def set_gate(self, gate: bool) -> None:
        if gate == self.gate:
            return
        self.gate = gate
        if self.mode in (1, 5):
            if gate and (self.left is not None or self.next):
                self.load(self.next or self.count)
        elif self.mode in (2, 3) and self.left is not None:
            if gate:
                self.load(self.next or self.count)
            self.out = True

    def tick(self) -> None:
        if self.left is None or (not self.gate and self.mode not in (1, 5)):
            return
        self.left -= 1
        if self.mode in (0, 1):
            if self.left == 0:
                self.set_out(True)
        elif self.mode in (4, 5):
            self.set_out(self.left != 0)
        elif self.mode == 2:
            if self.left == 0:
                self.count, self.next = self.next or self.count, 0
                self.left = self.count
            self.set_out(self.left != 1)
        elif self.left == 0:
            self.count, self.next = self.next or self.count, 0
            self.left = self.count // 2 if self.out else (self.count + 1) // 2
            self.set_out(not self.out)


@given(STEPS)
def test_the_output_its_rises_and_the_next_event_are_the_models(steps) -> None:
    channel, model, now = Channel(), Model(), 1000
    pit_channel.write_control(channel, 0x10)
    for step, value in steps:
        if step == "control":
            pit_channel.write_control(channel, 0x10 | value << 1)
            model.control(value)
        elif step == "count":
            pit_channel.write_count(channel, value, now)
            model.write(value)
        elif step == "gate":
            pit_channel.set_gate(channel, value, now)
            model.set_gate(value)
        else:
            for _ in range(value):
                due = pit_channel.next_event(channel, now)
                now += 1
                before = model.rises
                model.tick()
                rise = pit_channel.last_rise(channel, now)
                assert (rise > channel.signalled) == (model.rises > before)
                assert model.rises == before or due == now
                channel.signalled = max(rise, channel.signalled)
                assert pit_channel.output(channel, now) == model.out
        assert pit_channel.output(channel, now) == model.out
