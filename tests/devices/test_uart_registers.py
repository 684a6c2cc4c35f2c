"""Uart16550: every register, read and written, against the PC16550D data sheet."""

from __future__ import annotations

import pytest

from shardio.devices import DeviceOptionError, Uart16550

RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
THR, FCR, DLL, DLM = RBR, IIR, RBR, IER
LOOP = 0x10


class Sent(Uart16550):
    """Keeps what leaves for the line; `stuck` makes the line take nothing."""

    def __init__(self) -> None:
        super().__init__(output="null")
        self.line = bytearray()
        self.stuck = False

    def can_send(self) -> bool:
        return not self.stuck

    def send(self, byte: int) -> None:
        self.line.append(byte)

    def unstick(self) -> None:
        self.stuck = False
        self._core.line_has_room()


@pytest.fixture
def uart():
    return Sent()


@pytest.fixture
def com1(uart, ports):
    return ports(uart, 0x3F8)


def test_registers_after_master_reset(com1):
    assert [com1.read(register) for register in (IER, IIR, LCR, MCR, LSR, MSR, SCR)] == [
        0, 0x01, 0, 0, 0x60, 0xB0, 0,
    ]


@pytest.mark.parametrize(("register", "kept"), [(IER, 0x0F), (LCR, 0x7F), (MCR, 0x1F), (SCR, 0xFF)])
def test_a_plain_register_reads_what_was_written(com1, register, kept):
    com1.write(register, 0xFF & ~0x80 if register == LCR else 0xFF)
    assert com1.read(register) == kept


@pytest.mark.parametrize("register", [LSR, MSR])
def test_the_status_registers_ignore_writes(com1, register):
    before = com1.read(register)
    com1.write(register, ~before & 0xFF)
    assert com1.read(register) == before


def test_dlab_shows_the_divisor_instead_of_rbr_and_ier(com1, uart):
    com1.write(IER, 0x05)
    com1.write(LCR, 0x83)
    com1.write(DLL, 0x34)
    com1.write(DLM, 0x12)
    assert (com1.read(DLL), com1.read(DLM)) == (0x34, 0x12)
    com1.write(LCR, 0x03)
    assert com1.read(IER) == 0x05
    assert not uart.line


def test_a_16_bit_write_sets_the_divisor_whole(com1):
    com1.write(LCR, 0x80)
    com1.write(DLL, 0x0180, size=2)
    assert com1.read(DLL, size=2) == 0x0180


def test_thr_sends_and_is_empty_again(com1, uart):
    com1.write(THR, 0x41)
    assert bytes(uart.line) == b"A"
    assert com1.read(LSR) == 0x60


def test_rbr_gives_what_was_received_and_0_when_empty(com1, uart):
    uart.receive(b"A")
    assert com1.read(LSR) == 0x61
    assert com1.read(RBR) == 0x41
    assert com1.read(LSR) == 0x60
    assert com1.read(RBR) == 0


def test_fcr_enables_the_fifos_and_iir_shows_it(com1):
    com1.write(FCR, 0x01)
    assert com1.read(IIR) == 0xC1
    com1.write(FCR, 0x00)
    assert com1.read(IIR) == 0x01


def test_fcr_without_its_enable_bit_programs_nothing(com1, uart):
    com1.write(FCR, 0xC1)
    for byte in range(16):
        uart._core.receive(bytes((byte,)))
    com1.write(FCR, 0xC0)
    assert uart.snapshot().fcr == 0


@pytest.mark.parametrize(("fcr", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_the_trigger_level_decides_when_data_is_reported(com1, uart, fcr, level):
    com1.write(IER, 0x01)
    com1.write(FCR, fcr)
    uart.receive(bytes(level - 1))
    assert com1.read(IIR) == 0xC1
    uart.receive(b"x")
    assert com1.read(IIR) == 0xC4


def test_the_receive_fifo_holds_16_in_order(com1, uart):
    com1.write(FCR, 0x01)
    uart.receive(b"0123456789abcdef")
    assert bytes(com1.read(RBR) for _ in range(16)) == b"0123456789abcdef"
    assert com1.read(LSR) == 0x60


def test_the_transmit_fifo_holds_16_while_the_line_is_stuck(com1, uart):
    com1.write(FCR, 0x01)
    uart.stuck = True
    for byte in b"0123456789abcdef!":
        com1.write(THR, byte)
    assert com1.read(LSR) & 0x60 == 0
    assert uart.statistics().tx_lost == 1
    uart.unstick()
    assert bytes(uart.line) == b"0123456789abcdef"
    assert com1.read(LSR) == 0x60


def test_without_fifos_a_stuck_line_holds_one_character(com1, uart):
    uart.stuck = True
    com1.write(THR, 0x31)
    com1.write(THR, 0x32)
    uart.unstick()
    assert bytes(uart.line) == b"2"
    assert uart.statistics().tx_lost == 1


def test_fcr_clears_the_transmit_fifo(com1, uart):
    com1.write(FCR, 0x01)
    uart.stuck = True
    com1.write(THR, 0x31)
    com1.write(FCR, 0x05)
    uart.unstick()
    assert not uart.line
    assert com1.read(LSR) == 0x60
    assert uart.statistics().cleared == 1


def test_fcr_clears_the_receive_fifo_and_the_hosts_bytes_come_again(com1, uart):
    com1.write(FCR, 0x01)
    uart.receive(b"hello")
    com1.write(FCR, 0x03)
    assert com1.read(LSR) == 0x60
    assert bytes(com1.read(RBR) for _ in range(5)) == b"hello"


def test_fcr_clears_what_came_by_loopback_for_good(com1, uart):
    com1.write(FCR, 0x01)
    com1.write(MCR, LOOP)
    com1.write(THR, 0x55)
    com1.write(FCR, 0x03)
    com1.write(MCR, 0)
    assert com1.read(LSR) == 0x60
    assert com1.read(LSR) == 0x60


def test_an_overrun_in_fifo_mode_keeps_the_old_characters(com1, uart):
    com1.write(FCR, 0x01)
    uart._core.receive(b"0123456789abcdef!")
    assert com1.read(LSR) == 0x63
    assert com1.read(LSR) == 0x61
    assert bytes(com1.read(RBR) for _ in range(16)) == b"0123456789abcdef"
    assert uart.statistics().overruns == 1


def test_an_overrun_without_fifos_keeps_the_new_character(com1, uart):
    uart._core.receive(b"12")
    assert com1.read(LSR) == 0x63
    assert com1.read(RBR) == 0x32


def test_a_break_is_a_zero_with_bi(com1, uart):
    uart.send_break()
    assert com1.read(LSR) == 0x71
    assert com1.read(LSR) == 0x61
    assert com1.read(RBR) == 0


@pytest.mark.parametrize("error", [0x04, 0x08, 0x10])
def test_an_error_in_the_fifo_shows_when_its_character_is_next(com1, uart, error):
    com1.write(FCR, 0x01)
    uart._core.receive(b"A")
    uart._core.receive(b"B", error)
    assert com1.read(LSR) == 0xE1
    assert com1.read(RBR) == 0x41
    assert com1.read(LSR) == 0xE1 | error
    assert com1.read(LSR) == 0x61


def test_loopback_returns_what_is_sent_and_the_line_sees_nothing(com1, uart):
    com1.write(MCR, LOOP)
    com1.write(THR, 0xA5)
    assert com1.read(LSR) == 0x61
    assert com1.read(RBR) == 0xA5
    assert not uart.line


def test_loopback_keeps_the_hosts_bytes_waiting(com1, uart):
    com1.write(MCR, LOOP)
    uart.receive(b"A")
    assert com1.read(LSR) == 0x60
    com1.write(MCR, 0)
    com1.read(LSR)
    assert com1.read(RBR) == 0x41


def test_loopback_overruns_at_the_17th_character(com1):
    com1.write(FCR, 0x01)
    com1.write(MCR, LOOP)
    for byte in range(17):
        com1.write(THR, byte)
    assert com1.read(LSR) == 0x63
    assert [com1.read(RBR) for _ in range(16)] == list(range(16))


@pytest.mark.parametrize(
    ("mcr", "msr"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80), (0x0F, 0xF0), (0, 0)]
)
def test_loopback_connects_the_modem_outputs_to_the_inputs(com1, mcr, msr):
    com1.write(MCR, LOOP | mcr)
    assert com1.read(MSR) & 0xF0 == msr


def test_a_break_in_loopback_is_received(com1):
    com1.write(MCR, LOOP)
    com1.write(LCR, 0x43)
    assert com1.read(LSR) == 0x71


@pytest.mark.parametrize(
    ("before", "after", "deltas"),
    [
        (0xB0, 0xA0, 0x01),
        (0xB0, 0x90, 0x02),
        (0xB0, 0x30, 0x08),
        (0xB0, 0xF0, 0x00),
        (0xF0, 0xB0, 0x04),
        (0xF0, 0x00, 0x0F),
    ],
)
def test_msr_deltas_tell_changes_once(com1, uart, before, after, deltas):
    uart.set_modem_lines(before)
    com1.read(MSR)
    uart.set_modem_lines(after)
    assert com1.read(MSR) == after | deltas
    assert com1.read(MSR) == after


def test_a_32_bit_read_takes_four_registers(com1):
    com1.write(SCR, 0x5A)
    assert com1.read(4, size=4) == 0x5A_B0_60_00


def test_mmio_with_a_stride(ports):
    uart = Uart16550(output="null", stride=4)
    uart.mmio_size = 32
    bus = ports(uart, 0, mmio=0xD000_0000)
    bus.write(SCR * 4, 0x77, size=4)
    assert bus.read(SCR * 4, size=4) == 0x77
    assert bus.read(SCR * 4 + 1) == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"output": "printer"}, "output"),
        ({"output": "file:"}, "output"),
        ({"output": "fd:x"}, "output"),
        ({"input": "keyboard"}, "input"),
        ({"input": "fd:"}, "input"),
        ({"stride": 3}, "stride"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_by_name(options, named):
    with pytest.raises(DeviceOptionError) as caught:
        Uart16550(**options)
    assert caught.value.option == named
    assert repr(options[named]) in str(caught.value)


def test_snapshot_and_restore_carry_every_register(uart, com1, ports):
    com1.write(LCR, 0x80)
    com1.write(DLL, 0x0102, size=2)
    com1.write(LCR, 0x1B)
    com1.write(FCR, 0x81)
    com1.write(IER, 0x0D)
    com1.write(MCR, 0x0B)
    com1.write(SCR, 0x99)
    uart.receive(b"0123456789abcdefXYZ")
    other = Sent()
    other.restore(uart.snapshot())
    again = ports(other, 0x2F8)
    assert other.snapshot() == uart.snapshot()
    assert bytes(again.read(RBR) for _ in range(19)) == b"0123456789abcdefXYZ"
    assert com1.read(RBR) == 0x30
