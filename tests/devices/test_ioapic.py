"""IoApic: registers, masks, edges, levels with Remote IRR and EOI, and the messages that pins become.

Right values are the Intel 82093AA data sheet's; of messages, the Intel SDM's (volume 3, section 11.11).
"""

from __future__ import annotations

import pytest

from shardio.devices import IoApic
from shardio.devices.ioapic import message_of
from shardio.interrupt import MsiConfig
from tests.devices.board import IOAPIC_LINES, Board, InterruptHost

SELECT, WINDOW, EOI = 0xFEC0_0000, 0xFEC0_0010, 0xFEC0_0040
MASKED, LEVEL, LOGICAL, REMOTE_IRR, LOW_ACTIVE = 1 << 16, 1 << 15, 1 << 11, 1 << 14, 1 << 13
FIRST_GSI = 24


@pytest.fixture
def host():
    host = InterruptHost()
    yield host
    host.close()


@pytest.fixture
def ioapic(host):
    ioapic = IoApic()
    ioapic.attach(host)
    return ioapic


@pytest.fixture
def board(ioapic):
    return Board(ioapic)


def get(board, index):
    board.store(SELECT, index)
    return board.load(WINDOW)


def put(board, index, value):
    board.store(SELECT, index)
    board.store(WINDOW, value)


def route(board, pin, low, high=0):
    put(board, 0x11 + 2 * pin, high)
    put(board, 0x10 + 2 * pin, low)


def sent(host, gsi=FIRST_GSI):
    return host.backend.delivered(gsi)


def messages(host):
    return [host.backend.routes[gsi] for gsi in sorted(host.backend.routes)]


def test_version_and_number_of_pins(board):
    assert get(board, 1) == 0x0017_0020


def test_all_pins_are_masked_at_first(board):
    assert [get(board, 0x10 + 2 * pin) for pin in range(24)] == [MASKED] * 24


def test_id_and_arbitration_id(board):
    put(board, 0, 0xFFFF_FFFF)
    assert (get(board, 0), get(board, 2)) == (0x0F00_0000, 0x0F00_0000)


def test_selected_register_reads_back(board):
    board.store(SELECT, 0x1FE)
    assert board.load(SELECT) == 0xFE


@pytest.mark.parametrize("index", [3, 0x0F, 0x40, 0xFF])
def test_registers_that_there_are_not_read_0_and_drop_writes(board, ioapic, index):
    before = ioapic.snapshot().redirection
    put(board, index, 0xFFFF_FFFF)
    assert get(board, index) == 0
    assert ioapic.snapshot().redirection == before


def test_version_is_read_only(board):
    put(board, 1, 0)
    assert get(board, 1) == 0x0017_0020


@pytest.mark.parametrize("pin", [0, 23])
def test_redirection_keeps_what_can_be_written(board, pin):
    route(board, pin, 0xFFFF_FFFF, 0xFFFF_FFFF)
    low, high = get(board, 0x10 + 2 * pin), get(board, 0x11 + 2 * pin)
    assert (low, high) == (0x0001_FFFF & ~(REMOTE_IRR | 1 << 12), 0xFF00_0000)


def test_other_offsets_and_narrow_accesses(board):
    board.store(SELECT, 1, 1)
    assert board.load(WINDOW, 1) == 0x20
    assert board.load(SELECT + 0x20) == 0
    board.store(SELECT + 0x20, 0x55)
    assert board.load(SELECT) == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (0x31, MsiConfig(0xFEE0_0000, 0x31)),
        (0x31 | 0x0300_0000 << 32, MsiConfig(0xFEE0_3000, 0x31)),
        (0x31 | LOGICAL | 0xFF00_0000 << 32, MsiConfig(0xFEEF_F004, 0x31)),
        (0x31 | LEVEL, MsiConfig(0xFEE0_0000, 0xC031)),
        (0x31 | LEVEL | LOW_ACTIVE, MsiConfig(0xFEE0_0000, 0xC031)),
        (0x31 | 0x100 | LEVEL, MsiConfig(0xFEE0_0000, 0xC131)),
        (0x400 | LEVEL, MsiConfig(0xFEE0_0000, 0x400)),  # an NMI is an edge
        (0x731, MsiConfig(0xFEE0_0000, 0x731)),
    ],
)
def test_an_entry_is_a_message(entry, message):
    assert message_of(entry) == message


def test_an_edge_sends_the_message(board, host):
    route(board, 4, 0x31, 0x0100_0000)
    board.wires(IOAPIC_LINES, pulses=1 << 4)
    assert messages(host) == [MsiConfig(0xFEE0_1000, 0x31)]
    assert sent(host) == 1


def test_a_line_that_rises_is_one_edge(board, host):
    route(board, 4, 0x31)
    board.wires(IOAPIC_LINES, levels=1 << 4)
    board.wires(IOAPIC_LINES, levels=1 << 4)
    assert sent(host) == 1
    board.wires(IOAPIC_LINES, pulses=1 << 4, levels=1 << 4)  # it fell, and rose again
    assert sent(host) == 1
    board.wires(IOAPIC_LINES)
    board.wires(IOAPIC_LINES, levels=1 << 4)
    assert sent(host) == 1


def test_edges_at_a_masked_pin_are_ignored(board, host):
    route(board, 4, 0x31)
    route(board, 4, 0x31 | MASKED)
    board.wires(IOAPIC_LINES, pulses=1 << 4)
    route(board, 4, 0x31)
    assert sent(host) == 0


def test_each_pin_sends_its_own(board, host):
    route(board, 4, 0x31)
    route(board, 20, 0x41)
    board.wires(IOAPIC_LINES, pulses=1 << 4 | 1 << 20)
    assert (sent(host, 24), sent(host, 25)) == (1, 1)


def test_a_level_is_delivered_once_until_its_eoi(board, host):
    route(board, 10, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, levels=1 << 10)
    board.wires(IOAPIC_LINES)
    board.wires(IOAPIC_LINES, levels=1 << 10)
    assert get(board, 0x24) == 0x51 | LEVEL | REMOTE_IRR
    assert sent(host) == 1
    board.store(EOI, 0x51)
    assert sent(host) == 1


def test_an_eoi_of_a_line_that_has_fallen(board, host):
    route(board, 10, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, levels=1 << 10)
    board.wires(IOAPIC_LINES)
    board.store(EOI, 0x51)
    assert get(board, 0x24) == 0x51 | LEVEL
    assert sent(host) == 1


def test_an_eoi_of_another_vector_ends_nothing(board, host):
    route(board, 10, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, levels=1 << 10)
    board.store(EOI, 0x50)
    assert get(board, 0x24) & REMOTE_IRR
    assert sent(host) == 1


def test_an_eoi_ends_every_pin_of_the_vector(board, host):
    route(board, 10, 0x51 | LEVEL)
    route(board, 11, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, levels=3 << 10)
    board.store(EOI, 0x51)
    assert (sent(host, 24), sent(host, 25)) == (2, 2)


def test_a_level_that_is_high_when_unmasked_is_delivered(board, host):
    board.wires(IOAPIC_LINES, levels=1 << 10)
    route(board, 10, 0x51 | LEVEL)
    assert sent(host) == 1


def test_a_level_that_fell_while_masked_is_not(board, host):
    board.wires(IOAPIC_LINES, levels=1 << 10)
    board.wires(IOAPIC_LINES)
    route(board, 10, 0x51 | LEVEL)
    assert sent(host) == 0


def test_a_pulse_of_a_level_pin_is_delivered(board, host):
    route(board, 10, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, pulses=1 << 10)
    assert sent(host) == 1


def test_an_entry_made_edge_triggered_loses_remote_irr(board):
    route(board, 10, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, levels=1 << 10)
    put(board, 0x24, 0x51 | MASKED)
    put(board, 0x24, 0x51 | LEVEL | MASKED)
    assert get(board, 0x24) == 0x51 | LEVEL | MASKED


def test_remote_irr_stays_through_a_mask(board, host):
    route(board, 10, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, levels=1 << 10)
    put(board, 0x24, 0x51 | LEVEL | MASKED)
    put(board, 0x24, 0x51 | LEVEL)
    assert get(board, 0x24) & REMOTE_IRR
    assert sent(host) == 1


def test_a_new_destination_is_the_messages(board, host):
    route(board, 4, 0x31)
    put(board, 0x19, 0x0200_0000)
    assert messages(host) == [MsiConfig(0xFEE0_2000, 0x31)]


def test_only_unmasked_pins_take_an_interrupt_of_the_hosts(board, host):
    route(board, 4, 0x31 | MASKED)
    assert host.backend.irqfds == {}


def test_a_successor_has_the_messages_and_delivers_what_is_high(board, ioapic, host):
    route(board, 4, 0x31)
    route(board, 10, 0x51 | LEVEL)
    board.wires(IOAPIC_LINES, levels=1 << 10)
    state = ioapic.snapshot()
    board.wires(IOAPIC_LINES)
    other_host = InterruptHost()
    successor = IoApic()
    successor.restore(state)
    successor.attach(other_host)
    other = Board(successor)
    other.store(EOI, 0x51)
    other.wires(IOAPIC_LINES, pulses=1 << 4)
    delivered = sent(other_host, 24), sent(other_host, 25)
    other_host.close()
    assert delivered == (1, 1)


def test_without_a_host_it_answers_all_the_same():
    board = Board(IoApic())
    route(board, 4, 0x31)
    board.wires(IOAPIC_LINES, pulses=1 << 4)
    assert get(board, 0x18) == 0x31
