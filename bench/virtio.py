"""virtio-blk against QEMU's: `python -m shardio.bench.virtio [ROUNDS [OPTIONS]]` prints a table. OPTIONS are
of QEMU's drive: ",aio=io_uring".

The same guest (tests/guests/virtio_block_load.S), which keeps four requests in flight and polls, drives a
disk behind virtio-mmio in a machine of shardio and in QEMU's `microvm`, each with the vCPU on one CPU and
everything else on another. One of them is stopped while the other is measured, in turn; the guest's own count
says how many requests there were, /proc how much CPU they took. The images are in the page cache.
"""

from __future__ import annotations

import mmap
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from shardio.bench.errors import BenchError
from shardio.bench.guests import MMIO, RESULTS, await_progress, guest
from shardio.bench.host import two_cpus
from shardio.bench.peers.qemu import PROGRAM
from shardio.machine import Machine

MIB = 1 << 20
WINDOW_S, SETTLE_S = 0.4, 0.05
LOADS = {
    "4 KiB random read": {"KIND": 0},
    "4 KiB random write": {"KIND": 1},
    "64 KiB sequential read": {"KIND": 0, "PIECE": 1 << 16, "STRIDE": 1 << 16},
    "64 KiB sequential write": {"KIND": 1, "PIECE": 1 << 16, "STRIDE": 1 << 16},
}
DISK, MEMORY = 64 * MIB, 128 * MIB
QEMU_MMIO = 0xFEB0_0000
"""The first virtio-mmio transport of `microvm`."""
# At F000:E000 of the BIOS image: cli; cld; DS = 0xF000, ES = 0; 16 KiB from 0 to 0x1000, where the guest is.
COPY = bytes.fromhex("fafcb800f08ed831f631c08ec0bf0010b90020f3a5ea00100000")
RESET = bytes.fromhex("ea00e000f0").ljust(16, b"\xf4")


class Guest(Protocol):
    """A machine that can be stopped; `counts`: the guest's results; `pids`: whose CPU time is its own."""

    counts: memoryview
    pids: list[int]

    def go(self) -> None: ...

    def stop(self) -> None: ...


class Window(NamedTuple):
    """Requests a second, and a CPU second."""

    rate: float
    by_cpu: float


def window(machine: Guest) -> Window:
    """Of `WINDOW_S` seconds. Raises `BenchError` where a request failed."""
    machine.go()
    time.sleep(SETTLE_S)
    before, used, began = machine.counts[1], cpu_seconds(machine.pids), time.perf_counter()
    time.sleep(WINDOW_S)
    done, spent = machine.counts[1] - before, time.perf_counter() - began
    used = cpu_seconds(machine.pids) - used
    machine.stop()
    if machine.counts[2]:
        raise BenchError(f"{machine.counts[2]} requests failed", "report this as a fault of shardio")
    return Window(done / spent, done / max(used, 0.01))


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class _Ours:
    def __init__(self, vm: Machine) -> None:
        supervisor = vm.dispatcher.supervisor
        self.pids = [supervisor.vcpus[0].pid, supervisor.shards[0].pid]
        self.counts = vm.memory.view(RESULTS, 16).cast("I")
        self.go, self.stop = vm.resume, vm.pause


@contextmanager
def ours(disk: Path, load: dict[str, int]) -> Iterator[Guest]:
    """In a machine of shardio, stopped."""
    with Machine(memory=MEMORY, shards=1, cpu="kvm", pin=True, hang_deadline=60) as vm:
        vm.load(guest("virtio_block_load", **load))
        vm.add("shardio.devices.virtio:VirtioMmioBlock", mmio=MMIO, irq=5, path=str(disk))
        vm.start()
        machine = _Ours(vm)
        await_progress(lambda: machine.counts[1])
        machine.stop()
        yield machine
        machine.counts.release()
        machine.go()
        vm.stop()


class _Qemu:
    def __init__(self, process: subprocess.Popen[bytes], counts: memoryview) -> None:
        self.process, self.counts, self.pids = process, counts, [process.pid]

    def go(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)


@contextmanager
def qemu(disk: Path, load: dict[str, int], options: str = "") -> Iterator[Guest]:
    """In QEMU, stopped. `options`: of its drive, as ",aio=io_uring"."""
    near, far = two_cpus()
    code = guest("virtio_block_load", BASE=QEMU_MMIO, **load)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile(dir="/dev/shm") as ram:
        rom = Path(folder) / "rom"
        rom.write_bytes((code.ljust(0xE000, b"\0") + COPY).ljust(0xFFF0, b"\xf4") + RESET)
        ram.truncate(MEMORY)
        path = f"/proc/self/fd/{ram.fileno()}"
        command = (
            f"{PROGRAM} -accel kvm -machine microvm,memory-backend=ram -m {MEMORY // MIB} -bios {rom} "
            f"-object memory-backend-file,id=ram,size={MEMORY},share=on,mem-path={path} "
            "-name guest,debug-threads=on -nodefaults -display none -no-reboot "
            "-global virtio-mmio.force-legacy=false -device virtio-blk-device,drive=d,bus=virtio-mmio-bus.0 "
            f"-drive file={disk},if=none,id=d,format=raw,cache=writeback{options}"
        )
        quiet = subprocess.DEVNULL
        with (
            mmap.mmap(ram.fileno(), MEMORY) as mapped,
            memoryview(mapped)[RESULTS : RESULTS + 16].cast("I") as counts,
            subprocess.Popen(command.split(), stdin=quiet, stderr=quiet, pass_fds=[ram.fileno()]) as process,
        ):
            try:
                await_progress(lambda: counts[1])
                for task in Path(f"/proc/{process.pid}/task").iterdir():
                    vcpu = (task / "comm").read_text().startswith("CPU ")
                    os.sched_setaffinity(int(task.name), {near if vcpu else far})
                machine = _Qemu(process, counts)
                machine.stop()
                yield machine
            finally:
                process.kill()


def main() -> None:
    """Print the table."""
    rounds, options = int((sys.argv[1:] or ["7"])[0]), "".join(sys.argv[2:3])
    print(f"load {os.getloadavg()[0]:.1f}; medians of {rounds} windows")
    head = "load | shardio, requests a second | QEMU | ratio | shardio, a CPU second | QEMU | ratio"
    print(f"| {head} |\n{'|---' * 7}|")
    with tempfile.TemporaryDirectory() as folder:
        disks = [Path(folder) / name for name in ("ours", "qemu")]
        for disk in disks:
            disk.write_bytes(os.urandom(MIB) * (DISK // MIB))
        for name, load in LOADS.items():
            with ours(disks[0], load) as first, qemu(disks[1], load, options) as second:
                pairs = [(window(first), window(second)) for _ in range(rounds)]
            cells = []
            for at in (0, 1):
                mine, theirs = ([pair[side][at] for pair in pairs] for side in (0, 1))
                ratio = statistics.median(a / max(b, 1) for a, b in zip(mine, theirs, strict=True))
                cells += [f"{statistics.median(each):,.0f}" for each in (mine, theirs)] + [f"{ratio:.2f}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
