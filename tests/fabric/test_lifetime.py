"""What is held, or used, beyond its time: by a device, by another thread, after `close`, from a handler.

What would crash if it went wrong runs in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest

from shardio import FabricError, MmioRange, MutDeviceMmio
from shardio._core import ffi
from shardio.fabric import Outcome, Owner, Port
from tests.fabric.support import BASE, MMIO, Log, bench, fresh_fabric

PREAMBLE = """
import threading
from shardio import FabricError
from shardio.fabric import Port, Owner
from tests.fabric.support import BASE, MMIO, bench, fresh_fabric
from tests.fabric.test_lifetime import Doing, Keeper, each
"""


def in_a_process(code: str) -> str:
    """What the program prints; it must end well."""
    program = PREAMBLE + textwrap.dedent(code)
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


class Keeper(MutDeviceMmio):
    """Keeps every view that it is given."""

    def __init__(self) -> None:
        self.kept: list[memoryview] = []

    def mmio_read(self, base: int, offset: int, data: memoryview) -> None:
        self.kept.append(data)

    def mmio_write(self, base: int, offset: int, data: memoryview) -> None:
        self.kept.append(data)


class Doing(MutDeviceMmio):
    """Calls `action` in each access, and keeps what it raised."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.raised: list[FabricError] = []

    def read(self, offset: int, size: int) -> int:
        try:
            self.action()
        except FabricError as error:
            self.raised.append(error)
        return 7

    def write(self, offset: int, size: int, value: int) -> None:
        self.read(offset, size)


# ---- the views that handlers get ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_view_that_a_device_keeps_outlives_its_owner(size: int) -> None:
    keeper, written = Keeper(), 0x1122_3344_5566_7788 >> (64 - 8 * size)
    with bench() as b:
        owner, client = b.owner(), b.client()
        b.add(owner, keeper)
        with b.serving(owner):
            client.read(MMIO, BASE, size)
            client.write(MMIO, BASE, size, written)

    for_read, for_write = keeper.kept
    seen = bytes(for_write)
    for_read[:] = bytes(range(size))

    assert seen == written.to_bytes(size, "little")
    assert bytes(for_write) == bytes(range(size))
    assert (for_read.readonly, for_write.readonly) == (False, True)
    assert [(view.nbytes, view.format) for view in keeper.kept] == [(size, "B")] * 2


AT_EXIT = """
    import atexit

    class Late(Keeper):
        def mmio_write(self, base, offset, data):
            super().mmio_write(base, offset, data)
            atexit.register(lambda: print("exit", bytes(data).hex()))

        def __del__(self):
            print("del", bytes(self.kept[0]).hex())

    with bench() as b:
        owner, client = b.owner(), b.client()
        b.add(owner, Late())
        with b.serving(owner):
            client.write(MMIO, BASE, 4, 0x44332211)
        go, at = threading.Event(), owner._kept[0][0].kept[0]
        thread = threading.Thread(target=lambda: (go.wait(), print("thread", bytes(at).hex())))
        thread.start()
    go.set()
    thread.join()
"""


def test_a_kept_view_may_be_looked_at_from_a_thread_and_when_the_interpreter_ends() -> None:
    assert sorted(in_a_process(AT_EXIT).split()) == sorted(["exit", "del", "thread", *["11223344"] * 3])


def test_what_a_view_is_of_cannot_be_resized_under_the_owner() -> None:
    class Resizing(MutDeviceMmio):
        def mmio_read(self, base: int, offset: int, data: memoryview) -> None:
            memory = data.obj
            assert isinstance(memory, bytearray)
            data.release()
            memory.extend(bytes(4096))

        def mmio_write(self, base: int, offset: int, data: memoryview) -> None:
            pass

    failed: list[str] = []
    with bench() as b:
        owner, client = b.owner(on_error=lambda *told: failed.append(type(told[1]).__name__)), b.client()
        b.add(owner, Resizing())
        with b.serving(owner):
            outcome, _ = client.read(MMIO, BASE, 4)
    assert (outcome, failed) == (Outcome.NOT_ANSWERED, ["BufferError"])


# ---- an owner that is at work ------------------------------------------------------------------------------


def each(owner: Owner) -> dict[str, Callable[[], object]]:
    """Everything that one can ask of an owner, but `raise_line`."""
    return {
        "close": owner.close,
        "turn": lambda: owner.turn(1000),
        "scan": owner.scan,
        "flush": owner.flush,
        "clear_handler": lambda: owner.clear_handler(0),
        "set_handler": lambda: owner.set_handler(0, MmioRange(BASE, 4), Log()),
        "drain_also": lambda: owner.drain_also(None),
    }


ACTIONS = ["close", "turn", "scan", "flush", "clear_handler", "set_handler", "drain_also"]
AT_WORK = "the owner of shard 0 is at work; use it from one thread, not from its handlers"


def test_a_handler_that_uses_its_own_owner_is_refused() -> None:
    told = in_a_process("""
        with bench() as b:
            owner, client = b.owner(), b.client()
            actions = iter(each(owner).values())
            device = Doing(lambda: next(actions)())
            b.add(owner, device)
            with b.serving(owner):
                for _ in each(owner):
                    assert client.read(MMIO, BASE, 4) == (0, 7)
            print(*device.raised, sep="\\n")
    """)
    assert told.splitlines() == [AT_WORK] * len(ACTIONS)


def test_posted_writes_go_on_when_a_handler_would_remove_itself() -> None:
    told = in_a_process("""
        with bench(posted_slots=64) as b:
            owner, client = b.owner(), b.client()
            device = Doing(each(owner)["clear_handler"])
            b.add(owner, device, posted=True)
            for value in range(8):
                client.write(MMIO, BASE, 4, value)
            print(owner.scan(), len(device.raised))
    """)
    assert told.split() == ["8", "8"]


def test_another_thread_is_refused_while_an_owner_turns() -> None:
    told = in_a_process("""
        with bench() as b:
            owner, client = b.owner(), b.client()
            inside, go = threading.Event(), threading.Event()
            b.add(owner, Doing(lambda: (inside.set(), go.wait(20))))
            with b.serving(owner):
                threading.Thread(target=client.read, args=(MMIO, BASE, 4)).start()
                inside.wait(20)
                for action in each(owner).values():
                    try:
                        action()
                    except FabricError as error:
                        print(error)
                go.set()
    """)
    assert told.splitlines() == [AT_WORK] * len(ACTIONS)


# ---- after close -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS[1:])
def test_a_closed_owner_says_so(action: str) -> None:
    with fresh_fabric(1, 1, 8, 8) as fabric:
        owner = Owner(fabric, 0)
        owner.close()
        owner.close()

        with pytest.raises(FabricError, match="the owner of shard 0 is closed"):
            each(owner)[action]()
        assert owner.raise_line(4) is False


AFTER_CLOSE = """
    fabric = fresh_fabric(1, 1, 8, 8)
    client, owner = Port(fabric, 0), Owner(fabric, 0)
    fabric.close()
    for use in (
        lambda: client.read(MMIO, BASE, 4), lambda: client.write(MMIO, BASE, 4, 1),
        lambda: client.read_string(MMIO, BASE, 4, 2),
        lambda: client.write_string(MMIO, BASE, 4, bytes(8)),
        owner.scan, owner.flush, lambda: owner.turn(1000),
        lambda: Port(fabric, 0), lambda: Owner(fabric, 0),
        lambda: fabric.waits(0, 0), lambda: fabric.service(0, 0), lambda: fabric.progress(0),
        lambda: fabric.vcpu_counters(0), lambda: fabric.shard_counters(0), lambda: fabric.clear_statistics(0),
    ):
        try:
            use()
        except FabricError as error:
            print(error.message)
    owner.close()
"""


def test_whatever_uses_a_closed_fabric_says_so() -> None:
    assert in_a_process(AFTER_CLOSE).splitlines() == ["the fabric is closed"] * 15


WHILE_IN_USE = """
    with bench() as b:
        owner, client = b.owner(), b.client()
        inside, go, ends = threading.Event(), threading.Event(), []
        b.add(owner, Doing(lambda: (inside.set(), go.wait(20))))

        def turn():
            try:
                while owner.turn(1_000_000) is not None:
                    pass
            except FabricError as error:
                ends.append(error.message)

        def read():
            ends.append(client.read(MMIO, BASE, 4))

        threads = [threading.Thread(target=turn), threading.Thread(target=read)]
        for thread in threads:
            thread.start()
        inside.wait(20)
        b.fabric.close()
        go.set()
        for thread in threads:
            thread.join()
        print(*sorted(ends, key=str), sep="\\n")
"""


def test_an_access_in_flight_ends_as_it_would_when_the_fabric_is_closed() -> None:
    assert in_a_process(WHILE_IN_USE).splitlines() == [str((Outcome.ANSWERED, 7)), "the fabric is closed"]


def test_a_segment_is_unmapped_when_it_is_closed_and_nobody_uses_it() -> None:
    with fresh_fabric(1, 1, 8, 8) as fabric:
        client = Port(fabric, 0)
        base = int(ffi.cast("uintptr_t", fabric.view.base))
        steps = [mapped(base)]
    steps.append(mapped(base))
    del client
    steps.append(mapped(base))
    assert steps == [True, True, False]


def test_an_owners_mapping_goes_when_it_is_closed() -> None:
    with fresh_fabric(1, 1, 8, 8) as fabric:
        before = segments()
        owner = Owner(fabric, 0)
        steps = [segments() - before]
        owner.close()
        steps.append(segments() - before)
    assert steps == [1, 0]


def segments() -> int:
    """How many mappings of fabrics this process has."""
    with open("/proc/self/maps") as maps:
        return sum("/memfd:fabric" in line for line in maps)


def mapped(address: int) -> bool:
    """Whether a mapping of this process begins there."""
    with open("/proc/self/maps") as maps:
        return any(int(line.partition("-")[0], 16) == address for line in maps)


def test_statistics_may_be_read_while_another_thread_closes_the_fabric() -> None:
    told = in_a_process("""
        def look(fabric):
            try:
                while True:
                    for vcpu in range(fabric.vcpus):
                        fabric.waits(vcpu, 3), fabric.vcpu_counters(vcpu)
            except FabricError as error:
                print(error.message)

        for _ in range(50):
            fabric = fresh_fabric(64, 8, 64, 8)
            thread = threading.Thread(target=look, args=(fabric,))
            thread.start()
            fabric.close()
            thread.join()
    """)
    assert told.splitlines() == ["the fabric is closed"] * 50


# ---- one client, two threads -------------------------------------------------------------------------------


def test_a_second_thread_is_refused_while_a_client_waits() -> None:
    inside, go = threading.Event(), threading.Event()
    with bench() as b:
        owner, client = b.owner(), b.client()
        b.add(owner, Doing(lambda: (inside.set(), go.wait(20))))
        with b.serving(owner):
            answers: list[object] = []
            thread = threading.Thread(target=lambda: answers.append(client.read(MMIO, BASE, 4)))
            thread.start()
            inside.wait(20)
            try:
                with pytest.raises(FabricError, match="port of vCPU 0 is at work"):
                    client.read(MMIO, BASE, 4)
                with pytest.raises(FabricError, match="port of vCPU 0 is at work"):
                    client.write(MMIO, BASE, 4, 1)
            finally:
                go.set()
                thread.join()
        assert answers == [(Outcome.ANSWERED, 7)]
        assert b.fabric.vcpu_counters(0).malformed == 0


@pytest.mark.parametrize("use", ["waits", "service", "vcpu_counters", "shard_counters", "progress"])
@pytest.mark.parametrize("number", [-1, 64, 2**40])
def test_counters_of_nobody_are_refused(use: str, number: int) -> None:
    with fresh_fabric(2, 2, 8, 8) as fabric, pytest.raises(FabricError, match="in a fabric of 2"):
        getattr(fabric, use)(number, *[0] * (use in ("waits", "service")))
