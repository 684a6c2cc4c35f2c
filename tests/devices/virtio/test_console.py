"""`shardio.devices.virtio.console`: bytes between a driver and the host's side."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from shardio.devices.virtio import VirtioMmioConsole, mmio
from shardio.errors import DeviceOptionError
from shardio.memory import GuestMemory
from tests.devices.virtio.guest import Host, MmioGuest, run, started, until

RECEIVE, TRANSMIT = 0, 1


def test_output_reaches_the_host_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with started(VirtioMmioConsole(output=f"file:{tmp_path / 'out'}"), MmioGuest) as guest:
            guest.queues[TRANSMIT].add([b"hello ", b"shard"])
            guest.queues[TRANSMIT].add([b"\n" * 10000])
            guest.notify(TRANSMIT)
            assert len(await guest.collected(TRANSMIT, 2)) == 2
        assert (tmp_path / "out").read_bytes() == b"hello shard" + b"\n" * 10000

    run(test)


def test_input_waits_for_a_buffer_and_fills_it() -> None:
    async def test() -> None:
        reader, writer = os.pipe()
        device = VirtioMmioConsole(source=f"fd:{reader}", output="null")
        async with started(device, MmioGuest) as guest:
            os.write(writer, b"typed")
            await asyncio.sleep(0)
            guest.queues[RECEIVE].add(writable=[3])
            guest.queues[RECEIVE].add(writable=[16])
            guest.notify(RECEIVE)
            done = await guest.collected(RECEIVE, 2)
            assert [content[:written] for _, written, content in done] == [b"typ", b"ed"]
        os.close(reader)
        os.close(writer)

    run(test)


def test_a_descriptor_that_was_not_handed_over_is_refused(
    memory: GuestMemory, loop: asyncio.AbstractEventLoop
) -> None:
    host = Host(memory, loop, passed_fds={})

    with pytest.raises(DeviceOptionError, match="source = 'fd:1'"):
        VirtioMmioConsole(source="fd:1", output="null").attach(host)
    with pytest.raises(DeviceOptionError, match="output = 'fd:1'"):
        VirtioMmioConsole(output="fd:1").attach(host)


def test_input_that_comes_later_finds_the_buffer() -> None:
    async def test() -> None:
        reader, writer = os.pipe()
        async with started(VirtioMmioConsole(source=f"fd:{reader}", output="null"), MmioGuest) as guest:
            guest.queues[RECEIVE].add(writable=[16])
            guest.notify(RECEIVE)
            await asyncio.sleep(0)
            os.write(writer, b"x")
            [(_, written, content)] = await guest.collected(RECEIVE, 1)
            assert content[:written] == b"x"
        os.close(reader)
        os.close(writer)

    run(test)


def test_a_full_host_side_holds_the_driver_back() -> None:
    async def test() -> None:
        reader, writer = os.pipe()
        async with started(VirtioMmioConsole(output=f"fd:{writer}"), MmioGuest) as guest:
            total = 2 << 20  # more than the output's backlog may hold
            for _ in range(4):
                guest.queues[TRANSMIT].add([bytes(total // 8)] * 2)
            guest.notify(TRANSMIT)
            got = 0
            os.set_blocking(reader, False)

            def drain() -> bool:
                nonlocal got
                try:
                    got += len(os.read(reader, 1 << 16))
                except BlockingIOError:
                    return False
                return got == total

            await until(drain)
            assert len(await guest.collected(TRANSMIT, 4)) == 4
        os.close(reader)
        os.close(writer)

    run(test)


def test_an_emergency_write_needs_no_queue(tmp_path: Path) -> None:
    async def test() -> None:
        async with started(VirtioMmioConsole(output=f"file:{tmp_path / 'out'}"), MmioGuest) as guest:
            guest.set(mmio.STATUS, 0)
            guest.device.write(mmio.CONFIG + 8, 4, ord("!"))
        assert (tmp_path / "out").read_bytes() == b"!"

    run(test)


def test_the_configuration_tells_the_size() -> None:
    device = VirtioMmioConsole(output="null", columns=132, rows=43)

    assert (device.read(mmio.CONFIG, 2), device.read(mmio.CONFIG + 2, 2)) == (132, 43)
    device.detach()
