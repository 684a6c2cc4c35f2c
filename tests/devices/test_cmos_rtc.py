"""CmosRtc's registers, and what firmware reads of the machine in its CMOS memory."""

from __future__ import annotations

import pytest

from shardio import memory
from shardio.devices import CmosRtc, DeviceOptionError
from shardio.devices.cmos_layout import LOW_MEMORY_END
from tests.devices.rtc import HOURS_24, SECONDS, SET, A, B, C, Clock, D, utc

# --- registers --------------------------------------------------------------------------------------------


def test_the_registers_at_the_start(clock):
    assert [clock.get(index) for index in (A, B, C, D)] == [0x26, HOURS_24, 0, 0x80]


def test_uip_only_shortly_before_the_second_ends(clock):
    clock.loop.now += 0.9
    assert clock.get(A) & 0x80 == 0
    clock.loop.now += 0.0985
    assert clock.get(A) & 0x80
    clock.loop.now += 0.002
    assert clock.get(A) & 0x80 == 0


def test_uip_is_off_while_set(clock):
    clock.set(B, SET | HOURS_24)
    clock.loop.now += 0.9985
    assert clock.get(A) & 0x80 == 0


def test_uip_c_and_d_are_read_only(clock):
    clock.set(A, 0xA6)
    clock.set(C, 0xFF)
    clock.set(D, 0x00)
    assert [clock.get(index) for index in (A, C, D)] == [0x26, 0, 0x80]


def test_the_divider_reset_stops_it_and_the_first_second_is_half(clock):
    clock.set(A, 0x66)
    clock.loop.now += 10
    assert clock.get(SECONDS) == 0x58
    clock.set(A, 0x26)
    clock.loop.now += 0.6
    assert clock.get(SECONDS) == 0x59


@pytest.mark.parametrize("index", [0x0E, 0x0F, 0x33, 0x40, 0x7F])
def test_nvram_keeps_what_is_written(clock, index):
    clock.set(index, 0xA5)
    assert clock.get(index) == 0xA5


def test_the_nmi_bit_of_the_index_is_ignored(clock):
    clock.set(0x80 | 0x40, 0x12)
    assert clock.get(0x40) == 0x12


def test_the_index_port_is_write_only(clock):
    assert clock.ports.read(0) == 0xFF
    assert clock.ports.read(0, size=2) & 0xFF == 0xFF


def test_a_16_bit_write_is_index_and_data(clock):
    clock.ports.write(0, 0x77_40, size=2)
    assert clock.get(0x40) == 0x77


# --- what firmware reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("64M", {0x15: 640, 0x17: 64512, 0x30: 64512, 0x34: 768}),
        ("512K", {0x15: 512, 0x17: 0, 0x30: 0, 0x34: 0}),
        ("2G", {0x15: 640, 0x17: 0xFFFF, 0x30: 0xFFFF, 0x34: 32512}),
        (8 << 30, {0x15: 640, 0x17: 0xFFFF, 0x30: 0xFFFF, 0x34: 48896}),
    ],
)
def test_memory_sizes(size, expected):
    clock = Clock(utc(2024, 1, 1), memory=size)
    assert {index: clock.get(index) | clock.get(index + 1) << 8 for index in expected} == expected


def test_memory_above_4_gib():
    clock = Clock(utc(2024, 1, 1), memory="8G")
    assert sum(clock.get(0x5B + byte) << 8 * byte for byte in range(3)) << 16 == 5 << 30


def test_low_memory_ends_where_guest_memory_says():
    assert memory.LOW_MEMORY_END == LOW_MEMORY_END


def test_the_number_of_cpus():
    assert Clock(utc(2024, 1, 1), vcpus=4).get(0x5F) == 3


def test_the_checksum_covers_0x10_to_0x2d(clock):
    total = sum(clock.get(index) for index in range(0x10, 0x2E))
    assert clock.get(0x2E) << 8 | clock.get(0x2F) == total


@pytest.mark.parametrize(
    "options", [{"memory": "lots"}, {"memory": -1}, {"vcpus": 0}, {"vcpus": 257}, {"memory": True}]
)
def test_an_option_out_of_range_is_refused_by_name(options):
    with pytest.raises(DeviceOptionError) as caught:
        CmosRtc(**options)
    assert caught.value.option in options
