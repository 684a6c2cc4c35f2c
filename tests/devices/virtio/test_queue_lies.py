"""`shardio.devices.virtio.queue` against a driver that lies: each broken rule is refused by its name."""

from __future__ import annotations

import pickle

import pytest

from shardio.devices.virtio.errors import QueueError
from shardio.devices.virtio.queue import INDIRECT_LIMIT, VirtQueue
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import INDIRECT, NEXT, RAM, WRITE, ModelDriver


def refused(driver: ModelDriver, rule: str, *, indirect: bool = True) -> None:
    with pytest.raises(QueueError, match=rule):
        driver.queue(indirect=indirect).pop()


def test_more_chains_than_entries(driver: ModelDriver) -> None:
    driver.put_u16(driver.avail + 2, 9)
    refused(driver, "more chains are available")


def test_a_head_outside_the_table(driver: ModelDriver) -> None:
    driver.offer(8)
    refused(driver, "head is outside")


def test_a_head_offered_twice_while_in_flight(driver: ModelDriver) -> None:
    queue = driver.queue()
    driver.offer(driver.add([b"x"]))
    queue.pop()

    with pytest.raises(QueueError, match="in flight already"):
        queue.pop()


@pytest.mark.parametrize("length", [0, 1])
def test_a_loop(driver: ModelDriver, length: int) -> None:
    driver.put_desc(0, 0x20000, length, NEXT, 1)
    driver.put_desc(1, 0x20000, length, NEXT, 0)
    driver.offer(0)
    refused(driver, "loops")


def test_a_chain_of_the_whole_table_is_no_loop(driver: ModelDriver) -> None:
    driver.add([b"x"] * 8)
    assert driver.queue().pop() is not None


def test_next_outside_the_table(driver: ModelDriver) -> None:
    driver.put_desc(0, 0x20000, 1, NEXT, 8)
    driver.offer(0)
    refused(driver, "next is outside")


@pytest.mark.parametrize("address", [RAM, RAM - 1, 2**64 - 1, 0xD000_0000])
@pytest.mark.parametrize("flags", [0, WRITE, INDIRECT])
def test_an_address_outside_ram(driver: ModelDriver, address: int, flags: int) -> None:
    driver.put_desc(0, address, 16, flags)
    driver.offer(0)
    refused(driver, "outside guest RAM")


def test_a_length_that_wraps_the_address_space(driver: ModelDriver) -> None:
    driver.put_desc(0, 2**64 - 8, 0x20, WRITE)
    driver.offer(0)
    refused(driver, "outside guest RAM")


def test_a_chain_of_four_gigabytes(driver: ModelDriver) -> None:
    driver.put_desc(0, 0, RAM, NEXT, 1)
    driver.put_desc(1, 0, 2**32 - 1, 0)
    driver.offer(0)
    refused(driver, "4 GiB")


def test_a_readable_buffer_after_a_writable_one(driver: ModelDriver) -> None:
    driver.put_desc(0, 0x20000, 1, NEXT | WRITE, 1)
    driver.put_desc(1, 0x20000, 1, 0)
    driver.offer(0)
    refused(driver, "after a device-writable")


def test_an_indirect_descriptor_that_was_not_negotiated(driver: ModelDriver) -> None:
    driver.add([b"x"], indirect=True)
    refused(driver, "not negotiated", indirect=False)


def test_an_indirect_descriptor_with_a_next_one(driver: ModelDriver) -> None:
    driver.put_desc(0, 0x20000, 16, INDIRECT | NEXT, 1)
    driver.offer(0)
    refused(driver, "with a next one")


@pytest.mark.parametrize("length", [0, 8, 17, 16 * (INDIRECT_LIMIT + 1)])
def test_an_indirect_table_of_no_whole_size(driver: ModelDriver, length: int) -> None:
    driver.put_desc(0, 0x20000, length, INDIRECT)
    driver.offer(0)
    refused(driver, "whole descriptors")


def test_an_indirect_table_inside_another(driver: ModelDriver) -> None:
    driver.memory.write(0x20000, bytes(12) + b"\x04\x00\x00\x00")
    driver.put_desc(0, 0x20000, 16, INDIRECT)
    driver.offer(0)
    refused(driver, "inside an indirect table")


def test_a_loop_inside_an_indirect_table(driver: ModelDriver) -> None:
    driver.memory.write(0x20000, bytes(12) + b"\x01\x00\x00\x00")
    driver.put_desc(0, 0x20000, 16, INDIRECT)
    driver.offer(0)
    refused(driver, "loops")


def test_every_descriptor_is_read_once(memory: GuestMemory) -> None:
    """A driver that rewrites a descriptor after the device looked at it changes nothing: no second load."""
    driver = ModelDriver(memory)
    queue = driver.queue()
    driver.add([b"good"])
    chain = queue.pop()
    driver.put_desc(0, 2**63, 0xFFFFFFFF, WRITE)

    assert chain is not None
    assert b"".join(chain.readable) == b"good"


@pytest.mark.parametrize("size", [0, 3, 65536, -4])
def test_a_size_that_is_no_power_of_two(memory: GuestMemory, size: int) -> None:
    with pytest.raises(QueueError, match="power of two"):
        VirtQueue(memory, size, 0x1000, 0x2000, 0x3000)


@pytest.mark.parametrize(
    "tables", [(0x1008, 0x2000, 0x3000), (0x1000, 0x2001, 0x3000), (0x1000, 0x2000, 0x3002)]
)
def test_a_misaligned_table(memory: GuestMemory, tables: tuple[int, int, int]) -> None:
    with pytest.raises(QueueError, match="aligned"):
        VirtQueue(memory, 8, *tables)


@pytest.mark.parametrize("tables", [(RAM - 16, 0, 0), (0, RAM - 16, 0), (0, 0, RAM - 16)])
def test_a_table_outside_ram(memory: GuestMemory, tables: tuple[int, int, int]) -> None:
    with pytest.raises(QueueError, match="outside guest RAM"):
        VirtQueue(memory, 8, *tables)


def test_the_error_survives_pickling() -> None:
    error = QueueError("head is outside the descriptor table", head=9)

    copy = pickle.loads(pickle.dumps(error))

    assert (str(copy), copy.rule, copy.values) == (str(error), error.rule, {"head": 9})


def test_a_byte_less_than_four_gigabytes_is_too_long_for_this_ram_alone(driver: ModelDriver) -> None:
    driver.put_desc(0, 0, 2**32 - 1, 0)
    driver.offer(0)
    refused(driver, "outside guest RAM")
