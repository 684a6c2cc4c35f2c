"""A device among the adapters of a PC, at 0xA0000 to 0xDFFFF, takes its pages from guest RAM."""

from __future__ import annotations

import pytest

from shardio import MachineError, RangeTaken
from shardio.devices import Counter
from shardio.dispatcher import ExitInfo
from tests.e2e.support import NEVER, PATIENCE_S, accesses_to, add_exit_port, machine, result
from tests.guests.build import guest

pytestmark = pytest.mark.machine

PAGE = 0x1000


@pytest.mark.parametrize("base", [0xA_0000, 0xD_FFF0])
@pytest.mark.parametrize(("write", "last"), [(1, 0), (0, 7)], ids=["writes", "reads"])
def test_the_guest_reaches_it(base: int, write: int, last: int) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", ADDRESS=base, COUNT=10, WRITE=write))
        counter = vm.add(Counter, mmio=base, size=16, start=7)
        add_exit_port(vm)

        assert vm.run(PATIENCE_S) == ExitInfo("exit", status=0)
        assert accesses_to(counter.name, vm) == 10
        assert result(vm, 4) == last


@pytest.mark.parametrize("address", [0xB_6FFC, 0xB_9000, 0xE_0000])
def test_beside_it_there_is_ram(address: int) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", ADDRESS=address, COUNT=3))
        counter = vm.add(Counter, mmio=0xB_7000, size=2 * PAGE)
        add_exit_port(vm)

        assert vm.run(PATIENCE_S) == ExitInfo("exit", status=0)
        assert accesses_to(counter.name, vm) == 0
        assert vm.memory.read(address, 4) == b"\x01\0\0\0"


@pytest.mark.parametrize(("write", "seen"), [(0, 0xFFFF_FFFF), (1, 0)], ids=["read", "written"])
def test_the_rest_of_its_last_page_is_nobodys(write: int, seen: int) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", ADDRESS=0xB_8010, COUNT=3, WRITE=write))
        vm.add(Counter, mmio=0xB_8000, size=16)
        add_exit_port(vm)

        assert vm.run(PATIENCE_S) == ExitInfo("exit", status=0)
        vcpu = vm.statistics().vcpus[0]
        assert result(vm, 4) == seen
        assert vcpu.unclaimed_reads + vcpu.unclaimed_writes == 3


def test_what_a_device_would_hide_is_refused() -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop"))
        vm.load(b"picture", at=0xB_8100)
        vm.add(Counter, mmio=0xB_8000, size=PAGE, name="screen")
        with pytest.raises(MachineError, match=r"screen at .* hides what was loaded"):
            vm.start()


def test_a_running_machine_gives_no_more_of_its_ram() -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", ADDRESS=0xB_8000, COUNT=NEVER))
        counter = vm.add(Counter, mmio=0xB_8000, size=PAGE)
        vm.start()
        with pytest.raises(RangeTaken, match="before the start"):
            vm.add(Counter, mmio=0xA_0000, size=16)
        vm.remove(counter)
        vm.add(Counter, mmio=0xB_8000, size=PAGE)  # its place is still free


@pytest.mark.parametrize("base", [0x9_FFF0, 0xD_FFF8, 0xE_0000, 0xF_0000])
def test_no_other_ram_is_given(base: int) -> None:
    with machine(shards=1) as vm, pytest.raises(RangeTaken, match="guest RAM"):
        vm.add(Counter, mmio=base, size=0x20)


def test_a_small_ram_ends_with_the_hole() -> None:
    with machine(shards=1, memory="704K") as vm:  # to 0xB0000
        vm.load(guest("mmio_loop", ADDRESS=0xA_FFF0, COUNT=10, WRITE=0))
        vm.add(Counter, mmio=0xA_0000, size=0x2_0000, start=9)
        add_exit_port(vm)

        assert vm.run(PATIENCE_S) == ExitInfo("exit", status=0)
        assert result(vm, 4) == 9
