"""Devices of the interrupt and doorbell tests: each counts, so that nothing can be lost unseen."""

from __future__ import annotations

from typing import Any

from shardio import MutDeviceMmio, MutDevicePio
from shardio.interrupt import Doorbell, MsiConfig, MsixTable

BURST = 64
"""Triggers that a `Source` makes before it lets its loop do something else."""


class Source(MutDeviceMmio):
    """Makes as many causes as it is told, each with a trigger, from its loop; a read takes those since then.

    `count` written to +4 starts it.
    """

    mmio_size = 0x1000

    def __init__(self) -> None:
        self.causes = self.left = self.triggers = self.reads = 0

    def attach(self, host: Any) -> None:
        """Take the interrupt."""
        self.host = host

    def read(self, offset: int, size: int) -> int:
        """The causes since the last read; there are none any more."""
        self.reads += 1
        causes, self.causes = self.causes, 0
        getattr(self.host.trigger, "deassert", int)()
        return causes

    def write(self, offset: int, size: int, value: int) -> None:
        """Start."""
        self.left = value
        self.host.loop.call_soon(self._burst)

    def _burst(self) -> None:
        for _ in range(min(self.left, BURST)):
            self.causes += 1
            self.triggers += 1
            self.host.trigger.trigger()
        self.left -= min(self.left, BURST)
        if self.left:
            self.host.loop.call_soon(self._burst)


class Prompt(MutDeviceMmio):
    """Triggers within each access; takes its level line back at the next."""

    mmio_size = 0x1000

    def attach(self, host: Any) -> None:
        """Take the interrupt."""
        self.trigger = host.trigger

    def read(self, offset: int, size: int) -> int:
        """Trigger; 0."""
        self.write(offset, size, 0)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Trigger."""
        getattr(self.trigger, "deassert", int)()
        self.trigger.trigger()


class Lever(MutDeviceMmio):
    """Its line is what was written last, from its loop; a read tells how often that has been done."""

    mmio_size = 0x1000

    def __init__(self) -> None:
        self.moves = 0

    def attach(self, host: Any) -> None:
        """Take the interrupt."""
        self.host = host

    def read(self, offset: int, size: int) -> int:
        """How often the line has been moved."""
        return self.moves

    def write(self, offset: int, size: int, value: int) -> None:
        """Move the line."""
        self.host.loop.call_soon(self._move, bool(value))

    def _move(self, high: bool) -> None:
        self.moves += 1
        self.host.trigger.set_level(high)


class Message(MutDeviceMmio):
    """One MSI: +0 its address, +4 its data, +8 sends it."""

    mmio_size = 0x1000

    def __init__(self) -> None:
        self.address = 0

    def attach(self, host: Any) -> None:
        """Ask for a message."""
        self.message = host.interrupts.message()

    def write(self, offset: int, size: int, value: int) -> None:
        """Configure, or send."""
        if offset == 0:
            self.address = value
        elif offset == 4:
            self.message.configure(MsiConfig(self.address, value))
            self.message.enable()
        else:
            self.message.trigger()


class PromptMessage(MutDeviceMmio):
    """A message to APIC 0 of the vector given, sent within each access."""

    mmio_size = 0x1000

    def __init__(self, vector: int = 0x50) -> None:
        self.vector = vector

    def attach(self, host: Any) -> None:
        """Ask for a message."""
        self.message = host.interrupts.message(MsiConfig(0xFEE0_0000, self.vector))
        self.message.enable()

    def read(self, offset: int, size: int) -> int:
        """Send it; 0."""
        self.message.trigger()
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Send it."""
        self.message.trigger()


class Msix(MutDeviceMmio):
    """A function with two MSI-X vectors: table at +0, pending bits at +0x800, control at +0xC00, a trigger at
    +0xC04.
    """

    mmio_size = 0x1000

    def attach(self, host: Any) -> None:
        """Ask for a group."""
        self.group = host.interrupts.group(2)
        self.table = MsixTable(self.group)

    def read(self, offset: int, size: int) -> int:
        """The table or the pending bits."""
        return self.table.read_pba(offset - 0x800, size) if offset >= 0x800 else self.table.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """The table, the control, or a trigger of vector 0."""
        if offset == 0xC00:
            self.table.write_control(value)
        elif offset == 0xC04:
            self.group[0].trigger()
        else:
            self.table.write(offset, size, value)


class Queues(MutDeviceMmio, MutDevicePio):
    """Two doorbells at offset 0, told apart by the value written, 0 or 1; what matches none is an access."""

    mmio_size = 0x1000
    pio_size = 8

    def __init__(self, width: int = 4) -> None:
        self.doorbells = [Doorbell(0, width, 0), Doorbell(0, width, 1)]
        self.calls = [0, 0]
        self.writes = 0

    def attach(self, host: Any) -> None:
        """Keep the host."""
        self.host = host

    def doorbell(self, index: int) -> None:
        """Count."""
        self.calls[index] += 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Count what came as an access."""
        self.writes += 1

    def rings(self) -> list[int]:
        """How often each doorbell was rung."""
        return [int(count) for count in self.host.doorbells[0].rings]

    def counts(self) -> list[int]:
        """Calls of each doorbell, and writes."""
        return [*self.calls, self.writes]


class Tally(MutDeviceMmio, MutDevicePio):
    """Counts its writes and notes whether each carried the number that was due; a read tells how many."""

    mmio_size = 0x1000
    pio_size = 8

    def __init__(self) -> None:
        self.writes = self.wrong = 0

    def read(self, offset: int, size: int) -> int:
        """How many writes there were."""
        return self.writes

    def write(self, offset: int, size: int, value: int) -> None:
        """One more."""
        self.writes += 1
        self.wrong += value != self.writes

    def counts(self) -> list[int]:
        """Writes, and how many of them were out of order."""
        return [self.writes, self.wrong]
