"""The guests of the suites that need more than a few bytes of code: assembled from the checkout's sources, in
tests/guests, by the system's `as`, `ld` and `objcopy`.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import shardio
from shardio.bench.errors import BenchError
from shardio.machine import Machine

SOURCES = Path(shardio.__file__).resolve().parent.parent / "tests" / "guests"
LOAD_ADDRESS = 0x1000
RESULTS = 0x9000
EXIT_PORT = 0xF4
NEVER = 0xFFFF_FFFF
"""As a guest's count: it does not end by itself."""
MMIO = 0xD000_0000
START_TIMEOUT_S = 10.0


def guest(name: str, **defs: int) -> bytes:
    """The flat binary of a guest, its parameters preset. Raises `BenchError` where there are no sources."""
    if not SOURCES.is_dir():
        raise BenchError("the guests' sources are not installed", "run this in a checkout of shardio")
    presets = [word for item in defs.items() for word in ("--defsym", "{}={}".format(*item))]
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            ["as", "--64", "-I", str(SOURCES), *presets, "-o", "object", str(SOURCES / f"{name}.S")],
            ["ld", "-m", "elf_x86_64", "-Ttext", hex(LOAD_ADDRESS), "-o", "linked", "object"],
            ["objcopy", "-O", "binary", "-j", ".text", "linked", "image"],
        ):
            subprocess.run(command, cwd=folder, check=True)
        return (Path(folder) / "image").read_bytes()


def result(vm: Machine, offset: int) -> int:
    """A word that the guest has left for its reader."""
    return int.from_bytes(vm.memory.read(RESULTS + offset, 4), "little")


def add_exit_port(vm: Machine, shard: str | None = None) -> None:
    """The port where the guests end."""
    vm.add("shardio.devices:ExitPort", pio=EXIT_PORT, raw=True, shard=shard)


def await_progress(count: Callable[[], int]) -> None:
    """Wait until a guest has counted something. Raises `BenchError` where it does not."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while count() == 0:
        if time.monotonic() > deadline:
            raise BenchError("the guest makes no progress", "see `shardio doctor`")
        time.sleep(0.001)
