"""Devices of these tests. What happened to some is in a file, a character an access: it outlives an owner."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path

from shardio import DeviceMmio, MutDeviceMmio
from shardio.device import DeviceHost


class Filed(MutDeviceMmio):
    """Writes "r" and "w" into a file; reads give how much is in it."""

    mmio_size = 0x100

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def read(self, offset: int, size: int) -> int:
        self._file(b"r")
        return len(self.path.read_bytes())

    def write(self, offset: int, size: int, value: int) -> None:
        self._file(b"w")

    def _file(self, what: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(what)


class Deadly(Filed):
    """The same, but its first `times` accesses kill their owner: after they are in the file."""

    def __init__(self, path: str, times: int) -> None:
        super().__init__(path)
        self.times = times

    def _file(self, what: bytes) -> None:
        super()._file(what)
        if len(self.path.read_bytes()) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)


class Hanging(Filed):
    """The same, but its first access hangs its owner: `way` is "stop", "gil", "loop" or "block"."""

    def __init__(self, path: str, way: str) -> None:
        super().__init__(path)
        self.way = way

    def _file(self, what: bytes) -> None:
        super()._file(what)
        if len(self.path.read_bytes()) == 1:
            getattr(self, self.way)()

    def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def gil(self) -> None:
        while True:  # a signal that has a handler ends a pause
            ctypes.PyDLL(None).pause()

    def loop(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            pass

    def block(self) -> None:
        reader, _ = os.pipe()
        os.read(reader, 1)


class Journal(MutDeviceMmio):
    """Remembers the values written, and reads give how many; `values()` all of them."""

    mmio_size = 0x100

    def __init__(self) -> None:
        self.kept: list[int] = []

    def read(self, offset: int, size: int) -> int:
        return len(self.kept)

    def write(self, offset: int, size: int, value: int) -> None:
        self.kept.append(value)

    def values(self) -> list[int]:
        return self.kept


class Views(MutDeviceMmio):
    """The memoryview form: a byte that is kept."""

    mmio_size = 0x100

    def __init__(self) -> None:
        self.byte = b"\0"

    def mmio_read(self, base: int, offset: int, data: memoryview) -> None:
        data[:] = self.byte * len(data)

    def mmio_write(self, base: int, offset: int, data: memoryview) -> None:
        self.byte = bytes(data[:1])


class Bulky(MutDeviceMmio):
    """It is made of many bytes, and gives as many."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing."""

    def doubled(self, more: bytes) -> bytes:
        """What it holds, and more."""
        return self.content + more


class Parent(MutDeviceMmio):
    """It starts a process, as one that talks to a helper does."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing."""

    def started_and_terminated(self) -> int:
        """The return code of a process that it ends by SIGTERM."""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as helper:
            helper.terminate()
            return helper.wait()


class Releasing(Views):
    """The same, but it gives its views back, which the caller does after it; at offset 8 it raises then."""

    def mmio_read(self, base: int, offset: int, data: memoryview) -> None:
        with data:
            super().mmio_read(base, offset, data)
            if offset == 8:
                raise ValueError("no reading")

    def mmio_write(self, base: int, offset: int, data: memoryview) -> None:
        with data:
            super().mmio_write(base, offset, data)


class Native(MutDeviceMmio):
    """A C function from a library: see `test_shard.py`."""

    mmio_size = 0x100

    def __init__(self, library: str) -> None:
        self.library = ctypes.CDLL(library)
        self.state = ctypes.create_string_buffer(8)
        self.native_handler = ctypes.cast(self.library.keep, ctypes.c_void_p).value
        self.native_context = ctypes.addressof(self.state)


class Raising(MutDeviceMmio):
    """Raises on every access."""

    mmio_size = 0x100

    def read(self, offset: int, size: int) -> int:
        raise ValueError("no reading")

    def write(self, offset: int, size: int, value: int) -> None:
        raise ValueError("no writing")


class Which(DeviceMmio):
    """Immutable: reads give the process that answers."""

    mmio_size = 0x100

    def read(self, offset: int, size: int) -> int:
        return os.getpid()


class Ticking(MutDeviceMmio):
    """Counts 5 ms ticks of the shard's loop; reads give them."""

    mmio_size = 0x100

    def __init__(self) -> None:
        self.ticks = 0

    def attach(self, host: DeviceHost) -> None:
        self.loop, self.timer = host.loop, host.loop.call_later(0.005, self._tick)

    def detach(self) -> None:
        self.timer.cancel()

    def _tick(self) -> None:
        self.ticks += 1
        self.timer = self.loop.call_later(0.005, self._tick)

    def read(self, offset: int, size: int) -> int:
        return self.ticks


class Unspeakable(BaseException):
    """An error that is no `Exception`, and whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Stillborn(MutDeviceMmio):
    """Its constructor raises what a careless handler of errors lets through."""

    def __init__(self, how: str) -> None:
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "unspeakable": Unspeakable()}[how]


class Leaving(Filed):
    """Its `detach` is in its file, and may raise."""

    def __init__(self, path: str, *, raises: bool = False) -> None:
        super().__init__(path)
        self.raises = raises

    def detach(self) -> None:
        """The shard lets it go."""
        self._file(b"d")
        if self.raises:
            raise RuntimeError("cannot leave")


class Troubled(Filed):
    """Its n-th construction does what the n-th line of `orders` says: "raise", "die", "wait" (until the FIFO
    `gate` is opened for writing), or nothing. Constructions are characters in `path`.
    """

    def __init__(self, path: str, orders: str, gate: str = "") -> None:
        super().__init__(path)
        self._file(b"c")
        lines = orders.splitlines()
        number = len(self.path.read_bytes()) - 1
        order = lines[number] if number < len(lines) else ""
        if order == "raise":
            raise RuntimeError("ordered to")
        if order == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if order == "wait":
            os.close(os.open(gate, os.O_RDONLY))


class Imported(MutDeviceMmio):
    """A read tells 1 where its shard was given bytecode to import from, else 0."""

    def read(self, offset: int, size: int) -> int:
        return int(SourceFileLoader.get_data.__module__ == "__main__")
