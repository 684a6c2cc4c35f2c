"""A guest that sleeps in HLT is woken by devices in shards, and by nothing else.

The software CPU's interrupt controllers are devices too: the guest's accesses to them are exits, and so are
the worker's own messages to them, which are memory-mapped.
"""

from __future__ import annotations

import pytest

from shardio.dispatcher import MachineStatistics
from tests.e2e.support import PATIENCE_S, add_exit_port, machine, result, until
from tests.guests.build import guest

pytestmark = pytest.mark.machine

BYTES_AT = 0x9100
# LCR, MCR and IER, the last thing the guest does before it sleeps.
UART_SET_UP = 3
PIC_SET_UP = {"kvm": 0, "soft": 10}
"""Exits for the initialisation of the two 8259As."""
EOI = {"kvm": 0, "soft": 1}
"""Exits for one non-specific EOI."""
REASONS = {"kvm": {"IO"}, "soft": {"IO", "MMIO"}}


def exits(statistics: MachineStatistics) -> dict[str, int]:
    """vCPU 0's exits by name."""
    return statistics.vcpus[0].exits


def test_uart_receive_wakes_the_guest(cpu: str) -> None:
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
        raised = awake.devices[0].interrupts
    assert ended is not None
    assert (ended.reason, ended.status) == ("exit", 0)
    assert received == b"abcde"
    assert sent == ("com1", 5)
    assert wakeups >= 1
    assert interrupts <= raised <= 10  # one a byte received at most, and one a byte sent
    # Each interrupt reads IIR, finds LSR empty once and ends with an EOI; each byte costs LSR, RBR and THR;
    # then comes the exit port.
    handled = (2 + EOI[cpu]) * interrupts + 3 * 5 + 1
    assert exits(awake)["IO"] == exits(asleep)["IO"] + handled
    assert set(exits(awake)) == REASONS[cpu]
    assert awake.vcpus[0].interrupted <= 1  # `stop` alone


def test_rtc_periodic_interrupt_wakes_the_guest(cpu: str) -> None:
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
    # No other interrupt ends HLT. A tick that comes late finds the guest still at work for the one before.
    assert 1 <= wakeups <= ticks
    # Set-up is three UART writes and six accesses to the clock; a tick is two more, and an EOI for each PIC.
    set_up = PIC_SET_UP[cpu] + UART_SET_UP + 6
    assert exits(statistics)["IO"] == set_up + (2 + 2 * EOI[cpu]) * ticks + 1
    assert set(exits(statistics)) == REASONS[cpu]
    assert statistics.vcpus[0].interrupted <= 1


def test_both_lines_wake_the_same_guest(cpu: str) -> None:
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
    assert names == REASONS[cpu]
