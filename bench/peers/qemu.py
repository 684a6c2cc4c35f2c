"""QEMU, where it is installed: the same guest loop, its port answered by QEMU's own device in C, in
QEMU's own process.

The guest reads a port a given number of times and leaves through `isa-debug-exit`; two runs of different
length give the time of an access without the start. It is held against the same loop answered inside the
KVM_RUN loop, measured before and after each pair of runs.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.exits import GUESTS
from shardio.bench.inloop import InLoop
from shardio.bench.results import Figure, Rounds, Unit

PROGRAM = "qemu-system-x86_64"
COMMAND = (
    f"{PROGRAM} -accel kvm -machine pc -m 16 -nodefaults -display none -no-reboot "
    "-device isa-debug-exit,iobase=0xf4,iosize=1"
)
FEW, MANY = 2_000, 62_000
TIMEOUT_S = 60.0
IN_LOOP_BLOCKS = 15
DONE = 1
"""`isa-debug-exit` turns the byte n into the exit status 2 n + 1; the loop writes 0."""


def measure(effort: Effort) -> Iterator[Figure]:
    """An access of a guest under QEMU, as a multiple of one answered in the loop. Raises `BenchError`
    without QEMU.
    """
    if shutil.which(PROGRAM) is None:
        raise BenchError(f"{PROGRAM} is not installed", "apt-get install qemu-system-x86")
    rounds = Rounds()
    with tempfile.TemporaryDirectory() as folder, InLoop(*GUESTS["pio-count"][:2]) as loop:

        def in_loop() -> float:
            return statistics.median(loop.exit_ns() for _ in range(IN_LOOP_BLOCKS))

        few, many = rom(Path(folder), FEW), rom(Path(folder), MANY)
        for _ in range(effort.rounds):
            rounds.begin()
            before = in_loop()
            took = (_seconds(many) - _seconds(few)) * 1e9 / (MANY - FEW)
            rounds.add(took, rest=(before + in_loop()) / 2)
            effort.progress(effort.seconds)
    yield rounds.figure("qemu", "KVM exit, PIO read, QEMU's own device in C", Unit.IN_LOOP)


def rom(folder: Path, count: int) -> Path:
    """A 64 KiB image: at its first byte the loop, at the reset vector a jump there."""
    code = b"\x66\xb9" + count.to_bytes(4, "little") + GUESTS["pio-count"].code[:-2] + b"\xb0\x00\xe6\xf4\xf4"
    path = folder / f"rom{count}"
    path.write_bytes(code.ljust(0xFFF0, b"\xf4") + b"\xea\x00\x00\x00\xf0".ljust(16, b"\xf4"))
    return path


def _seconds(image: Path) -> float:
    began = time.monotonic()
    try:
        command = [*COMMAND.split(), "-bios", str(image)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        what = f"the guest did not end within {TIMEOUT_S} s under QEMU"
        raise BenchError(what, "see `shardio doctor`") from None
    if done.returncode != DONE:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise BenchError(f"QEMU: {lines[-1]}", "see `shardio doctor`")
    return time.monotonic() - began
