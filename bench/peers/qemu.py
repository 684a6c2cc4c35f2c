"""QEMU, where it is installed: the same accesses of the same guest, answered by QEMU's own devices in C, in
QEMU's own process: a port that its PC ignores, and the capabilities of its HPET, a register that only reads.

The guest counts in its memory, which is a file that this process maps too; QEMU is stopped while the loop has
the CPU.
"""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack

from shardio.bench.blocks import on_cpu
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.exits import COUNT, MANY, Guest, alternate
from shardio.bench.exits import GUESTS as ALL
from shardio.bench.inloop import InLoop
from shardio.bench.results import Figure, Rounds, Unit

GUESTS = {name: ALL[name] for name in ("pio-in", "pio-out", "mmio-read", "mmio-write")}
PROGRAM = "qemu-system-x86_64"
SIZE = 16 << 20
COMMAND = (
    f"{PROGRAM} -accel kvm -machine pc,memory-backend=ram -m 16 -nodefaults -display none -bios rom "
    f"-object memory-backend-file,id=ram,size={SIZE},mem-path=ram,share=on"
)
ROM, GDT = 0xF0000, 0x100
"""Where the image is below 1 MiB, and its table of flat segments."""


def title(guest: str) -> str:
    """For a table."""
    return f"KVM exit, {ALL[guest].title}, QEMU's device in C"


def measure(guest: str, effort: Effort) -> Iterator[Figure]:
    """An access of a guest under QEMU, as a multiple of one answered in the loop. Raises `BenchError`
    without QEMU.
    """
    if shutil.which(PROGRAM) is None:
        raise BenchError(f"{PROGRAM} is not installed", "apt-get install qemu-system-x86")
    program, cpu, rounds = GUESTS[guest], min(os.sched_getaffinity(0)), Rounds()
    with tempfile.TemporaryDirectory() as folder, InLoop(program.code(MANY), [cpu]) as loop:
        Path(folder, "rom").write_bytes(image(program))
        with _running(folder, cpu) as (process, words):

            def count() -> int:
                if process.poll() is not None and process.stderr is not None:
                    lines = process.stderr.read().strip().splitlines() or [f"status {process.returncode}"]
                    raise BenchError(f"QEMU: {lines[-1]}", "see `shardio doctor`")
                return MANY * words[COUNT // 4]

            @contextmanager
            def stopped() -> Iterator[None]:
                process.send_signal(signal.SIGSTOP)
                yield
                process.send_signal(signal.SIGCONT)

            tasks = f"/proc/{process.pid}/task"
            alternate(rounds, effort, loop, count, lambda: map(int, os.listdir(tasks)), stopped)
    yield rounds.figure(f"qemu-{guest}", title(guest), Unit.IN_LOOP)


@contextmanager
def _running(folder: str, cpu: int) -> Iterator[tuple[subprocess.Popen[str], memoryview]]:
    """QEMU on `cpu`, with the image in `folder`; and the words of its guest's memory."""
    with open(Path(folder, "ram"), "w+b") as file:
        file.truncate(SIZE)
        memory = mmap.mmap(file.fileno(), SIZE)
    with on_cpu(cpu):
        started = subprocess.Popen(COMMAND.split(), cwd=folder, stderr=subprocess.PIPE, text=True)
    with memory, memoryview(memory).cast("I") as words, started as process:
        try:
            yield process, words
        finally:
            process.kill()


def image(guest: Guest) -> bytes:
    """64 KiB: at the reset vector a jump to the first byte, where the guest turns to 32-bit mode."""
    tables = pack("<3QHI", 0, 0xCF_9B00_0000_FFFF, 0xCF_9300_0000_FFFF, 23, ROM + GDT)
    # lgdt %cs:GDT + 24; mov %cr0, %eax; or $1, %al; mov %eax, %cr0; ljmp to what follows
    code = bytes.fromhex("2e660f0116") + pack("<H", GDT + 24) + bytes.fromhex("0f20c0 0c01 0f22c0")
    code += b"\x66\xea" + pack("<IH", ROM + len(code) + 8, 8)
    # mov $16, %eax; mov %eax, %ds
    code += bytes.fromhex("b810000000 8ed8") + guest.code(MANY)
    return (code.ljust(GDT, b"\xf4") + tables).ljust(0xFFF0, b"\xf4") + b"\xea\0\0\0\xf0".ljust(16, b"\xf4")
