"""The program that another interpreter runs for the peers `free_threaded` and `subinterpreters`.

It needs the standard library and shardio's vocabulary, not its compiled core, which is built for one
interpreter. Requests and replies are structs on standard input and output; an access is timed here, by the
vCPU that makes it.

    python interpreter_main.py FOLDER (threads | subinterpreters) OWNER_CPU

threads: vCPU threads share one `IoManager`, and a device that has state needs a lock, as in any VMM.
subinterpreters: the device's owner is a subinterpreter with a GIL of its own, in a thread of its own.
Objects cannot be shared, so the vCPU asks it through words of shared memory, both polling: there is nothing
quicker between the two.
"""

from __future__ import annotations

import importlib
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

REQUEST = struct.Struct("<QQQQQ")
"""Operation, offset, size, value, count. The reply is `count` words: the value, where it is one, or else
the nanoseconds of each access."""
READ, WRITE, REST, STOP = range(4)
TURN, OP, OFFSET, SIZE, VALUE = range(5)
BASE = 0xD000_0000
Access = Callable[[int, int, int, int], int]

DEVICE = """
from shardio import MutDeviceMmio

class Register(MutDeviceMmio):
    def __init__(self):
        self.value = 0

    def read(self, offset, size):
        return self.value

    def write(self, offset, size, value):
        self.value = value
"""
# In a function, as a module of its own would have it: local names are quicker than global ones.
OWNER = """
import mmap, os, sys
sys.path.insert(0, {folder!r})
os.sched_setaffinity(0, {{{cpu}}})
{device}
def serve(words, doorbell):
    device, op = Register(), {rest}
    while op != {stop}:
        if op == {rest}:
            os.read(doorbell, 1)
        while not words[0] & 1:
            pass
        op = words[1]
        if op == 0:
            words[4] = device.read(words[2], words[3])
        elif op == 1:
            device.write(words[2], words[3], words[4])
        words[0] += 1

serve(memoryview(mmap.mmap({fd}, mmap.PAGESIZE)).cast("B").cast("Q"), {doorbell})
"""


class Threads:
    """An `IoManager` that threads share."""

    def __init__(self, folder: str, cpu: int) -> None:
        sys.path.insert(0, folder)
        from shardio import IoManager, MmioAddress, MmioRange

        names: dict[str, Any] = {"__name__": "device"}
        exec(DEVICE, names)
        manager, lock = IoManager(), threading.Lock()
        manager.register_mmio(MmioRange(BASE, 0x1000), names["Register"]())
        data = memoryview(bytearray(8))

        def access(op: int, offset: int, size: int, value: int) -> int:
            if op == READ:
                with lock:
                    manager.mmio_read(MmioAddress(BASE + offset), data[:size])
                return int.from_bytes(data[:size], "little")
            with lock:
                manager.mmio_write(MmioAddress(BASE + offset), value.to_bytes(size, "little"))
            return 0

        self.access: Access = access

    def wake(self) -> None:
        """Nobody sleeps."""

    def rest(self) -> None:
        """Nobody polls."""

    def close(self) -> None:
        """Nothing is held."""


class Owner:
    """A subinterpreter that owns the device, in a thread. Where it fails, the program ends."""

    def __init__(self, folder: str, cpu: int) -> None:
        fd = os.memfd_create("shardio-bench")
        os.ftruncate(fd, mmap.PAGESIZE)
        words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("B").cast("Q")
        waits, self._doorbell = os.pipe()
        script = OWNER.format(
            folder=folder, device=DEVICE, cpu=cpu, fd=fd, doorbell=waits, rest=REST, stop=STOP
        )
        self._thread = threading.Thread(target=_own, args=(script,))
        self._thread.start()

        def access(op: int, offset: int, size: int, value: int) -> int:
            words[OP], words[OFFSET], words[SIZE], words[VALUE] = op, offset, size, value
            words[TURN] += 1
            while words[TURN] & 1:
                pass
            return words[VALUE]

        self.access: Access = access

    def wake(self) -> None:
        """The owner polls from now on."""
        os.write(self._doorbell, b"!")

    def rest(self) -> None:
        """The owner sleeps until it is woken: its CPU is the floor's meanwhile."""
        self.access(REST, 0, 0, 0)

    def close(self) -> None:
        """End the subinterpreter."""
        self.wake()
        self.access(STOP, 0, 0, 0)
        self._thread.join()


def _own(script: str) -> None:
    try:
        run_isolated(script)
    except BaseException as error:
        print(f"shardio bench: the subinterpreter failed: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def run_isolated(script: str) -> None:
    """Run a text in a subinterpreter with a GIL of its own (Python 3.12 or later). Raises where it fails."""
    if sys.version_info >= (3, 14):
        interpreter = importlib.import_module("concurrent.interpreters").create()
        interpreter.exec(script)
        interpreter.close()
        return
    new = sys.version_info >= (3, 13)
    module = importlib.import_module("_interpreters" if new else "_xxsubinterpreters")
    number = module.create("isolated") if new else module.create(isolated=True)
    failed = module.run_string(number, script)
    module.destroy(number)
    if failed is not None:
        raise RuntimeError(failed.formatted)


def main(folder: str, kind: str, cpu: str) -> None:
    """Serve requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the near process to act on
    served = Threads(folder, int(cpu)) if kind == "threads" else Owner(folder, int(cpu))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(request := source.read(REQUEST.size)) == REQUEST.size:
        op, offset, size, value, count = REQUEST.unpack(request)
        served.wake()
        if count == 1:
            found = [served.access(op, offset, size, value)]
        else:
            found = timed(served.access, op, offset, size, value, count)
        served.rest()
        sink.write(struct.pack(f"<{count}Q", *found))
        sink.flush()
    served.close()


def timed(access: Access, op: int, offset: int, size: int, value: int, count: int) -> list[int]:
    """Nanoseconds of each of `count` accesses."""
    clock, times = time.perf_counter_ns, []
    for _ in range(count):
        begin = clock()
        access(op, offset, size, value)
        times.append(clock() - begin)
    return times


if __name__ == "__main__":
    main(*sys.argv[1:])
