"""Pic: initialization, priorities, EOIs, modes, cascade, polls, spurious interrupts, ELCR, and its output.

Right values are the Intel 8259A data sheet's.
"""

from __future__ import annotations

import pytest

from shardio.address import PioAddress
from shardio.devices import Pic
from tests.devices.board import PIC_LINES, Board, InterruptHost

MASTER, SLAVE, ELCR = 0x20, 0xA0, 0x4D0
EOI, ROTATE, SPECIFIC = 0x20, 0x80, 0x40


@pytest.fixture
def host():
    host = InterruptHost()
    yield host
    host.close()


@pytest.fixture
def pic(host):
    pic = Pic()
    pic.attach(host)
    return pic


@pytest.fixture
def board(pic):
    """As a PC's firmware leaves it: vectors 0x08 and 0x70, nothing masked."""
    board = Board(pic)
    initialize(board)
    return board


def initialize(board, icw1=0x11, icw4=0x01):
    for port, base, cascade in ((MASTER, 0x08, 4), (SLAVE, 0x70, 2)):
        board.outb(port, icw1)
        board.outb(port + 1, base)
        board.outb(port + 1, cascade)
        board.outb(port + 1, icw4)


def raise_line(board, *lines):
    board.wires(PIC_LINES, pulses=sum(1 << line for line in lines))


def asks(pic):
    return pic._line.active


def test_masks_read_what_was_written(board):
    board.outb(MASTER + 1, 0xFB)
    board.outb(SLAVE + 1, 0x5A)
    assert (board.inb(MASTER + 1), board.inb(SLAVE + 1)) == (0xFB, 0x5A)


def test_a_wide_access_is_one_of_each_port(board):
    board.outb(MASTER, 0x3C0A, 2)  # OCW3: read the request register; OCW1
    raise_line(board, 1)
    assert board.inb(MASTER, 2) == 0x3C02


@pytest.mark.parametrize(("line", "vector"), [(0, 0x08), (5, 0x0D), (8, 0x70), (15, 0x77)])
def test_a_pulse_asks_and_is_acknowledged_once(board, pic, line, vector):
    raise_line(board, line)
    assert asks(pic)
    assert board.inta() == vector
    assert not asks(pic)


def test_line_2_is_the_cascade_and_nobody_elses(board, pic):
    raise_line(board, 2)
    assert not asks(pic)


def test_a_masked_request_waits(board, pic):
    board.outb(MASTER + 1, 0x20)
    raise_line(board, 5)
    assert not asks(pic)
    board.outb(MASTER + 1, 0x00)
    assert asks(pic)


def test_lower_numbers_come_first_and_hold_the_others_back(board, pic):
    raise_line(board, 6, 3, 1)
    assert board.inta() == 0x09
    assert not asks(pic)
    board.outb(MASTER, EOI)
    assert board.inta() == 0x0B
    raise_line(board, 0)
    assert board.inta() == 0x08
    board.outb(MASTER, EOI)
    assert not asks(pic)
    board.outb(MASTER, EOI)
    assert board.inta() == 0x0E


def test_registers_show_requests_and_what_is_in_service(board):
    raise_line(board, 3, 4)
    board.inta()
    board.outb(MASTER, 0x0A)
    requests = board.inb(MASTER)
    board.outb(MASTER, 0x0B)
    assert (requests, board.inb(MASTER)) == (0x10, 0x08)


def test_a_specific_eoi_ends_what_it_names(board):
    raise_line(board, 3)
    board.inta()
    raise_line(board, 1)
    board.inta()
    board.outb(MASTER, EOI | SPECIFIC | 3)
    board.outb(MASTER, 0x0B)
    assert board.inb(MASTER) == 0x02


def test_interrupts_of_the_slave_need_two_eois(board, pic):
    raise_line(board, 9)
    assert board.inta() == 0x71
    board.outb(SLAVE, 0x0B)
    board.outb(MASTER, 0x0B)
    assert (board.inb(SLAVE), board.inb(MASTER)) == (0x02, 0x04)
    raise_line(board, 8)
    assert not asks(pic)  # higher on the slave, but the master is at the slave
    board.outb(SLAVE, EOI)
    board.outb(MASTER, EOI)
    assert board.inta() == 0x70


def test_special_fully_nested_mode_lets_the_slaves_higher_requests_through(board, pic):
    initialize(board, icw4=0x11)
    raise_line(board, 12)
    assert board.inta() == 0x74
    raise_line(board, 10)
    assert asks(pic)
    assert board.inta() == 0x72


def test_a_request_of_the_slave_that_was_masked_meanwhile_is_spurious_15(board):
    raise_line(board, 9)
    board.outb(SLAVE + 1, 0xFF)
    assert board.inta() == 0x77
    board.outb(SLAVE, 0x0B)
    board.outb(MASTER, 0x0B)
    assert (board.inb(SLAVE), board.inb(MASTER)) == (0x00, 0x04)


def test_an_inta_that_nobody_asked_for_is_spurious_7(board):
    assert board.inta() == 0x0F
    board.outb(MASTER, 0x0B)
    assert board.inb(MASTER) == 0


def test_automatic_eoi(board, pic):
    initialize(board, icw4=0x03)
    raise_line(board, 4, 5)
    assert (board.inta(), board.inta()) == (0x0C, 0x0D)
    board.outb(MASTER, 0x0B)
    assert board.inb(MASTER) == 0


def test_rotation_at_automatic_eoi_makes_the_served_one_last(board):
    initialize(board, icw4=0x03)
    board.outb(MASTER, ROTATE)
    raise_line(board, 4, 5)
    board.inta()
    raise_line(board, 4)
    assert (board.inta(), board.inta()) == (0x0D, 0x0C)


def test_rotation_at_automatic_eoi_is_switched_off_again(board):
    initialize(board, icw4=0x03)
    board.outb(MASTER, ROTATE)
    board.outb(MASTER, 0x00)
    raise_line(board, 4, 5)
    board.inta()
    raise_line(board, 4)
    assert board.inta() == 0x0C


def test_an_eoi_that_rotates_makes_what_it_ends_the_last(board):
    raise_line(board, 4)
    board.inta()
    board.outb(MASTER, EOI | ROTATE)
    raise_line(board, 4, 6, 0)
    assert board.inta() == 0x0E
    board.outb(MASTER, EOI | ROTATE | SPECIFIC | 6)
    assert board.inta() == 0x08


def test_priorities_are_set_without_an_eoi(board):
    board.outb(MASTER, ROTATE | SPECIFIC | 3)
    raise_line(board, 3, 4)
    assert board.inta() == 0x0C


def test_ocw2_without_a_function_does_nothing(board):
    raise_line(board, 4)
    board.inta()
    board.outb(MASTER, SPECIFIC | 4)
    board.outb(MASTER, 0x0B)
    assert board.inb(MASTER) == 0x10


def test_special_mask_mode_lets_lower_ones_through_a_masked_one(board, pic):
    raise_line(board, 1)
    board.inta()
    board.outb(MASTER + 1, 0x02)
    raise_line(board, 6)
    assert not asks(pic)
    board.outb(MASTER, 0x68)
    assert asks(pic)
    assert board.inta() == 0x0E
    board.outb(MASTER, EOI)  # not the masked one's
    board.outb(MASTER, 0x0B)
    assert board.inb(MASTER) == 0x02
    board.outb(MASTER, 0x48)
    assert not asks(pic)


def test_a_poll_acknowledges(board, pic):
    raise_line(board, 5)
    board.outb(MASTER, 0x0C)
    assert board.inb(MASTER) == 0x85
    assert not asks(pic)
    board.outb(MASTER, 0x0B)
    assert board.inb(MASTER) == 0x20


def test_a_poll_that_finds_nothing(board):
    board.outb(MASTER, 0x0C)
    assert board.inb(MASTER) == 0
    assert board.inb(MASTER + 1) == 0  # the mask again


def test_a_poll_of_the_slave_leaves_nothing_with_the_master(board, pic):
    raise_line(board, 14)
    board.outb(SLAVE, 0x0C)
    assert board.inb(SLAVE + 1) == 0x86
    assert not asks(pic)


def test_elcr_reads_what_can_be_level_triggered(board):
    board.outb(ELCR, 0xFF)
    board.outb(ELCR + 1, 0xFF)
    assert (board.inb(ELCR), board.inb(ELCR + 1)) == (0xF8, 0xDE)


def test_a_level_line_asks_while_it_is_high(board, pic):
    board.outb(ELCR + 1, 0x04)
    board.wires(PIC_LINES, levels=1 << 10)
    assert board.inta() == 0x72
    board.outb(SLAVE, EOI)
    board.outb(MASTER, EOI)
    assert asks(pic)
    board.wires(PIC_LINES)
    # The master has latched the slave's request: it is told of a spurious one.
    assert board.inta() == 0x77


def test_a_level_line_of_the_master_that_falls_asks_no_more(board, pic):
    board.outb(ELCR, 0x20)
    board.wires(PIC_LINES, levels=1 << 5)
    assert asks(pic)
    board.wires(PIC_LINES)
    assert not asks(pic)
    assert board.inta() == 0x0F


def test_an_edge_pin_sees_one_edge_for_each_rise(board, pic):
    board.wires(PIC_LINES, levels=1 << 5)
    assert board.inta() == 0x0D
    board.outb(MASTER, EOI)
    board.wires(PIC_LINES, levels=1 << 5)
    assert not asks(pic)
    board.wires(PIC_LINES)
    board.wires(PIC_LINES, levels=1 << 5)
    assert board.inta() == 0x0D


def test_a_pulse_of_a_line_that_is_high_is_a_fall_and_a_rise(board, pic):
    board.wires(PIC_LINES, levels=1 << 5)
    board.inta()
    board.outb(MASTER, EOI)
    board.wires(PIC_LINES, pulses=1 << 5, levels=1 << 5)
    assert board.inta() == 0x0D


def test_an_edge_is_kept_though_its_line_falls(board):
    board.wires(PIC_LINES, levels=1 << 5)
    board.wires(PIC_LINES)
    assert board.inta() == 0x0D


def test_icw1_forgets_edges_and_masks_but_not_level_lines(board, pic):
    board.outb(ELCR, 0x20)
    board.outb(MASTER + 1, 0xFF)
    board.wires(PIC_LINES, pulses=1 << 4, levels=1 << 5)
    initialize(board)
    assert board.inb(MASTER + 1) == 0
    assert board.inta() == 0x0D
    board.outb(MASTER, EOI)
    board.wires(PIC_LINES)
    assert not asks(pic)


def test_icw1_can_make_every_line_level_triggered(board, pic):
    initialize(board, icw1=0x19)
    raise_line(board, 4)
    assert not asks(pic)
    board.wires(PIC_LINES, levels=1 << 4)
    assert board.inta() == 0x0C
    board.outb(MASTER, EOI)
    assert asks(pic)


def test_a_single_chip_without_icw4_has_a_short_initialization(board):
    board.outb(MASTER, 0x12)
    board.outb(MASTER + 1, 0x40)
    board.outb(MASTER + 1, 0x99)
    assert board.inb(MASTER + 1) == 0x99
    raise_line(board, 1)
    assert board.inta() == 0x41


def test_the_wires_answer_at_their_two_offsets_alone(board, pic):
    board.store(PIC_LINES + 4, 0xFFFF)
    assert board.load(PIC_LINES) == 0
    assert not asks(pic)


def test_the_output_follows_from_attach_on(board, pic, host):
    pic.detach()
    raise_line(board, 3)
    pic.attach(host)
    assert asks(pic)


def test_snapshot_and_restore(board, pic, host):
    board.outb(SLAVE + 1, 0x0F)
    raise_line(board, 1, 14)
    board.inta()
    state = pic.snapshot()
    board.outb(SLAVE + 1, 0xFF)
    successor = Pic()
    successor.restore(state)
    successor.attach(host)
    other = Board(successor)
    assert other.inb(SLAVE + 1) == 0x0F
    assert not asks(successor)
    other.outb(MASTER, EOI)
    assert other.inta() == 0x76


def test_without_a_host_it_answers_all_the_same():
    board = Board(Pic())
    initialize(board)
    raise_line(board, 3)
    assert board.inta() == 0x0B
    assert board.manager.pio_device(PioAddress(ELCR)) is not None
