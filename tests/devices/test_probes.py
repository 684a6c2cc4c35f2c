"""Probe devices: Echo against a model of memory, Counter, Delay, Failing, Checksum; ports and memory
alike.
"""

from __future__ import annotations

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.device import is_mutable
from shardio.devices import Checksum, Counter, Delay, DeviceOptionError, Echo, Failing
from shardio.devices.probes import FNV_OFFSET, ProbeFailure, fnv1a64
from tests.devices.support import Ports

WIDTHS = st.sampled_from([1, 2, 4, 8])
ALL = [Echo, Counter, lambda: Delay(us=0), lambda: Failing(reads=False, writes=False), Checksum]


@given(st.lists(st.tuples(st.integers(0, 5000), WIDTHS, st.integers(0, (1 << 64) - 1)), max_size=30))
def test_echo_is_memory(writes):
    echo, model = Echo(), bytearray(1 << 14)
    for offset, size, value in writes:
        echo.write(offset, size, value)
        model[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    for offset, size, _ in writes:
        assert echo.read(offset, size) == int.from_bytes(model[offset : offset + size], "little")
        assert echo.read(offset + 1, size) == int.from_bytes(model[offset + 1 : offset + 1 + size], "little")


def test_echo_reads_0_before_any_write_however_far():
    assert Echo().read((1 << 64) - 8, 8) == 0


def test_echo_restores_a_copy():
    old, new = Echo(), Echo()
    old.write(4094, 4, 0x11223344)
    new.restore(old.snapshot())
    old.write(4094, 4, 0)
    assert new.read(4094, 4) == 0x11223344


@given(st.lists(st.tuples(WIDTHS, st.integers(0, (1 << 64) - 1)), max_size=20), st.integers(0, 1 << 64))
def test_counter_adds_modulo_2_64(writes, start):
    counter = Counter(start)
    for size, value in writes:
        counter.write(0, size, value)
    total = (start + sum(value for _, value in writes)) % (1 << 64)
    assert [counter.read(0, size) for size in (1, 2, 4, 8)] == [
        total % (1 << 8 * size) for size in (1, 2, 4, 8)
    ]


def test_counter_restores_its_value():
    counter = Counter()
    counter.restore(Counter(41).snapshot())
    counter.write(0, 1, 1)
    assert counter.read(0, 8) == 42


@pytest.mark.parametrize("access", [lambda delay: delay.read(0, 4), lambda delay: delay.write(0, 4, 1)])
def test_delay_takes_its_time(access):
    delay = Delay(us=2000)
    begin = time.perf_counter_ns()
    access(delay)
    assert time.perf_counter_ns() - begin >= 2_000_000
    assert delay.accesses == 1


def test_delay_counts_its_accesses():
    delay = Delay(us=0)
    delay.write(0, 1, 0)
    assert delay.read(0, 4) == 2
    successor = Delay(us=0)
    successor.restore(delay.snapshot())
    assert successor.read(0, 4) == 3


def test_failing_reads_and_writes_raise_with_the_access_in_the_error():
    failing = Failing()
    with pytest.raises(ProbeFailure, match="read of 4") as read:
        failing.read(8, 4)
    with pytest.raises(ProbeFailure, match="write of 2") as write:
        failing.write(6, 2, 1)
    assert (read.value.direction, read.value.offset, read.value.size) == ("read", 8, 4)
    assert str(pickle.loads(pickle.dumps(write.value))) == str(write.value)
    assert (failing.accesses, failing.failures) == (2, 2)


def test_failing_may_fail_in_one_direction_only():
    failing = Failing(reads=False)
    with pytest.raises(ProbeFailure):
        failing.write(0, 4, 7)
    assert failing.read(0, 4) == 0
    failing = Failing(writes=False)
    failing.write(0, 4, 7)
    with pytest.raises(ProbeFailure):
        failing.read(0, 4)


def test_failing_every_third_access():
    failing = Failing(every=3)
    failing.write(0, 1, 5)
    assert failing.read(0, 1) == 5
    successor = Failing(every=3)
    successor.restore(failing.snapshot())
    for each in (failing, successor):
        with pytest.raises(ProbeFailure):
            each.read(0, 1)
        assert each.read(0, 1) == 5
        assert (each.accesses, each.failures) == (4, 1)


@pytest.mark.parametrize(
    ("make", "option"), [(lambda: Failing(every=0), "every"), (lambda: Delay(us=-1), "us")]
)
def test_an_option_out_of_range_is_refused_by_name(make, option):
    with pytest.raises(DeviceOptionError) as caught:
        make()
    assert caught.value.option == option
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# The published test vectors of FNV-1a 64.
@pytest.mark.parametrize(
    ("data", "value"), [(b"", FNV_OFFSET), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)]
)
def test_fnv1a64(data, value):
    assert fnv1a64(data) == value


@given(st.lists(st.tuples(st.integers(0, 64), WIDTHS, st.integers(0, (1 << 64) - 1)), max_size=20))
def test_checksum_is_the_hash_of_all_that_was_written(writes):
    checksum = Checksum()
    written = b""
    for offset, size, value in writes:
        checksum.write(offset, size, value)
        written += (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    expected = fnv1a64(written)
    assert checksum.read(0, 8) == expected
    assert checksum.read(0, 4) | checksum.read(4, 4) << 32 == expected
    assert [checksum.read(at, 1) for at in range(8)] == list(expected.to_bytes(8, "little"))
    assert (checksum.read(8, 8), checksum.read(16, 4), checksum.read(24, 4)) == (len(written), len(writes), 0)


def test_checksum_depends_on_the_order():
    one, other = Checksum(), Checksum()
    one.write(0, 2, 0x0102)
    other.write(0, 2, 0x0201)
    assert one.value != other.value


def test_checksum_restores_its_state():
    checksum, successor = Checksum(), Checksum()
    checksum.write(0, 4, 0xDEADBEEF)
    successor.restore(checksum.snapshot())
    successor.write(0, 1, 1)
    assert successor.read(0, 8) == fnv1a64(b"\xef\xbe\xad\xde\x01")


@pytest.mark.parametrize("make", ALL)
@pytest.mark.parametrize("mmio", [None, 0xD000_0000])
def test_each_answers_in_a_bare_io_manager_with_one_owner(make, mmio):
    device = make()
    bus = Ports(device, 0x1000, mmio)
    bus.write(0, 0x42)
    assert 0 <= bus.read(0) <= 0xFF
    assert is_mutable(device, "pio")
    assert is_mutable(device, "mmio")
