"""A guest that sleeps in HLT is woken by devices in shards through irqfd, and by nothing else."""

from __future__ import annotations

import pytest

from shardio.dispatcher import MachineStatistics
from tests.e2e.support import PATIENCE_S, add_exit_port, machine, result, until
from tests.guests.build import guest

pytestmark = pytest.mark.machine

BYTES_AT = 0x9100
# LCR, MCR and IER, the last thing the guest does before it sleeps.
UART_SET_UP = 3


def exits(statistics: MachineStatistics) -> dict[str, int]:
    """vCPU 0's exits by name."""
    return statistics.vcpus[0].exits


def test_uart_receive_wakes_the_guest() -> None:
    with machine(shards=2) as vm:
        vm.load(guest("hlt_irq", UART_COUNT=5))
        uart = vm.add(
            "shardio.devices:Uart16550", pio=0x3F8, irq=4, output="null", shard="serial", name="com1"
        )
        add_exit_port(vm, shard="other")
        vm.start()
        until(lambda: vm.statistics().devices[0].writes == UART_SET_UP, "the guest is set up")
        asleep = vm.statistics()

        uart.call("receive", b"abc")
        until(lambda: result(vm, 4) == 3, "three bytes are there")
        uart.call("receive", b"de")
        ended = vm.wait(PATIENCE_S)
        vm.stop()

        awake = vm.statistics()
        interrupts, wakeups = result(vm, 12), result(vm, 16)
        received = vm.memory.read(BYTES_AT, 5)
        sent = uart.request.name, awake.devices[0].writes - UART_SET_UP
    assert ended is not None
    assert (ended.reason, ended.status) == ("exit", 0)
    assert received == b"abcde"
    assert sent == ("com1", 5)
    assert wakeups >= 1
    # Each interrupt reads IIR and finds LSR empty once; each byte costs LSR, RBR and THR; then comes the exit
    # port.
    handled = 2 * interrupts + 3 * 5 + 1
    assert exits(awake) == {"IO": exits(asleep)["IO"] + handled}
    assert awake.vcpus[0].interrupted <= 1  # `stop` alone


def test_rtc_periodic_interrupt_wakes_the_guest() -> None:
    with machine(shards=2) as vm:
        vm.load(guest("hlt_irq", UART_COUNT=0, RTC_COUNT=5))
        vm.add("shardio.devices:Uart16550", pio=0x3F8, irq=4, output="null", shard="serial")
        vm.add("shardio.devices:CmosRtc", pio=0x70, irq=8, shard="clock")
        add_exit_port(vm, shard="serial")

        vm.start()
        ended = vm.wait(PATIENCE_S)
        vm.stop()

        statistics = vm.statistics()
        ticks, wakeups = result(vm, 8), result(vm, 16)
    assert ended is not None
    assert (ended.reason, ended.status) == ("exit", 0)
    assert ticks >= 5
    assert wakeups >= ticks
    # Set-up is three UART writes and six accesses to the clock; a tick is two more.
    assert exits(statistics) == {"IO": UART_SET_UP + 6 + 2 * ticks + 1}
    assert statistics.vcpus[0].interrupted <= 1


def test_both_lines_wake_the_same_guest() -> None:
    with machine(shards=2) as vm:
        vm.load(guest("hlt_irq", UART_COUNT=2, RTC_COUNT=3))
        uart = vm.add("shardio.devices:Uart16550", pio=0x3F8, irq=4, output="null", shard="serial")
        vm.add("shardio.devices:CmosRtc", pio=0x70, irq=8, shard="clock")
        add_exit_port(vm, shard="serial")
        vm.start()

        until(lambda: result(vm, 8) >= 3, "three ticks")
        uart.call("receive", b"hi")
        ended = vm.wait(PATIENCE_S)
        vm.stop()

        received = vm.memory.read(BYTES_AT, 2)
        names = set(exits(vm.statistics()))
    assert ended is not None
    assert ended.reason == "exit"
    assert received == b"hi"
    assert names == {"IO"}
