"""`Machine.trace` under guests, on each kind of CPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from shardio import Machine
from shardio.trace import Access, Interrupt, Life
from shardio.trace.values import Way
from tests.e2e.support import PATIENCE_S, accesses_to, add_exit_port, machine, until
from tests.guests.build import guest
from tests.trace.reading import read

COUNT = 500
UART_SET_UP = 3
DELIVERED = {"kvm": set[int](), "soft": {0}}
"""vCPUs whose workers take vectors themselves; KVM's come from the kernel, which nobody sees here."""


@pytest.mark.machine
@pytest.mark.parametrize("write", [False, True])
def test_a_guests_accesses_are_traced_in_their_order(write: bool, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with machine(shards=2, vcpus=1) as vm:
        vm.load(guest("pio_loop", COUNT=COUNT, PORT=0x210, WIDTH=4, WRITE=int(write)))
        vm.add("tests.e2e.devices:Sequencer", pio=0x210, size=0x10, name="counter", shard="one")
        add_exit_port(vm, shard="two")
        vm.trace("counter", file=file)
        vm.run(PATIENCE_S)
        [counter] = [device for device in vm.statistics().devices if device.name == "counter"]
    chart = read(file)

    assert counter.reads + counter.writes == COUNT
    assert len(chart.on("vCPU 0")) == len(chart.on("counter @one")) == len(chart.flows) == COUNT
    assert {each.name for each in chart.on("counter @one")} == {f"{'write' if write else 'read'} 0x210"}


@pytest.mark.machine
def test_interrupts_are_traced_where_they_are_raised_and_delivered(cpu: str) -> None:
    with machine(shards=2) as vm:
        vm.load(guest("hlt_irq", UART_COUNT=2))
        line = {"pio": 0x3F8, "irq": 4, "output": "null", "name": "com1"}
        uart = vm.add("shardio.devices:Uart16550", shard="serial", **line)
        add_exit_port(vm, shard="other")
        trace = vm.trace()
        vm.start()
        until(lambda: vm.statistics().devices[0].writes == UART_SET_UP, "the guest is set up")
        uart.call("receive", b"ab")
        assert vm.wait(PATIENCE_S) is not None
        vm.stop()
        interrupts = [each for each in trace.records() if isinstance(each, Interrupt)]
        lives = [each.event for each in trace.records() if isinstance(each, Life)]

    assert ("raised", 4, "serial") in [(each.what, each.number, each.shard) for each in interrupts]
    vectors = [each.vcpu for each in interrupts if each.what == "delivered" and each.vector]
    assert set(vectors) == DELIVERED[cpu]
    assert lives[0].startswith("serves, process")


@pytest.mark.kvm
def test_coalesced_writes_are_traced_by_their_shard() -> None:
    with Machine(memory="2M", shards=2) as vm:
        vm.load(guest("coalesced", ADDRESS=0xD000_0000, PIO=0, COUNT=64, EVERY=16))
        vm.add("tests.e2e.irq_devices:Tally", mmio=0xD000_0000, posted="coalesced", shard="one", name="tally")
        add_exit_port(vm, shard="two")
        trace = vm.trace("tally")
        vm.run(PATIENCE_S)
        ways = Counter(each.way for each in trace.records() if isinstance(each, Access) and each.write)

    assert ways == {Way.COALESCED: 64}


@pytest.mark.machine
def test_a_killed_worker_is_in_the_trace_and_its_accesses_are_there_once() -> None:
    with machine(shards=1) as vm:
        vm.load(guest("pio_loop", COUNT=4000, PORT=0x210, WIDTH=4))
        vm.add("tests.e2e.devices:Sequencer", pio=0x210, size=0x10, name="counter")
        add_exit_port(vm)
        trace = vm.trace("counter")
        vm.start()
        until(lambda: accesses_to("counter", vm) > 10, "the guest runs")
        worker = vm.vcpu(0)
        vm.dispatcher.supervisor.call(worker.kill)
        assert vm.wait(PATIENCE_S) is not None
        vm.stop()
        seen = trace.records()
        lost = trace.lost

    served = [each for each in seen if isinstance(each, Access) and each.service_ns is not None]
    lives = [each.event for each in seen if isinstance(each, Life)]
    assert (len(served), lost) == (4000, 0)
    assert sum(event.startswith("WorkerReplaced") for event in lives) == 1
