"""The devices that benchmarks measure: as little as a device can do, in each of the handler forms, and
one that computes.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

from shardio._measure import ffi, lib
from shardio.address import MmioAddress, PioAddress
from shardio.bench.errors import BenchError
from shardio.device import MutDeviceMmio, MutDevicePio
from shardio.interrupt import Doorbell


class Register(MutDevicePio, MutDeviceMmio):
    """One register, in the register form: the shortest handler that keeps state."""

    def __init__(self) -> None:
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


class View:
    """One byte, in the memoryview form."""

    def __init__(self) -> None:
        self.value = 0

    def pio_read(self, base: PioAddress | MmioAddress, offset: int, data: memoryview) -> None:
        data[0] = self.value

    def pio_write(self, base: PioAddress | MmioAddress, offset: int, data: memoryview) -> None:
        self.value = data[0]

    mmio_read, mmio_write = pio_read, pio_write


class Native:
    """One register in C (native/measure/)."""

    native_handler = lib.sio_measure_device_address()

    def __init__(self) -> None:
        self._held = ffi.new("uint64_t *")
        self.native_context = int(ffi.cast("uintptr_t", self._held))


class Bell(Register):
    """A doorbell and nothing else."""

    doorbells = (Doorbell(0, 4),)

    def doorbell(self, index: int) -> None:
        """Nothing to look at."""


class Compute(Register):
    """A register whose every access computes: a fixed amount of work, whatever else the machine does
    meanwhile; see `calibrated_steps`.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._work = range(steps)

    def read(self, offset: int, size: int) -> int:
        sum(self._work)
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        sum(self._work)
        self.value = value


def make(name: str) -> object:
    """The device of a name: "native", "register", "view" or "compute:STEPS". Raises `BenchError` for
    another.
    """
    kind, _, argument = name.partition(":")
    plain: dict[str, Callable[[], object]] = {"native": Native, "register": Register, "view": View}
    if kind == "compute":
        return Compute(int(argument))
    if kind not in plain:
        raise BenchError(f"no benchmark device {name!r}", "use native, register, view or compute:STEPS")
    return plain[kind]()


def calibrated_steps(ns: int, rounds: int = 21) -> int:
    """How many steps of `Compute` take `ns` nanoseconds here and now, on an otherwise idle CPU: the best
    of `rounds`.
    """
    work = range(2000)
    best = min(timeit.repeat(lambda: sum(work), number=1, repeat=rounds)) * 1e9
    return max(1, round(len(work) * ns / best)) if ns else 0
