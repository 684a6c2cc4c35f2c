"""`Dispatcher`: devices in shards for vCPUs that are processes of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest

from shardio import (
    AccessRefused,
    DeviceNotFound,
    DeviceOverlap,
    Dispatcher,
    FabricError,
    GuestMemory,
    MachineError,
    MmioManager,
    MmioRange,
    PioManager,
    PioRange,
    RangeTaken,
)
from shardio._core import lib
from shardio.dispatcher import EventStream
from shardio.fabric import Outcome, Port
from shardio.supervisor import events
from tests.dispatcher.devices import (
    BASE,
    MMIO,
    Adder,
    Board,
    Deadly,
    Ports,
    Slow,
    add_numbers,
    keep_open,
    read_once,
)
from tests.e2e.support import PATIENCE_S, until

METHODS = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


def dispatcher(**arguments: Any) -> Dispatcher:
    """One whose shards may be starved by a busy host without being taken for dead."""
    return Dispatcher(**{"shards": 1, "hang_deadline": PATIENCE_S, **arguments})


def value(port: Port, address: int = BASE, size: int = 4) -> int:
    """What a read through the port gives."""
    data = bytearray(size)
    port.mmio_read(address, data)
    return int.from_bytes(data, "little")


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """What `multiprocessing` starts once and keeps is there before the first test."""
    resource_tracker.ensure_running()
    forkserver.ensure_running()


# ---- ports ----


@METHODS
def test_processes_of_any_start_method_are_vcpus(method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with dispatcher(vcpus=3, shards=2) as d:
        adder = d.add(Adder, mmio=BASE)
        guests = [context.Process(target=add_numbers, args=(d.port(vcpu), 100)) for vcpu in range(3)]
        for guest in guests:
            guest.start()
        for guest in guests:
            guest.join(PATIENCE_S)

        assert [guest.exitcode for guest in guests] == [0, 0, 0]
        assert value(d.port(0)) == 3 * sum(range(100))
        assert d.statistics().devices[0].writes == 300
        assert adder.shards == ("shard0",)


def test_a_port_goes_to_a_subprocess_by_its_descriptors() -> None:
    program = (
        "import sys; from shardio import Port\n"
        "with Port.from_text(sys.argv[1]) as port:\n"
        f"    port.mmio_write({BASE}, b'\\x05\\0\\0\\0')\n"
    )
    with dispatcher() as d:
        d.add(Adder, mmio=BASE)
        port = d.port(0)
        line = [sys.executable, "-c", program, port.text]
        subprocess.run(line, pass_fds=port.descriptors, check=True, timeout=PATIENCE_S)

        assert value(port) == 5


@pytest.mark.parametrize("text", ["", "0", "a,b,c", "0,900,901", "0,1,2,3"])
def test_a_text_that_describes_no_port_is_refused(text: str) -> None:
    with pytest.raises(FabricError):
        Port.from_text(text)


def test_a_port_is_a_manager_of_both_spaces() -> None:
    with dispatcher() as d:
        d.add(Ports, pio=0x300)
        d.add(Adder, mmio=BASE, start=7)
        port = d.port(0)
        data = bytearray(1)
        port.pio_read(0x303, data)
        port.pio_write(0x303, b"\x01")

        assert isinstance(port, PioManager)
        assert isinstance(port, MmioManager)
        assert (data, value(port)) == (b"\x43", 7)
        assert port.pio_device(0x307) == (PioRange(0x300, 8), 0)
        assert port.mmio_device(BASE) == (MmioRange(BASE, 0x100), 1)
        assert (port.pio_device(0x308), port.mmio_device(2**64 - 1)) == (None, None)
        with pytest.raises(FabricError, match=r"use Dispatcher\.add"):
            port.register_mmio(MmioRange(0, 1), Adder())
        with pytest.raises(FabricError, match=r"use Dispatcher\.add"):
            port.register_pio(PioRange(0, 1), Ports())


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_what_nobody_claims_and_what_a_device_refuses_are_told_apart(write: bool) -> None:
    with dispatcher() as d:
        d.add(Ports, pio=0x300)
        port, data = d.port(0), bytearray(b"\x0d")

        def access(space: str, address: int) -> None:
            getattr(port, f"{space}_{'write' if write else 'read'}")(address, data)

        with pytest.raises(DeviceNotFound):
            access("pio", 0x308)
        with pytest.raises(DeviceNotFound):
            access("mmio", BASE)
        if write:
            with pytest.raises(AccessRefused, match="pio 0x300"):
                access("pio", 0x300)
        assert data == b"\x0d"


def test_a_port_has_one_user_at_a_time() -> None:
    context = multiprocessing.get_context("fork")
    done = context.Event()
    with dispatcher() as d:
        d.add(Adder, mmio=BASE)
        port = d.port(0)
        guest = context.Process(target=keep_open, args=(port, done))
        guest.start()
        until(lambda: d.statistics().vcpus[0].pid == guest.pid, "the process is noticed")
        with pytest.raises(FabricError, match=f"in use by process {guest.pid}"):
            value(port)
        done.set()
        guest.join(PATIENCE_S)

        assert value(port) == 0


@pytest.mark.parametrize("told", [False, True], ids=["found", "told"])
def test_what_a_killed_process_had_in_flight_is_settled(told: bool, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    context = multiprocessing.get_context("fork")
    with dispatcher() as d:
        device = d.add(Slow, mmio=BASE, gate=str(gate))
        guest = context.Process(target=read_once, args=(d.port(0),))
        guest.start()
        if told:
            d.watch(0, guest.pid or 0)
        client = d.supervisor.vcpus[0].client
        until(lambda: lib.sio_client_pending(client) >> 62 == lib.SIO_PENDING_SYNC, "it asks")
        until(lambda: d.statistics().vcpus[0].pid == guest.pid, "it is watched")
        guest.kill()
        guest.join(PATIENCE_S)
        gate.touch()
        until(lambda: lib.sio_client_pending(client) == 0, "its access is settled")
        until(lambda: d.statistics().vcpus[0].state == 0, "its port is free")
        d.remove(device)  # waits for nobody

        assert d.port(0).read(MMIO, BASE, 4) == (Outcome.NOT_ANSWERED, 0xFFFF_FFFF)


def test_the_next_user_goes_on_where_a_killed_one_stopped() -> None:
    context = multiprocessing.get_context("fork")
    killed = 0
    with dispatcher() as d:
        d.add(Adder, mmio=BASE, posted=True)
        port = d.port(0)
        while killed < 5:
            guest = context.Process(target=add_numbers, args=(port, 100_000_000))
            guest.start()
            posted = d.statistics().devices[0].posted
            until(lambda posted=posted: d.statistics().devices[0].posted > posted + 100, "it writes")  # type: ignore[misc]
            guest.kill()
            guest.join(PATIENCE_S)
            killed += 1
        before = value(port)
        port.mmio_write(BASE, b"\x01\0\0\0")

        assert value(port) == before + 1
        assert d.statistics().vcpus[0].malformed == 0


def test_a_shard_that_is_killed_while_processes_use_it_loses_nothing() -> None:
    context = multiprocessing.get_context("fork")
    with dispatcher(vcpus=4, shards=2) as d:
        for number in range(2):
            d.add(Adder, mmio=BASE + 0x1000 * number, shard=f"shard{number}", policy="replay")
        guests = [context.Process(target=add_numbers, args=(d.port(vcpu), 2000)) for vcpu in range(4)]
        for guest in guests:
            guest.start()
        until(lambda: d.statistics().devices[0].writes > 500, "they write")
        os.kill(d.statistics().shards[1].pid, signal.SIGKILL)
        for guest in guests:
            guest.join(PATIENCE_S)

        assert [guest.exitcode for guest in guests] == [0] * 4
        assert value(d.port(0)) == 4 * sum(range(2000))
        until(lambda: d.statistics().shards[1].spawns == 2, "a successor is there")
        assert value(d.port(1), BASE + 0x1000) == 0


def test_close_ends_a_wait_of_a_port(tmp_path: Path) -> None:
    told: list[object] = []
    d = dispatcher()
    d.add(Slow, mmio=BASE, gate=str(tmp_path / "never"))
    port = d.port(0)
    thread = threading.Thread(target=lambda: told.append(port.read(MMIO, BASE, 4)[0]))
    thread.start()
    client = d.supervisor.vcpus[0].client
    until(lambda: lib.sio_client_pending(client) >> 62 == lib.SIO_PENDING_SYNC, "it asks")
    with contextlib.suppress(FabricError):  # the port is in use by the thread until its wait has ended
        d.stop()
    thread.join(PATIENCE_S)
    d.close()

    assert told == [Outcome.ABORTED]


@pytest.mark.parametrize("vcpu", [-1, 2])
def test_a_vcpu_that_is_not_there_has_no_port(vcpu: int) -> None:
    with dispatcher(vcpus=2) as d, pytest.raises(MachineError, match="use 0 to 1"):
        d.port(vcpu)


# ---- devices ----


def test_devices_come_move_and_go_while_vcpus_run() -> None:
    with dispatcher() as d:
        port = d.port(0)
        adder = d.add(Adder, mmio=BASE, start=3)
        first = value(port)
        d.move(adder, mmio=BASE + 0x1000)
        moved = value(port, BASE + 0x1000)
        with pytest.raises(DeviceNotFound):
            value(port)
        d.remove("Adder")
        with pytest.raises(DeviceNotFound):
            value(port, BASE + 0x1000)

        assert (first, moved) == (3, 3)
        assert d.devices == ()
        assert d.add(Adder, mmio=BASE + 0x1000).name == "Adder"


def test_a_move_onto_another_device_changes_nothing() -> None:
    with dispatcher() as d:
        port = d.port(0)
        one = d.add(Adder, mmio=BASE, start=1)
        d.add(Adder, mmio=BASE + 0x1000, start=2)
        with pytest.raises(DeviceOverlap):
            d.move(one, mmio=BASE + 0x1080)

        assert (value(port), value(port, BASE + 0x1000)) == (1, 2)


def test_a_device_moves_before_the_start_too() -> None:
    with dispatcher() as d:
        adder = d.add(Adder, mmio=BASE, start=4)
        d.move(adder, mmio=0x1000)

        assert value(d.port(0), 0x1000) == 4


def test_a_device_without_an_address_gets_a_free_one() -> None:
    with dispatcher() as d:
        taken = d.add(Adder, mmio=0xC000_0000)
        chosen = [d.add(Adder) for _ in range(3)]
        ports = d.add(Ports)

        spans = [handle.spans[0] for handle in (taken, *chosen)]
        assert len({int(span.base) // 0x1000 for span in spans}) == 4
        assert [handle.name for handle in chosen] == ["Adder2", "Adder3", "Adder4"]
        assert isinstance(ports.spans[0], PioRange)
        assert value(d.port(0), int(chosen[2].spans[0].base)) == 0


def test_a_device_may_have_several_ranges() -> None:
    ranges = [MmioRange(BASE, 8), MmioRange(BASE + 0x100, 8)]
    with dispatcher() as d:
        d.add(Adder, ranges=ranges, start=9)

        assert [value(d.port(0), int(span.base)) for span in ranges] == [9, 9]
        with pytest.raises(MachineError, match="one of the two"):
            d.add(Adder, ranges=ranges, mmio=BASE)


def test_a_manager_of_the_users_own_answers_a_range() -> None:
    with dispatcher() as d:
        d.add(Board, mmio=BASE, size=0x100)
        port = d.port(0)
        port.mmio_write(BASE + 0x10, b"\x05\0\0\0")

        assert [value(port, BASE), value(port, BASE + 0x10)] == [1, 7]
        with pytest.raises(AccessRefused):
            value(port, BASE + 0x20)


def test_guest_ram_and_lines_are_refused_by_name() -> None:
    with GuestMemory(0x10000) as memory, dispatcher(memory=memory) as d:
        with pytest.raises(RangeTaken, match="guest RAM"):
            d.add(Adder, mmio=0x8000)
        with pytest.raises(MachineError, match="there are no lines"):
            d.add(Adder, mmio=BASE, irq=5)


def test_a_device_is_called_in_its_shard_and_a_refused_one_leaves_nothing() -> None:
    with dispatcher() as d:
        adder = d.add(Adder, mmio=BASE, start=8)
        d.start()
        with pytest.raises(MachineError, match="begin"):
            d.add(Adder, mmio=BASE + 0x1000, begin=1, name="more")

        assert adder.call("read", 0, 4) == 8
        assert d.add(Adder, mmio=BASE + 0x1000, start=1, name="more").call("read", 0, 4) == 1


@pytest.mark.parametrize("arguments", [{"vcpus": 0}, {"vcpus": 1025}, {"shards": 0}, {"hang_deadline": 0}])
def test_arguments_that_make_no_dispatcher_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(MachineError):
        Dispatcher(**arguments)


def test_use_after_its_end_is_an_error_that_calls_it_by_its_name() -> None:
    d = dispatcher()
    d.close()
    d.close()

    with pytest.raises(MachineError, match="the dispatcher is closed"):
        d.add(Adder, mmio=BASE)
    with pytest.raises(MachineError, match="the dispatcher is closed"):
        d.port(0)


# ---- events ----


async def collect(stream: EventStream, kind: type[events.Event], seen: list[events.Event]) -> None:
    """Events up to and with the first of a kind."""
    async for event in stream:
        seen.append(event)
        if isinstance(event, kind):
            return


def test_what_happens_is_told_with_names() -> None:
    async def scene() -> list[events.Event]:
        seen: list[events.Event] = []
        with dispatcher() as d:
            stream = d.events()
            d.add(Ports, pio=0x300)
            d.add(Deadly, mmio=BASE, policy="fail")
            port = d.port(0)
            loop = asyncio.get_running_loop()
            with contextlib.suppress(AccessRefused):
                await loop.run_in_executor(None, port.pio_write, 0x300, b"\x0d")
            await asyncio.wait_for(collect(stream, events.HandlerFailed, seen), PATIENCE_S)
            with contextlib.suppress(AccessRefused):
                await loop.run_in_executor(None, port.mmio_read, BASE + 8, bytearray(4))
            await asyncio.wait_for(collect(stream, events.ShardRecovered, seen), PATIENCE_S)
        return seen

    failed, died, recovered = asyncio.run(scene())

    assert isinstance(failed, events.HandlerFailed)
    assert (failed.shard, failed.device) == ("shard0", "Ports")
    assert "ValueError: thirteen" in failed.error
    assert isinstance(died, events.ShardDied)
    assert (died.shard, died.cause) == ("shard0", "SIGKILL")
    assert isinstance(recovered, events.ShardRecovered)
    assert recovered.pid != died.pid


def test_a_stream_ends_with_its_dispatcher_and_keeps_no_thread_when_it_is_cancelled() -> None:
    async def scene() -> tuple[int, bool]:
        before = threading.active_count()
        d = dispatcher()
        first, second = d.events(), d.events()
        task = asyncio.ensure_future(first.__anext__())
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        d.close()
        ended = [event async for event in second] == []
        return threading.active_count() - before, ended

    assert asyncio.run(scene()) == (0, True)


def test_a_vcpu_that_is_told_of_twice_keeps_one_descriptor() -> None:
    with dispatcher() as d:
        d.watch(0, os.getpid())
        before = len(os.listdir("/proc/self/fd"))
        d.watch(0, os.getpid())

        assert len(os.listdir("/proc/self/fd")) == before
