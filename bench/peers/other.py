"""Run by another Python (`other_python`): `other.py FOLDER (threads | subinterpreter) OWNER_CPU`. A line of
standard input is an access and how often to make it; the answer is its value, or the nanoseconds of each.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

BASE = 0xD000_0000
READ, WRITE, REST, STOP = range(4)


class Register:
    """The device."""

    value = 0

    def read(self, offset: int, size: int) -> int:
        """The value."""
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep `value`."""
        self.value = value


def threads(_cpu: int) -> Callable[..., int]:
    """vCPU threads share one `IoManager`; a device that has state needs a lock, as in any VMM."""
    from shardio import IoManager, MmioAddress, MmioRange

    manager, lock, data = IoManager(), threading.Lock(), memoryview(bytearray(8))
    manager.register_mmio(MmioRange(BASE, 0x1000), Register())

    def access(op: int, offset: int, size: int, value: int) -> int:
        with lock:
            if op == READ:
                manager.mmio_read(MmioAddress(BASE + offset), data[:size])
                return int.from_bytes(data[:size], "little")
            if op == WRITE:
                manager.mmio_write(MmioAddress(BASE + offset), value.to_bytes(size, "little"))
        return 0

    return access


def subinterpreter(cpu: int) -> Callable[..., int]:
    """The device's owner has a GIL and a thread of its own. Objects cannot be shared, so it is asked through
    words of shared memory, both sides polling: there is nothing quicker. At rest it sleeps: its CPU is the
    floor's meanwhile. Where it fails, the program ends.
    """
    fd, (bell, ring) = os.memfd_create("shardio-bench"), os.pipe()
    os.ftruncate(fd, mmap.PAGESIZE)
    words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("B").cast("Q")
    here, resting = os.path.dirname(__file__), True

    def own() -> None:
        try:
            isolated(f"import sys; sys.path[:0] = [{here!r}]; import other; other.own({fd}, {bell}, {cpu})")
        except BaseException as error:
            print(f"shardio bench: the subinterpreter failed: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    threading.Thread(target=own).start()

    def access(op: int, offset: int, size: int, value: int) -> int:
        nonlocal resting
        if resting:
            os.write(ring, b"!")
        resting = op == REST
        words[1], words[2], words[3], words[4] = op, offset, size, value
        words[0] += 1
        while words[0] & 1:
            pass
        return words[4]

    return access


def own(fd: int, bell: int, cpu: int) -> None:
    """In the subinterpreter: owns the device, until it is told to stop."""
    os.sched_setaffinity(0, {cpu})
    words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("B").cast("Q")
    device, op = Register(), REST
    while op != STOP:
        if op == REST:
            os.read(bell, 1)
        while not words[0] & 1:
            pass
        op = words[1]
        if op == READ:
            words[4] = device.read(words[2], words[3])
        elif op == WRITE:
            device.write(words[2], words[3], words[4])
        words[0] += 1


def isolated(script: str) -> None:
    """Run a text in a subinterpreter with a GIL of its own (Python 3.12 or later). Raises where it fails."""
    if sys.version_info >= (3, 14):
        importlib.import_module("concurrent.interpreters").create().exec(script)
        return
    new = sys.version_info >= (3, 13)
    module = importlib.import_module("_interpreters" if new else "_xxsubinterpreters")
    failed = module.run_string(module.create("isolated") if new else module.create(isolated=True), script)
    if failed is not None:
        raise RuntimeError(failed.formatted)


KINDS = {"threads": threads, "subinterpreter": subinterpreter}


def main(folder: str, kind: str, cpu: str) -> None:
    """Serve requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the near process to act on
    sys.path.append(folder)
    access, clock = KINDS[kind](int(cpu)), time.perf_counter_ns
    for line in sys.stdin:
        op, offset, size, value, count = map(int, line.split())
        found = [access(op, offset, size, value)] if count == 1 else []
        while len(found) < count:
            begin = clock()
            access(op, offset, size, value)
            found.append(clock() - begin)
        access(REST, 0, 0, 0)
        print(*found, flush=True)
    access(STOP, 0, 0, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
