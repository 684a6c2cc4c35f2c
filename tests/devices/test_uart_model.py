"""Uart16550 against the simplest model there is: the bytes that go in come out, in order, whatever is
done.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shardio.devices import Uart16550
from shardio.devices.uart_core import UartCore
from shardio.devices.uart_state import LSR_BI
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


@settings(max_examples=50)
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


# Registers, and of the values those that open and close the short way to LSR and THR.
ACCESSES = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("read"), st.just(LSR), st.just(0)),
        st.tuples(st.just("write"), st.just(RBR), st.integers(0, 255)),
        st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
        st.tuples(st.just("write"), st.sampled_from([1, 2, 3, 4]), st.sampled_from([0, 1, 2, 7, 0x80, 0x10])),
        st.tuples(st.just("receive"), st.just(0), st.integers(0, 255)),
        st.tuples(st.just("break"), st.just(0), st.just(0)),
        st.tuples(st.just("full"), st.just(0), st.integers(0, 1)),
        st.tuples(st.just("turn"), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(ACCESSES)
def test_the_short_way_to_lsr_and_thr_is_the_chip(accesses):
    """The same accesses of a UART in a loop and of its core, which has no short way: the same answers and
    bytes.
    """
    host = RecordingHost()
    uart = Uart16550(output="null")
    sent = bytearray()
    uart.output.write = sent.extend  # type: ignore[method-assign]
    uart.attach(host)
    line = ModelLine()
    core = UartCore(line)
    for step, register, value in accesses:
        if step == "read":
            assert uart.read(register, 1) == core.read(register)
        elif step == "write":
            uart.write(register, 1, value)
            core.write(register, value)
        elif step == "receive" and core.room > 0:
            uart.receive(bytes([value]))
            core.receive(bytes([value]))
        elif step == "break":
            uart.send_break()
            core.receive(b"\0", LSR_BI)
        elif step == "full":
            line.full = uart.full = bool(value)
            uart.can_send = line.can_send  # type: ignore[method-assign]
            uart._output_has_room()
            core.line_has_room()
        elif step == "turn":
            host.loop.advance(0)
        # What a cleared FIFO gives back to the host is the joining file's to hold, not the chip's.
        uart._core.state.held = core.state.held = b""
    uart._flush()
    assert sent == line.sent
    assert host.trigger.count == line.interrupts
    uart.detach()


class ModelLine:
    """What is outside a core: bytes that were sent, edges."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.interrupts = 0
        self.full = False

    def can_send(self) -> bool:
        return not self.full

    def send(self, byte: int) -> None:
        self.sent.append(byte)

    def interrupt(self) -> None:
        self.interrupts += 1

    def changed(self) -> None:
        pass

    def restart_timeout(self, character_times: int) -> None:
        pass


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 255), st.booleans()), max_size=60))
def test_no_access_breaks_it_and_reads_are_bytes(accesses):
    com1 = Ports(Uart16550(output="null"), 0x3F8)
    for register, value, is_write in accesses:
        com1.write(register, value) if is_write else com1.read(register)
    com1.write(3, 0)
    assert com1.read(LSR) & 0x60 == 0x60
