"""Devices of the end-to-end tests: they notice what a well-behaved device would not care about."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

from shardio import DeviceMmio, DevicePio, MutDeviceMmio, MutDevicePio
from shardio.device import DeviceHost

MASK64 = (1 << 64) - 1


class Recorder(MutDevicePio, MutDeviceMmio):
    """Remembers every access: (is a write, offset, size, value). Reads give what was last written there, byte
    by byte.
    """

    def __init__(self) -> None:
        self.accesses: list[tuple[bool, int, int, int]] = []
        self._bytes: dict[int, int] = {}

    def read(self, offset: int, size: int) -> int:
        """The bytes at `offset`, 0 where nothing was written."""
        value = sum(self._bytes.get(offset + i, 0) << 8 * i for i in range(size))
        self.accesses.append((False, offset, size, value))
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep the bytes."""
        self.accesses.append((True, offset, size, value))
        for i in range(size):
            self._bytes[offset + i] = value >> 8 * i & 0xFF

    def log(self) -> list[list[int]]:
        """The accesses, as plain values."""
        return [[int(write), offset, size, value] for write, offset, size, value in self.accesses]


class Sequencer(MutDevicePio, MutDeviceMmio):
    """A state that every access changes, reads too: one that is lost, repeated or out of order shows in all
    that follow.
    """

    pio_size = 0x200
    mmio_size = 0x2000

    def __init__(self) -> None:
        self.state = 1

    def read(self, offset: int, size: int) -> int:
        """The state's low bytes; then it is another one."""
        self._step(offset, size, 0x5A)
        return self.state >> 13 & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Mix the value in."""
        self._step(offset, size, value << 8 | 0xA5)

    def value(self) -> int:
        """The state, cut so that it fits a message."""
        return self.state & (MASK64 >> 1)

    def _step(self, offset: int, size: int, value: int) -> None:
        self.state = ((self.state ^ offset << 8 ^ size ^ value << 20) * 0x100000001B3 + 1) & MASK64


class Ascending(MutDevicePio):
    """Reads 1, 2, 3, ... cut to the width."""

    pio_size = 4

    def __init__(self) -> None:
        self.count = 0

    def read(self, offset: int, size: int) -> int:
        """The next number."""
        self.count += 1
        return self.count & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes are dropped."""


class Pattern(DevicePio, DeviceMmio):
    """Reads depend on offset and width alone, writes change nothing: any owner answers the same, however
    often.
    """

    pio_size = 0x200
    mmio_size = 0x2000

    def read(self, offset: int, size: int) -> int:
        """A number made of the offset and the width."""
        return (offset * 0x9E3779B1 + size * 0x85EBCA6B) >> 7 & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing."""


class Visits(MutDeviceMmio):
    """Counts its accesses and, when it is taken out, adds the count to a file, a line each time."""

    mmio_size = 0x1000

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self.attached = True

    def detach(self) -> None:
        """Write the count down."""
        self.attached = False
        with Path(self.path).open("a") as file:
            file.write(f"{self.count}\n")

    def read(self, offset: int, size: int) -> int:
        """Count; 0."""
        assert self.attached
        self.count += 1
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Count."""
        assert self.attached
        self.count += 1


class Slow(Visits):
    """The same, each access taking 500 us of its process's time."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Count, slowly."""
        end = time.perf_counter_ns() + 500_000
        while time.perf_counter_ns() < end:
            pass
        super().write(offset, size, value)


class Fatal(MutDeviceMmio):
    """Ends, or stops, its own process on one of its accesses, as often as there are lives in a file of so
    many bytes.

    `way`: "kill" (SIGKILL), "stop" (SIGSTOP), "hang" (waits for ever, holding no lock), "spin" (holds the GIL
    for ever). The other accesses are remembered in `log`, a file, so that it outlives the process.
    """

    mmio_size = 0x1000

    def __init__(self, lives: str, log: str, way: str = "kill", on: str = "read") -> None:
        self.lives, self.log_path, self.way, self.on = Path(lives), Path(log), way, on

    def read(self, offset: int, size: int) -> int:
        """The offset + 0x11, unless it is fatal."""
        self._live("read", offset)
        return offset + 0x11

    def write(self, offset: int, size: int, value: int) -> None:
        """Remembered, unless it is fatal."""
        self._live("write", offset)

    def _live(self, direction: str, offset: int) -> None:
        with self.log_path.open("a") as file:
            file.write(f"{direction} {offset:#x}\n")
        left = self.lives.read_bytes()
        if direction == self.on and left:
            self.lives.write_bytes(left[1:])
            getattr(self, f"_{self.way}")()

    def _kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _stop(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _hang(self) -> None:
        threading.Event().wait()

    def _spin(self) -> None:
        while True:
            pass


class Unfinished(MutDeviceMmio):
    """Its constructor writes a byte into the FIFO at `begun`, and never returns."""

    def __init__(self, begun: str) -> None:
        Path(begun).write_bytes(b"!")
        signal.pause()

    def read(self, offset: int, size: int) -> int:
        """Nobody gets here."""
        return 0


class Forking(MutDeviceMmio):
    """Forks in each of its writes, and comes back in both processes."""

    mmio_size = 0x1000

    def __init__(self) -> None:
        self.children: list[int] = []

    def write(self, offset: int, size: int, value: int) -> None:
        """The child is kept in mind."""
        self.children.append(os.fork())

    def statuses(self) -> list[int]:
        """How the children ended; waits for them."""
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in self.children]


class Talkative(MutDeviceMmio):
    """Logs a long line at every access."""

    mmio_size = 0x100

    def read(self, offset: int, size: int) -> int:
        logging.getLogger("talkative").error("%s", "x" * 1000)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.read(offset, size)


class Sized(MutDeviceMmio):
    """Prints the first size of the user's terminal, and ends the machine with the columns of the next."""

    mmio_size = 0x100

    def attach(self, host: DeviceHost) -> None:
        self.host, self.told = host, False

    def terminal_resized(self, columns: int, rows: int) -> None:
        """The size in characters."""
        if self.told:
            self.host.exit(columns)
        self.told = True
        os.write(1, f"{columns}x{rows}".encode())

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing."""
