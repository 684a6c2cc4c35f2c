"""Uart16550: interrupt identification, priorities, the OUT2 gate, and an edge for every condition that is
left.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio.devices import Uart16550
from tests.devices.support import Ports, RecordingHost

RBR, IER, IIR, LCR, MCR, LSR, MSR = range(7)
THR, FCR = RBR, IIR
OUT2 = 0x08
RDA, THRE, RLS, MSI = 1, 2, 4, 8


@pytest.fixture
def uart(host):
    uart = Uart16550(output="null")
    uart.attach(host)
    yield uart
    uart.detach()


@pytest.fixture
def com1(uart, ports):
    com1 = ports(uart, 0x3F8)
    com1.write(MCR, OUT2)
    return com1


def test_received_data_interrupts(com1, uart, host):
    com1.write(IER, RDA)
    uart.receive(b"A")
    assert host.trigger.count == 1
    assert com1.read(IIR) == 0x04
    com1.read(RBR)
    assert com1.read(IIR) == 0x01


def test_nothing_interrupts_that_is_not_enabled(com1, uart, host):
    uart.receive(b"A")
    com1.write(THR, 0x41)
    uart.set_modem_lines(0)
    assert host.trigger.count == 0
    assert com1.read(IIR) == 0x01


def test_enabling_while_data_waits_interrupts(com1, uart, host):
    uart.receive(b"A")
    com1.write(IER, RDA)
    assert host.trigger.count == 1


def test_out2_gates_the_interrupt_and_opens_with_an_edge(com1, uart, host):
    com1.write(MCR, 0)
    com1.write(IER, RDA)
    uart.receive(b"A")
    assert host.trigger.count == 0
    com1.write(MCR, OUT2)
    assert host.trigger.count == 1


def test_enabling_thre_interrupts_at_once(com1, host):
    com1.write(IER, THRE)
    assert host.trigger.count == 1
    assert com1.read(IIR) == 0x02


def test_reading_iir_clears_thre_only_when_it_reports_it(com1, uart):
    com1.write(IER, THRE | RDA)
    uart.receive(b"A")
    assert com1.read(IIR) == 0x04
    com1.read(RBR)
    assert com1.read(IIR) == 0x02
    assert com1.read(IIR) == 0x01


def test_each_character_sent_interrupts_again(com1, host):
    com1.write(IER, THRE)
    com1.read(IIR)
    com1.write(THR, 0x41)
    com1.write(THR, 0x42)
    assert host.trigger.count == 3
    assert com1.read(IIR) == 0x02


def test_enabling_thre_again_interrupts_again(com1, host):
    com1.write(IER, THRE)
    com1.read(IIR)
    com1.write(IER, 0)
    com1.write(IER, THRE)
    assert host.trigger.count == 2
    assert com1.read(IIR) == 0x02


def test_writing_ier_unchanged_interrupts_no_more(com1, host):
    com1.write(IER, THRE)
    com1.read(IIR)
    com1.write(IER, THRE)
    assert host.trigger.count == 1


def test_line_status_comes_first_and_reading_lsr_clears_it(com1, uart, host):
    com1.write(IER, RLS | RDA)
    uart.send_break()
    assert com1.read(IIR) == 0x06
    com1.read(LSR)
    assert com1.read(IIR) == 0x04
    assert host.trigger.count == 2


def test_modem_status_interrupts_and_reading_msr_clears_it(com1, uart, host):
    com1.write(IER, MSI)
    uart.set_modem_lines(0x30)
    assert host.trigger.count == 1
    assert com1.read(IIR) == 0x00
    com1.read(MSR)
    assert com1.read(IIR) == 0x01


def test_the_order_of_all_five(com1, uart, host):
    com1.write(FCR, 0x41)
    com1.write(IER, RDA | THRE | RLS | MSI)
    uart.set_modem_lines(0)
    uart.receive(b"abc")
    uart.send_break()
    uart._core.receive(b"overrun everything there is")
    seen = [com1.read(IIR)]
    com1.read(LSR)
    seen.append(com1.read(IIR))
    for _ in range(13):
        com1.read(RBR)
    com1.read(LSR)
    host.loop.advance(1)
    seen.append(com1.read(IIR))
    for _ in range(3):
        com1.read(RBR)
    seen += [com1.read(IIR), com1.read(IIR)]
    com1.read(MSR)
    seen.append(com1.read(IIR))
    assert seen == [0xC6, 0xC4, 0xCC, 0xC2, 0xC0, 0xC1]


def test_every_condition_left_after_service_is_a_new_edge(com1, uart, host):
    com1.write(IER, RDA | THRE | MSI)
    uart.set_modem_lines(0x30)
    uart.receive(b"A")
    before = host.trigger.count
    com1.read(RBR)
    assert host.trigger.count == before + 1
    assert com1.read(IIR) == 0x02
    assert host.trigger.count == before + 2
    assert com1.read(IIR) == 0x00


def test_serving_what_does_not_interrupt_is_no_edge(com1, uart, host):
    com1.write(IER, THRE)
    uart.receive(b"AB")
    before = host.trigger.count
    com1.read(RBR)
    com1.read(LSR)
    assert host.trigger.count == before


def test_the_character_timeout_after_four_character_times(com1, uart, host):
    com1.write(FCR, 0xC1)
    com1.write(IER, RDA)
    uart.receive(b"AB")
    host.loop.advance(40 / 9600 - 0.0001)
    assert com1.read(IIR) == 0xC1
    host.loop.advance(0.0002)
    assert host.trigger.count == 1
    assert com1.read(IIR) == 0xCC


def test_a_character_in_or_out_starts_the_timeout_again(com1, uart, host):
    com1.write(FCR, 0xC1)
    com1.write(IER, RDA)
    uart.receive(b"AB")
    host.loop.advance(0.003)
    uart.receive(b"C")
    host.loop.advance(0.003)
    com1.read(RBR)
    host.loop.advance(0.003)
    assert com1.read(IIR) == 0xC1
    host.loop.advance(0.002)
    assert com1.read(IIR) == 0xCC


def test_reading_rbr_ends_the_timeout_and_an_empty_fifo_has_none(com1, uart, host):
    com1.write(FCR, 0xC1)
    com1.write(IER, RDA)
    uart.receive(b"A")
    host.loop.advance(0.01)
    com1.read(RBR)
    assert com1.read(IIR) == 0xC1
    host.loop.advance(1)
    assert com1.read(IIR) == 0xC1
    assert host.loop.pending == 0


def test_the_divisor_sets_the_length_of_the_timeout(com1, uart, host):
    com1.write(LCR, 0x80)
    com1.write(0, 1, size=2)
    com1.write(LCR, 0)
    com1.write(FCR, 0xC1)
    com1.write(IER, RDA)
    uart.receive(b"A")
    host.loop.advance(40 / 115200 + 0.00001)
    assert com1.read(IIR) == 0xCC


def test_attach_raises_again_what_a_restored_state_has_pending(host):
    old = Uart16550(output="null")
    old.write(MCR, 1, OUT2)
    old.write(IER, 1, RDA)
    old.receive(b"A")
    new = Uart16550(output="null")
    new.restore(old.snapshot())
    new.attach(host)
    assert host.trigger.count == 1
    new.detach()


class EdgeDriver:
    """A guest on an edge-triggered controller: it looks at the UART only when an edge came, and serves one
    condition for each, as the laziest correct driver does.
    """

    def __init__(self, uart: Uart16550, host: RecordingHost) -> None:
        self.com1 = Ports(uart, 0x3F8)
        self.host = host
        self.seen = 0
        self.received = bytearray()
        self.to_send = bytearray()
        self.com1.write(FCR, 0x01)
        self.com1.write(MCR, OUT2)
        self.com1.write(IER, RDA | RLS | MSI)

    def serve_all_edges(self) -> None:
        while self.seen < self.host.trigger.count:
            self.seen += 1
            self.serve_one()

    def serve_one(self) -> None:
        match self.com1.read(IIR) & 0x0F:
            case 0x06:
                self.com1.read(LSR)
            case 0x04 | 0x0C:
                self.received.append(self.com1.read(RBR))
            case 0x02 if self.to_send:
                self.com1.write(THR, self.to_send.pop(0))
            case 0x02:
                self.com1.write(IER, RDA | RLS | MSI)
            case 0x00:
                self.com1.read(MSR)

    def send(self, data: bytes) -> None:
        self.to_send += data
        self.com1.write(IER, RDA | RLS | MSI | THRE)


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("in"), st.binary(max_size=40)),
            st.tuples(st.just("out"), st.binary(max_size=40)),
            st.tuples(st.just("modem"), st.integers(0, 255)),
            st.tuples(st.just("serve"), st.just(None)),
        ),
        max_size=30,
    )
)
def test_an_edge_triggered_driver_never_waits_for_an_edge_that_does_not_come(steps):
    host = RecordingHost()
    uart = Uart16550(output="null")
    uart.attach(host)
    sent = bytearray()
    uart.output.write = sent.extend  # type: ignore[method-assign]
    driver = EdgeDriver(uart, host)
    perform = {
        "in": uart.receive,
        "out": driver.send,
        "modem": uart.set_modem_lines,
        "serve": lambda _: driver.serve_all_edges(),
    }
    for step, argument in steps:
        perform[step](argument)
    driver.serve_all_edges()
    uart.detach()
    assert bytes(driver.received) == b"".join(data for step, data in steps if step == "in")
    assert bytes(sent) == b"".join(data for step, data in steps if step == "out")
