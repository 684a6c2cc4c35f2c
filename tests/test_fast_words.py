"""FastWords: which accesses are moved in C, that all others reach the device, and what a mark tells."""

from __future__ import annotations

import pytest

from shardio.device import MutDevicePio
from shardio.fast_words import FastWords, hide, let_go, mark_in, show
from shardio.mark import Mark
from shardio.persistent import Journal

BLOCK = bytes(range(1, 17))


class Drive(FastWords, MutDevicePio):
    """Writes down what reaches it."""

    def __init__(self):
        self.slow = []
        self.block = bytearray(BLOCK)
        show(self, self.block)
        self.quick_in = self.quick_out = 14

    def read_slowly(self, offset, size):
        self.slow.append((offset, size))
        return 0xEE

    def write_slowly(self, offset, size, value):
        self.slow.append((offset, size, value))


def test_words_are_read_one_after_the_other_without_the_device():
    drive = Drive()

    assert [drive.read(0, size) for size in (2, 4, 2)] == [0x0201, 0x06050403, 0x0807]
    assert (drive.at, drive.slow) == (8, [])


def test_words_are_written_one_after_the_other_without_the_device():
    drive = Drive()
    for size, value in ((2, 0xAABB), (4, 0xF1F2F3F4), (2, 0x1_0000)):
        drive.write(0, size, value)

    assert drive.block == bytes.fromhex("bbaa f4f3f2f1 0000") + BLOCK[8:]
    assert (drive.at, drive.slow) == (8, [])


ELSE = [(0, 1), (0, 8), (1, 2), (-1, 2), (1 << 70, 2), (0, 1 << 70), (0, -2)]


@pytest.mark.parametrize(("offset", "size"), ELSE)
def test_every_other_read_is_the_devices(offset, size):
    drive = Drive()

    assert drive.read(offset, size) == 0xEE
    assert (drive.at, drive.slow) == (0, [(offset, size)])


@pytest.mark.parametrize(("offset", "size"), ELSE)
def test_every_other_write_is_the_devices(offset, size):
    drive = Drive()
    drive.write(offset, size, 7)

    assert drive.block == BLOCK
    assert (drive.at, drive.slow) == (0, [(offset, size, 7)])


@pytest.mark.parametrize("at", [-1, -(1 << 63), (1 << 63) - 1, (1 << 63) - 2, 1 << 40])
def test_a_place_outside_of_the_block_is_the_devices(at):
    drive = Drive()
    drive.at = at
    drive.read(0, 2)
    drive.write(0, 2, 7)

    assert (drive.block, drive.at) == (BLOCK, at)
    assert drive.slow == [(0, 2), (0, 2, 7)]


@pytest.mark.parametrize(("size", "at"), [(2, 12), (4, 10), (4, 12)])
def test_the_last_quick_access_ends_at_the_limit(size, at):
    drive = Drive()
    drive.at = at
    quick = at + size <= 14
    drive.read(0, size)
    drive.at = at
    drive.write(0, size, 7)

    assert drive.slow == ([] if quick else [(0, size), (0, size, 7)])


@pytest.mark.parametrize("at", [-2, 15, 16, 1 << 40])
def test_no_number_of_the_devices_leads_out_of_the_block(at):
    drive = Drive()
    drive.at, drive.quick_in, drive.quick_out = at, 1 << 62, 1 << 62
    drive.read(0, 2)
    drive.write(0, 2, 7)

    assert drive.slow == [(0, 2), (0, 2, 7)]
    assert drive.block == BLOCK


@pytest.mark.parametrize("value", [-1, 2.5, None])
def test_what_is_no_register_value_writes_nothing_else(value):
    drive = Drive()
    drive.write(0, 2, value)

    assert drive.block[2:] == BLOCK[2:]


def test_a_block_stays_while_it_is_shown():
    drive = Drive()
    with pytest.raises(BufferError):
        drive.block.clear()
    drive.block = None

    assert drive.read(0, 2) == 0x0201


def test_bytes_that_cannot_be_written_are_refused():
    with pytest.raises(TypeError, match="bytearray"):
        show(Drive(), memoryview(b"abcd"))


def test_a_hidden_block_is_not_moved():
    drive = Drive()
    hide(drive)
    drive.block.clear()  # nobody holds it
    drive.read(0, 2)

    assert drive.slow == [(0, 2)]


def test_a_mark_says_how_far_it_came_by_which_access():
    memory, journal = bytearray(Mark.BYTES), Journal()
    drive, drive.serial = Drive(), 5
    mark_in(drive, memoryview(memory), journal.control_at)
    journal.name(7, 1)
    drive.read(0, 2)
    read = Mark(memoryview(memory)).get()
    journal.name(8, 0)
    drive.write(0, 4, 0)
    written = Mark(memoryview(memory)).get()
    let_go(drive)
    drive.read(0, 2)

    assert read == ((7, 1), 5 << 40 | 0 << 20 | 2)
    assert written == ((8, 0), 5 << 40 | 2 << 20 | 6)
    assert Mark(memoryview(memory)).get() == written


def test_wrong_numbers_of_arguments_are_told():
    with pytest.raises(TypeError, match="offset and size"):
        Drive().read(0)
    with pytest.raises(TypeError, match="offset, size and value"):
        Drive().write(0, 2)
