"""Run in a subinterpreter: owns the device, and answers through words of shared memory, polling."""

from __future__ import annotations

import mmap
import os

REST, STOP = 2, 3


class Register:
    """The device."""

    def __init__(self) -> None:
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        """The value."""
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        """Keep `value`."""
        self.value = value


def serve(fd: int, doorbell: int, cpu: int) -> None:
    """Until told to stop. At rest it sleeps until it is woken: its CPU is the floor's meanwhile."""
    os.sched_setaffinity(0, {cpu})
    words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("B").cast("Q")
    device, op = Register(), REST
    while op != STOP:
        if op == REST:
            os.read(doorbell, 1)
        while not words[0] & 1:
            pass
        op = words[1]
        if op == 0:
            words[4] = device.read(words[2], words[3])
        elif op == 1:
            device.write(words[2], words[3], words[4])
        words[0] += 1
