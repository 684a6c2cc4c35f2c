"""What `Machine` and `Machine.add` refuse before anything is made of it."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace
from typing import Any

import pytest

from shardio import DeviceOverlap, MachineError, PioRange, Shard
from shardio.devices import Counter, Echo, PciBus
from shardio.dispatcher.arguments import device_request, own_arguments
from shardio.dispatcher.claims import Claims
from shardio.dispatcher.device import Posted
from shardio.dispatcher.placement import Placement, check_shards
from shardio.shard.loading import make


def request(**given: Any) -> Any:
    """What `add` makes of a counter in memory, with these arguments."""
    return device_request(Counter, mmio=0xD000_0000, size=4, **given)


@pytest.mark.parametrize(
    ("shards", "names"),
    [
        (1, ["shard0"]),
        (64, [f"shard{n}" for n in range(64)]),
        (["a", Shard("b", cpu=1)], ["a", "b"]),
        (("a",), ["a"]),
    ],
)
def test_shards_are_a_number_or_names_or_shards(shards: Any, names: list[str]) -> None:
    check_shards(shards)

    assert Placement(shards, ()).names == names


def test_without_shards_there_are_as_many_as_the_host_has_cpus_up_to_two() -> None:
    check_shards(None)

    assert len(Placement(None, ()).names) == min(2, os.cpu_count() or 1)


@pytest.mark.parametrize("shards", [0, -1, 65, [], "ab", [1], [""], 2.0, {"a": 1}])
def test_other_shards_are_refused(shards: Any) -> None:
    with pytest.raises(MachineError, match="shard"):
        check_shards(shards)


def test_a_request_keeps_what_was_asked_for() -> None:
    made = request(shard=Shard("b"), irq=4095, posted=True)
    assert (made.shard, made.irq, made.posted, made.replicas) == ("b", 4095, Posted.RING, 1)


@pytest.mark.parametrize("irq", [-1, 4096])
def test_an_irq_that_kvm_has_not_is_refused(irq: int) -> None:
    with pytest.raises(MachineError, match=f"irq {irq}; use a line from 0 to 4095"):
        request(irq=irq)


@pytest.mark.parametrize("shard", ["", 3, Shard("")])
def test_an_owner_without_a_name_is_refused(shard: Any) -> None:
    with pytest.raises(MachineError, match="give a Shard, or a name"):
        request(shard=shard)


@pytest.mark.parametrize("device", [Counter, Echo])
@pytest.mark.parametrize("replicas", [0, -1])
def test_no_replica_is_refused(device: Any, replicas: int) -> None:
    with pytest.raises(MachineError, match=f"{replicas} replicas"):
        device_request(device, mmio=0xD000_0000, size=4, replicas=replicas)


class Sized:
    """Options whose names `add` takes, and one that it does not."""

    def __init__(self, size: int, name: str = "", colour: str = "") -> None:
        self.size, self.name, self.colour = size, name, colour

    def read(self, offset: int, size: int) -> int:
        return self.size


def sized(**given: Any) -> Any:
    """What `add` makes of it."""
    return device_request(Sized, mmio=0xD000_0000, size=4, **given)


def test_options_of_names_that_add_takes_go_into_a_dict_of_their_own() -> None:
    made = make(sized(name="lamp", options={"size": 5, "name": "own", "colour": "red"}).packed)

    assert (made.size, made.name, made.colour) == (5, "own", "red")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"size": 5, "color": "red"}, 'knows no "color"; did you mean "colour"'),
        ({"size": 5, "xyz": 1}, 'knows no "xyz"; its options: colour, name, size'),
        ({}, 'needs "size"; add `options = { size = ... }`'),
    ],
)
def test_options_that_the_constructor_does_not_take_are_refused(options: Any, why: str) -> None:
    with pytest.raises(MachineError, match=re.escape(why)):
        sized(options=options)


@pytest.mark.parametrize("name", [5, "", b"lamp"])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(MachineError, match="no device can have the name"):
        request(name=name)


def test_a_function_that_takes_anything_is_given_anything() -> None:
    made = device_request(lambda **given: Sized(**given), mmio=0xD000_0000, size=4, options={"colour": ""})

    assert made.packed.options


def test_a_devices_options_may_bring_further_ranges() -> None:
    ide = {"functions": [{"type": "shardio.devices.ide:PiixIde"}]}
    wanted = [PioRange(0xCF8, 8), PioRange(0x1F0, 8), PioRange(0x3F6, 1), PioRange(0x170, 8)]
    wanted += [PioRange(0x376, 1), PioRange(0xC000, 0x1000)]

    assert list(device_request(PciBus, pio=0xCF8, options=ide).spans) == wanted
    assert list(device_request(PciBus, pio=0xCF8).spans) == wanted[:1]
    claims = Claims()
    claims.claim(device_request(PciBus, options=ide), named=False)  # its own range is to be chosen
    with pytest.raises(DeviceOverlap, match="0x1f0"):
        claims.claim(device_request(Echo, pio=0x1F7, size=1), named=False)


@pytest.mark.parametrize("value", [True, 1.5, "", "x", b"x", [], {}, float("nan"), object()])
@pytest.mark.parametrize("key", ["pio", "mmio", "size", "irq", "replicas"])
def test_what_is_no_whole_number_is_refused_where_it_is_given(key: str, value: Any) -> None:
    """`irq=True` used to reach the shard, which could not read the message and never answered."""
    with pytest.raises(MachineError, match=f"has {key}="):
        device_request(Counter, **{"mmio": 0xD000_0000, key: value})


@pytest.mark.parametrize("value", [True, 5, "x", b"x", object(), 0.5])
@pytest.mark.parametrize("key", ["ranges", "pass_fds"])
def test_what_is_no_list_is_refused_where_it_is_given(key: str, value: Any) -> None:
    with pytest.raises(MachineError, match=f"has {key}="):
        device_request(Counter, **{key: value})


@pytest.mark.parametrize("fd", [True, "0", None, 1.0, -1, 1 << 70])
def test_what_is_no_descriptor_is_refused(fd: Any) -> None:
    with pytest.raises(MachineError, match="Counter"):
        request(pass_fds=[fd])


@pytest.mark.parametrize("value", [True, 5, "x", ["x"], 1.5])
def test_options_that_are_no_dictionary_are_refused(value: Any) -> None:
    with pytest.raises(MachineError, match="has options="):
        own_arguments(Counter, value, {})


@pytest.mark.parametrize(
    ("key", "value"), [("irq_mode", ""), ("irq_mode", []), ("policy", ""), ("policy", 0)]
)
def test_what_is_empty_is_no_default(key: str, value: Any) -> None:
    with pytest.raises(MachineError, match=f"no {key}"):
        request(**{key: value})


@pytest.mark.parametrize("irq", [24, 44, 4095])
@pytest.mark.parametrize("irq_mode", ["edge", "level", "followed"])
@pytest.mark.parametrize("interrupts", [object(), SimpleNamespace(lines=24)])
def test_a_line_that_no_controller_has_is_refused_where_it_is_given(
    irq: int, irq_mode: str, interrupts: object
) -> None:
    claims = Claims(interrupts=interrupts)

    with pytest.raises(MachineError, match=f"wants irq {irq}, and there are 24 lines"):
        claims.claim(request(irq=irq, irq_mode=irq_mode), named=False)
    assert claims.handles == {}
    claims.claim(request(irq=23, irq_mode=irq_mode), named=False)
