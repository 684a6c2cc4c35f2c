"""Machines on the software CPU: interrupts through controllers in shards, doorbells, kills, firmware."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from shardio import Machine, PioRange
from shardio._core import lib
from shardio.errors import MachineError
from shardio.pc import firmware_devices
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, console, read_until, result, until
from tests.guests.build import guest

PIC, IOAPIC_EDGE, IOAPIC_LEVEL, MESSAGE = range(4)
SECOND = MMIO + 0x1000
SOURCE = "tests.e2e.irq_devices:Source"
PROMPT = "tests.e2e.irq_devices:Prompt"
CAUSES = 500
BIOS = Path("/usr/share/seabios/bios.bin")
LAST_LINE = b"No bootable device.  Retrying in 60 seconds.\n"


def soft(**options: Any) -> Machine:
    """A machine on the software CPU, with an exit port."""
    vm = Machine(**{"memory": "2M", "cpu": "soft", "shards": 2, "hang_deadline": PATIENCE_S, **options})
    add_exit_port(vm)
    return vm


def run_to_the_end(vm: Machine) -> None:
    """Starts it; the guest must leave by its exit port."""
    ended = vm.run(PATIENCE_S)
    assert (ended.reason, ended.status) == ("exit", 0), ended


@pytest.mark.parametrize(
    ("mode", "line", "irq_mode"),
    [
        (PIC, 5, "edge"),
        (PIC, 5, "level"),
        (IOAPIC_EDGE, 20, "edge"),
        (IOAPIC_LEVEL, 10, "level"),
    ],
)
def test_no_cause_of_one_device_is_lost(mode: int, line: int, irq_mode: str) -> None:
    with soft() as vm:
        vm.load(guest("irq_causes", MODE=mode, IRQ=line, COUNT=CAUSES))
        vm.add(SOURCE, mmio=MMIO, irq=line, irq_mode=irq_mode)

        run_to_the_end(vm)

        causes, interrupts = result(vm, 4), result(vm, 12)
    assert causes == CAUSES
    assert 1 <= interrupts <= 2 * CAUSES


def test_two_devices_in_two_shards_share_a_level_line() -> None:
    with soft() as vm:
        vm.load(guest("irq_causes", MODE=IOAPIC_LEVEL, IRQ=11, COUNT=CAUSES, SECOND=SECOND))
        vm.add(SOURCE, mmio=MMIO, irq=11, irq_mode="level", shard="shard0")
        vm.add(SOURCE, mmio=SECOND, irq=11, irq_mode="level", shard="shard1")

        run_to_the_end(vm)

        causes = result(vm, 4), result(vm, 8)
    assert causes == (CAUSES, CAUSES)


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize(
    ("mode", "line", "irq_mode"),
    [(PIC, 5, "edge"), (IOAPIC_EDGE, 20, "edge"), (IOAPIC_LEVEL, 10, "level")],
)
def test_a_line_raised_during_an_access_is_there_when_it_completes(
    mode: int, line: int, irq_mode: str, read: int
) -> None:
    with soft() as vm:
        vm.load(guest("irq_order", MODE=mode, IRQ=line, COUNT=100, READ=read))
        vm.add(PROMPT, mmio=MMIO, irq=line, irq_mode=irq_mode)

        run_to_the_end(vm)

        missing, interrupts, accesses = result(vm, 4), result(vm, 8), result(vm, 12)
    assert (missing, accesses) == (0, 100)
    assert interrupts >= 100


@pytest.mark.parametrize("read", [0, 1])
def test_a_message_sent_during_an_access_is_there_when_it_completes(read: int) -> None:
    with soft() as vm:
        vm.load(guest("irq_order", MODE=MESSAGE, COUNT=100, READ=read))
        vm.add("tests.e2e.irq_devices:PromptMessage", mmio=MMIO)

        run_to_the_end(vm)

        assert (result(vm, 4), result(vm, 8), result(vm, 12)) == (0, 100, 100)


@pytest.mark.parametrize(("vcpus", "target"), [(1, 0), (2, 0), (2, 1)])
def test_a_message_reaches_the_vcpu_that_it_names(vcpus: int, target: int) -> None:
    with soft(vcpus=vcpus) as vm:
        vm.load(guest("msi_target", VCPUS=vcpus, TARGET=target, COUNT=20))
        vm.add("tests.e2e.irq_devices:Message", mmio=MMIO)

        run_to_the_end(vm)

        taken = [result(vm, 4, vcpu) for vcpu in range(vcpus)]
    assert taken == [20 if vcpu == target else 0 for vcpu in range(vcpus)]


def test_uart_and_clock_wake_a_guest_that_sleeps() -> None:
    with soft() as vm:
        vm.load(guest("hlt_irq", UART_COUNT=2, RTC_COUNT=3))
        uart = vm.add("shardio.devices:Uart16550", pio=0x3F8, irq=4, output="null")
        vm.add("shardio.devices:CmosRtc", pio=0x70, irq=8)
        vm.start()
        until(lambda: result(vm, 8) >= 3, "three ticks")
        uart.call("receive", b"hi")

        ended = vm.wait(PATIENCE_S)

        received = vm.memory.read(0x9100, 2)
    assert ended is not None
    assert (ended.reason, received) == ("exit", b"hi")


def test_pit_interrupts() -> None:
    with soft() as vm:
        vm.load(guest("pit", COUNT=20))

        began = time.monotonic()
        run_to_the_end(vm)
        milliseconds = (time.monotonic() - began) * 1000

        # One or more may come, a millisecond apart, before the guest looks whether it has had enough.
        assert 20 <= result(vm, 4) <= milliseconds


def test_the_local_apics_timer_interrupts() -> None:
    with soft() as vm:
        vm.load(guest("apic_timer", COUNT=20))

        run_to_the_end(vm)

        assert result(vm, 4) == 20


def test_long_mode_is_refused_by_name() -> None:
    with soft() as vm:
        vm.load(b"\xf4", mode="long")

        with pytest.raises(MachineError, match="no long mode"):
            vm.start()


@pytest.mark.timeout(180)
@pytest.mark.skipif(not BIOS.exists(), reason=f"{BIOS} is missing: apt-get install seabios")
@pytest.mark.parametrize("vcpus", [1, 2])
def test_seabios_finds_no_bootable_device(vcpus: int, tmp_path: Path) -> None:
    memory = 64 << 20
    outputs = {"debugcon": f"file:{tmp_path / 'debug'}", "com1": "null"}
    options = {"memory": memory, "vcpus": vcpus, "cpu": "soft", "shards": 2, "hang_deadline": PATIENCE_S}
    with console(tmp_path / "debug") as log, Machine(**options) as vm:  # type: ignore[arg-type]
        vm.load_firmware(BIOS)
        # Port 0x61 between its own two is the timer's.
        vm.add("shardio.devices:I8042", ranges=(PioRange(0x60, 1), PioRange(0x64, 1)), name="i8042")
        for table in firmware_devices(memory, vcpus):
            if table["name"] != "i8042":
                told = {key: value for key, value in table.items() if key not in ("type", "input", "output")}
                output = {"output": outputs[table["name"]]} if "output" in table else {}
                vm.add(table["type"], **told, **output)
        vm.start()

        text = read_until(log, LAST_LINE, 150).decode()
    assert f"Found {vcpus} cpu(s) max supported {vcpus} cpu(s)" in text
    assert "PS2 keyboard initialized" in text


@pytest.mark.parametrize("pio", [False, True])
def test_every_write_to_a_doorbell_rings_and_none_exits(pio: bool) -> None:
    with soft() as vm:
        address = 0x500 if pio else MMIO
        vm.load(guest("doorbells", ADDRESS=address, PIO=int(pio), WIDTH=4, COUNT=2000, OTHER_COUNT=100))
        place = {"pio": address} if pio else {"mmio": address}
        device = vm.add("tests.e2e.irq_devices:Queues", width=4, **place)
        vm.start()

        ended = vm.wait(PATIENCE_S)
        until(lambda: device.call("rings") == [2000, 100], "every ring is there")
        counts = device.call("counts")
        vm.stop()

        exits = vm.statistics().vcpus[0].exits
    assert ended is not None
    assert ended.reason == "exit"
    assert counts[2] == 0
    assert exits == {"IO": 1}  # the exit port's


def test_what_no_doorbell_matches_is_an_access() -> None:
    with soft() as vm:
        vm.load(guest("doorbells", VALUE=2, COUNT=10, OTHER=1, OTHER_COUNT=5))
        vm.add("tests.e2e.irq_devices:Queues", mmio=MMIO)

        run_to_the_end(vm)

        exits = vm.statistics().vcpus[0].exits
    assert exits == {"IO": 1, "MMIO": 10}


def test_a_worker_killed_while_it_executes_ends_the_machine_and_says_so() -> None:
    with soft() as vm:
        vm.load(b"\xeb\xfe")  # jmp to itself
        vm.start()
        until(lambda: vm.hypervisor.record.vcpu(0).phase == lib.SIO_SOFT_RUN, "it runs")  # type: ignore[attr-defined]
        os.kill(vm.statistics().vcpus[0].pid, signal.SIGKILL)

        ended = vm.wait(PATIENCE_S)
    assert ended is not None
    assert ended.reason == "failed"
    assert "killed while it executed the guest" in str(ended.detail)
