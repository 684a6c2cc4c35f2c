"""What `Dispatcher.add` is given: arguments whose names it takes itself, descriptors, ranges, lines."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardio import DeviceOverlap, Dispatcher, MachineError, MutDevicePio
from shardio.dispatcher.arguments import device_request
from shardio.dispatcher.claims import Claims
from shardio.shard.loading import make


class Named(MutDevicePio):
    """A device with arguments whose names `add` takes."""

    pio_size = mmio_size = 4

    def __init__(self, size: int, name: str = "", colour: str = "white") -> None:
        self.arguments = (size, name, colour)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        return


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    """One that is never started."""
    with Dispatcher(vcpus=1, shards=1) as made:
        yield made


def test_options_carry_arguments_whose_names_add_takes(dispatcher: Dispatcher) -> None:
    handle = dispatcher.add(Named, pio=0x300, size=2, name="outer", options={"size": 7, "name": "inner"},
                            colour="red")

    assert (handle.name, handle.spans[0].size) == ("outer", 2)
    assert make(handle.request.packed).arguments == (7, "inner", "red")


def test_an_argument_that_is_given_twice_is_refused(dispatcher: Dispatcher) -> None:
    with pytest.raises(MachineError, match=r"'colour' of .*Named.* is given twice"):
        dispatcher.add(Named, pio=0x300, options={"size": 7, "colour": "red"}, colour="blue")


def test_one_size_for_two_ranges_is_refused(dispatcher: Dispatcher) -> None:
    with pytest.raises(MachineError, match="two ranges and one size"):
        dispatcher.add(Named, pio=0x300, mmio=0xD000_0000, size=8, options={"size": 7})


def test_a_descriptor_that_is_not_open_is_refused(dispatcher: Dispatcher) -> None:
    read, write = os.pipe()
    os.close(write)
    try:
        with pytest.raises(MachineError, match=f"descriptor {write}: Bad file descriptor"):
            dispatcher.add(Named, pio=0x300, pass_fds=[read, write], options={"size": 7})
    finally:
        os.close(read)


def test_an_overlap_names_both_devices(dispatcher: Dispatcher) -> None:
    dispatcher.add(Named, pio=0x300, name="low", options={"size": 7})

    with pytest.raises(DeviceOverlap, match=r"device high at .* overlaps device low at") as refused:
        dispatcher.add(Named, pio=0x303, name="high", options={"size": 7})

    assert (refused.value.device, refused.value.holder) == ("high", "low")


def test_a_move_onto_another_device_names_both(dispatcher: Dispatcher) -> None:
    dispatcher.add(Named, pio=0x300, name="low", options={"size": 7})
    high = dispatcher.add(Named, pio=0x400, name="high", options={"size": 7})

    with pytest.raises(DeviceOverlap, match=r"device high at .* overlaps device low at"):
        dispatcher.move(high, pio=0x302)


def test_a_device_whose_line_is_refused_leaves_its_addresses() -> None:
    claims = Claims(interrupts=None)
    with pytest.raises(MachineError, match="there are no lines"):
        claims.claim(device_request(Named, pio=0x300, irq=5, options={"size": 7}), named=False)

    handle = claims.claim(device_request(Named, pio=0x300, options={"size": 7}), named=False)

    assert handle.spans[0].base == 0x300
    assert len(claims.routes) == 1
