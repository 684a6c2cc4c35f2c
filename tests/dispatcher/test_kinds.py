"""What is called, removed or moved is named properly, or refused before a shard is asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from shardio import Dispatcher, Machine, MachineError
from shardio.devices import Counter
from shardio.dispatcher import DeviceHandle
from shardio.dispatcher.arguments import device_request
from shardio.dispatcher.placement import check_shards

MMIO = 0xD000_0000


@pytest.fixture(scope="module")
def counter() -> Iterator[tuple[Dispatcher, DeviceHandle]]:
    """One running dispatcher for all: none of these may harm it."""
    with Dispatcher(shards=1) as d:
        handle = d.add(Counter, mmio=MMIO)
        d.start()
        yield d, handle
        assert [shard.spawns for shard in d.statistics().shards] == [1]


@pytest.mark.parametrize("method", [5, None, "", b"read", "\udcff", ["read"]])
def test_a_method_without_a_proper_name_is_refused(
    counter: tuple[Dispatcher, DeviceHandle], method: Any
) -> None:
    """Its shard could not read the message: it left the caller to wait."""
    with pytest.raises(MachineError, match="has no method"):
        counter[1].call(method)


@pytest.mark.parametrize("argument", [threading.Lock(), (n for n in (1,)), threading.current_thread()])
def test_what_cannot_be_sent_to_a_shard_is_refused(
    counter: tuple[Dispatcher, DeviceHandle], argument: object
) -> None:
    with pytest.raises(MachineError, match=r"Counter\.restore\(\) is given what cannot be sent"):
        counter[1].call("restore", argument)


@pytest.mark.parametrize("device", [5, None, b"Counter", ["Counter"], "Lamp", "\udcff"])
@pytest.mark.parametrize("use", ["remove", "move"])
def test_what_is_no_device_is_neither_removed_nor_moved(
    counter: tuple[Dispatcher, DeviceHandle], use: str, device: Any
) -> None:
    with pytest.raises(MachineError, match="there is no device"):
        getattr(counter[0], use)(device)


@pytest.mark.parametrize("base", [True, 1.5, "x", b"x", [], object()])
@pytest.mark.parametrize("space", ["pio", "mmio"])
def test_a_device_is_moved_to_a_number_alone(
    counter: tuple[Dispatcher, DeviceHandle], space: str, base: Any
) -> None:
    with pytest.raises(MachineError, match=f"has {space}="):
        counter[0].move(counter[1], **{space: base})


def test_a_name_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(MachineError, match="can have the name"):
        device_request(Counter, mmio=MMIO, name="\udcff")
    with pytest.raises(MachineError, match="no shard"):
        check_shards(["\udcff"])


@pytest.mark.parametrize("value", [True, 1.5, "", "1", b"x", [], {}, float("nan"), object()])
@pytest.mark.parametrize("key", ["vcpus", "max_ranges", "stdin"])
@pytest.mark.parametrize("kind", [Dispatcher, Machine])
def test_a_dispatcher_of_no_whole_numbers_is_refused_where_it_is_made(
    kind: Any, key: str, value: Any
) -> None:
    with pytest.raises(MachineError, match=f"has {key}="):
        kind(**{key: value})


@pytest.mark.parametrize("value", [True, "1", None, [], -1.0, 0, float("nan")])
def test_a_deadline_that_is_no_time_is_refused(value: Any) -> None:
    with pytest.raises(MachineError, match="hang deadline"):
        Dispatcher(hang_deadline=value)


@pytest.mark.parametrize("fd", [-1, -2, 1 << 70])
def test_what_can_be_no_descriptor_is_no_standard_input(fd: int) -> None:
    """To `subprocess`, which starts the shards, -1 is a pipe that nobody has."""
    with pytest.raises(MachineError, match="no descriptor"):
        Dispatcher(stdin=fd)
