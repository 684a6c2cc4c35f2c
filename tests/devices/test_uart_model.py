"""Uart16550 against the simplest model there is: the bytes that go in come out, in order, whatever is
done.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardio.devices import Uart16550
from tests.devices.support import Ports, RecordingHost

RBR, FCR, MCR, LSR = 0, 2, 4, 5

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("host sends"), st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("guest sends"), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("guest reads"), st.integers(1, 20)),
        st.tuples(st.just("fcr"), st.sampled_from([0x00, 0x01, 0x03, 0x07, 0x87, 0xC7])),
        st.tuples(st.just("time passes"), st.floats(0, 0.01)),
        st.tuples(st.just("reload"), st.none()),
    ),
    max_size=40,
)


class Rig:
    """A UART, a polling guest and a host, with what each of the two got."""

    def __init__(self) -> None:
        self.host = RecordingHost()
        self.got_by_guest = bytearray()
        self.got_by_host = bytearray()
        self.start(None)

    def start(self, state: object) -> None:
        self.uart = Uart16550(output="null")
        self.uart.output.write = self.got_by_host.extend  # type: ignore[method-assign]
        if state is not None:
            self.uart.restore(state)
        self.uart.attach(self.host)
        self.com1 = Ports(self.uart, 0x3F8)

    def guest_reads(self, most: int) -> None:
        while most and self.com1.read(LSR) & 1:
            self.got_by_guest.append(self.com1.read(RBR))
            most -= 1

    def guest_sends(self, data: bytes) -> None:
        for byte in data:
            self.com1.write(RBR, byte)

    def reload(self, _: None) -> None:
        state = self.uart.snapshot()
        self.uart.detach()
        self.start(state)

    def drain(self) -> None:
        for _ in range(200):
            self.com1.read(LSR)
            self.guest_reads(16)


@given(STEPS)
def test_bytes_in_are_bytes_out(steps):
    rig = Rig()
    perform = {
        "host sends": lambda data: rig.uart.receive(data),
        "guest sends": rig.guest_sends,
        "guest reads": rig.guest_reads,
        "fcr": lambda value: rig.com1.write(FCR, value),
        "time passes": rig.host.loop.advance,
        "reload": rig.reload,
    }
    for step, argument in steps:
        perform[step](argument)
    rig.drain()
    rig.uart.detach()
    assert bytes(rig.got_by_guest) == b"".join(data for step, data in steps if step == "host sends")
    assert bytes(rig.got_by_host) == b"".join(data for step, data in steps if step == "guest sends")


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255), st.booleans()), max_size=60))
def test_no_access_breaks_it_and_reads_are_bytes(accesses):
    com1 = Ports(Uart16550(output="null"), 0x3F8)
    for register, value, is_write in accesses:
        com1.write(register, value) if is_write else com1.read(register)
    com1.write(3, 0)
    assert com1.read(LSR) & 0x60 == 0x60
