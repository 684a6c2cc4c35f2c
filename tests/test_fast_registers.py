"""FastRegisters: which accesses are answered in C, and that all others reach the device."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest

from shardio.address import MmioAddress
from shardio.device import MutDeviceMmio
from shardio.fabric import Outcome
from shardio.fast_registers import FastRegisters
from tests.fabric.support import BASE, MMIO, bench


class Printer(FastRegisters, MutDeviceMmio):
    """Writes down what reaches it; status at 5, data at 0."""

    def __init__(self):
        self.slow = []
        self.status_at, self.status, self.data_at, self.limit = 5, 0x60, 0, 4

    def read_slowly(self, offset, size):
        self.slow.append((offset, size))
        return 0xEE

    def write_slowly(self, offset, size, value):
        self.slow.append((offset, size, value))


def test_one_byte_of_status_is_read_without_the_device():
    printer = Printer()

    assert printer.read(5, 1) == 0x60
    assert printer.slow == []


def test_one_byte_of_data_gathers_without_the_device():
    printer = Printer()
    printer.write(0, 1, 0x41)
    printer.write(0, 1, 0x142)

    assert printer.gathered == b"\x41\x42"
    assert printer.slow == []


@pytest.mark.parametrize(("offset", "size"), [(5, 2), (4, 1), (0, 1), (-1, 1), (1 << 70, 1)])
def test_every_other_read_is_the_devices(offset, size):
    printer = Printer()

    assert printer.read(offset, size) == 0xEE
    assert printer.slow == [(offset, size)]


@pytest.mark.parametrize(("offset", "size"), [(0, 2), (1, 1), (5, 1), (-1, 1), (1 << 70, 1)])
def test_every_other_write_is_the_devices(offset, size):
    printer = Printer()
    printer.write(offset, size, 7)

    assert printer.gathered == b""
    assert printer.slow == [(offset, size, 7)]


def test_the_byte_that_ends_a_line_is_the_devices():
    printer = Printer()
    printer.slow_byte = 0x0A
    for value in (0x41, 0x0A, 0x10A, 0x42):
        printer.write(0, 1, value)

    assert printer.gathered == b"AB"
    assert printer.slow == [(0, 1, 0x0A), (0, 1, 0x10A)]


def test_nowhere_is_where_a_new_one_reads_and_gathers():
    class New(Printer):
        def __init__(self):
            self.slow = []

    new = New()
    new.read(0, 1)
    new.read(-1, 1)
    new.write(0, 1, 7)
    new.write(-1, 1, 7)

    assert new.slow == [(0, 1), (-1, 1), (0, 1, 7), (-1, 1, 7)]
    assert new.gathered == b""


def test_what_does_not_fit_is_the_devices():
    printer = Printer()
    for byte in b"abcdef":
        printer.write(0, 1, byte)

    assert printer.gathered == b"abcd"
    assert printer.slow == [(0, 1, ord("e")), (0, 1, ord("f"))]


def test_what_the_device_raises_for_a_read_reaches_the_caller():
    class Broken(Printer):
        def read_slowly(self, offset, size):
            raise KeyError(offset)

    with pytest.raises(KeyError, match="3"):
        Broken().read(3, 1)


def test_what_the_device_raises_for_a_write_reaches_the_caller():
    class Broken(Printer):
        def write_slowly(self, offset, size, value):
            raise KeyError(value)

    with pytest.raises(KeyError, match="9"):
        Broken().write(3, 1, 9)


def test_a_read_with_too_few_arguments_is_a_type_error():
    with pytest.raises(TypeError, match="got 1 arguments"):
        Printer().read(5)


def test_a_write_with_too_few_arguments_is_a_type_error():
    with pytest.raises(TypeError, match="got 2 arguments"):
        Printer().write(0, 1)


def test_the_view_form_reads_the_same():
    data = bytearray(1)
    Printer().mmio_read(MmioAddress(0xD000_0000), 5, memoryview(data))

    assert data == b"\x60"


def test_the_view_form_writes_the_same():
    printer = Printer()
    printer.mmio_write(MmioAddress(0xD000_0000), 0, memoryview(b"\x41"))

    assert printer.gathered == b"A"


def test_a_subclass_may_see_every_read():
    class Seen(Printer):
        def read(self, offset, size):
            self.slow.append("seen")
            return super().read(offset, size)

    seen = Seen()

    assert seen.read(5, 1) == 0x60
    assert seen.slow == ["seen"]


def test_a_subclass_may_see_every_write():
    class Seen(Printer):
        def write(self, offset, size, value):
            self.slow.append("seen")
            super().write(offset, size, value)

    seen = Seen()
    seen.write(0, 1, 0x41)

    assert seen.slow == ["seen"]
    assert seen.gathered == b"A"


def test_a_device_that_knows_itself_is_collected():
    printer = Printer()
    printer.itself = printer
    gone = weakref.ref(printer)
    del printer
    gc.collect()

    assert gone() is None


def test_a_shard_reads_status_without_the_device():
    printer = Printer()
    with bench() as b:
        owner, client = b.owner(), b.client()
        b.add(owner, printer)
        with b.serving(owner):
            answers = [client.read(MMIO, BASE + 5, size) for size in (1, 2)]

    assert answers == [(Outcome.ANSWERED, 0x60), (Outcome.ANSWERED, 0xEE)]
    assert printer.slow == [(5, 2)]


def test_a_shard_gathers_data_without_the_device():
    printer = Printer()
    with bench() as b:
        owner, client = b.owner(), b.client()
        b.add(owner, printer)
        with b.serving(owner):
            outcomes = [client.write(MMIO, BASE, 1, 0x41), client.write(MMIO, BASE + 1, 1, 7)]

    assert outcomes == [Outcome.ANSWERED, Outcome.ANSWERED]
    assert printer.gathered == b"A"
    assert printer.slow == [(1, 1, 7)]


def test_a_result_that_is_no_number_is_named_and_keeps_no_device():
    class Wrong(Printer):
        def read_slowly(self, offset, size):
            return None

    told = []
    with bench() as b:
        owner, client = b.owner(on_error=lambda _, error, write: told.append(str(error))), b.client()
        route = b.add(owner, Wrong())
        with b.serving(owner):
            outcome = client.read(MMIO, BASE + 2, 2)
        gone = weakref.ref(owner._kept[route.index][0])
        owner.clear_handler(route.index)
        gc.collect()
        left = gone()

    assert outcome == (Outcome.NOT_ANSWERED, 0xFFFF)
    assert [text.partition(";")[0].rpartition("Wrong.")[2] for text in told] == ["read(0x2, 2) returned None"]
    assert left is None


def test_a_device_that_is_sent_to_another_process_keeps_what_it_has():
    printer = Printer()
    printer.write(0, 1, 65)
    printer.slow.append("before")

    again = pickle.loads(pickle.dumps(printer))

    assert type(again) is Printer
    assert (again.slow, again.gathered) == (["before"], bytearray(b"A"))
    assert again.read(5, 1) == 0x60
    again.write(0, 1, 66)
    assert (again.gathered, printer.gathered) == (bytearray(b"AB"), bytearray(b"A"))
