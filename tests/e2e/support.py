"""What the end-to-end tests share: results out of guest memory, bounded waits, the text of a console."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardio import Machine
from shardio.dispatcher import ExitInfo
from tests.guests.build import parameters, result_address

PATIENCE_S = 60.0
"""No wait of these tests is longer; none should come near, on however busy a machine."""
MMIO = 0xD000_0000
EXIT_PORT = 0xF4
PAGE = 0x1000
NEVER = 0xFFFF_FFFF
"""As a guest's count: it does not end by itself."""


def machine(**options: Any) -> Machine:
    """A small machine whose shards may be starved by a busy host without being taken for dead."""
    return Machine(**{"memory": "2M", "hang_deadline": PATIENCE_S, **options})


def result(vm: Machine, offset: int, vcpu: int = 0, size: int = 4) -> int:
    """A little-endian result of `vcpu`."""
    return int.from_bytes(vm.memory.read(result_address(vcpu, offset), size), "little")


def set_parameter(vm: Machine, guest: str, name: str, value: int) -> None:
    """Writes a 32-bit parameter of `guest` where it lies in memory."""
    vm.memory.write(parameters(guest)[name], value.to_bytes(4, "little"))


def add_exit_port(vm: Machine, shard: str | None = None) -> None:
    """The port where the guests end; their status is what they write."""
    vm.add("shardio.devices:ExitPort", pio=EXIT_PORT, raw=True, shard=shard)


def accesses_to(name: str, vm: Machine) -> int:
    """How often the guest has left for the device `name`. On the software CPU there are more exits, for the
    interrupt controllers.
    """
    (device,) = (device for device in vm.statistics().devices if device.name == name)
    return device.reads + device.writes


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
    """Looks again and again until `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        os.sched_yield()


def wait_while_it_moves(
    vm: Machine, progress: Callable[[], object], seconds: float = PATIENCE_S / 2
) -> ExitInfo | None:
    """How the machine ended; None where `progress` has not changed for so long. For a guest whose whole way
    takes long on a busy host.
    """
    seen, moved, ended = progress(), time.monotonic(), None
    while ended is None and time.monotonic() - moved < seconds:
        ended = vm.wait(0.5)
        if (now := progress()) != seen:
            seen, moved = now, time.monotonic()
    return ended


@contextmanager
def console(path: Path) -> Iterator[int]:
    """A FIFO at `path` for a device's output; gives the descriptor to read its text from."""
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)


def read_until(fd: int, text: bytes, seconds: float = PATIENCE_S) -> bytes:
    """What comes from `fd` up to and with `text`; fails after `seconds` without it."""
    got, deadline = b"", time.monotonic() + seconds
    while text not in got:
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no {text!r} within {seconds} s, only {got!r}"
        got += os.read(fd, 4096)
    return got


@contextmanager
def command(*words: object) -> Iterator[subprocess.Popen[bytes]]:
    """`shardio` with these words, its output in pipes; killed at the end, had it not ended before."""
    line = [sys.executable, "-m", "shardio", *map(str, words)]
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def fragments(address: int, size: int) -> list[tuple[int, int]]:
    """What a memory-mapped access becomes: (address, size) of each part that a device sees, in order.

    KVM cuts it at a page's end; of 3, 5, 6 and 7 bytes each goes by itself.
    """
    head = min(size, PAGE - address % PAGE)
    parts = [part for part in ((address, head), (address + head, size - head)) if part[1]]
    whole = [
        [(at, length)] if length in (1, 2, 4, 8) else [(at + i, 1) for i in range(length)]
        for at, length in parts
    ]
    return [part for each in whole for part in each]


def let_end(vm: Machine, vcpus: int) -> int:
    """Lets a running `random_access` come to its end, every vCPU after the same number of accesses; gives
    that.
    """
    vm.pause()
    count = max(result(vm, 8, vcpu) for vcpu in range(vcpus)) + 200
    set_parameter(vm, "random_access", "count", count)
    vm.resume()
    ended = vm.wait(PATIENCE_S)
    assert ended is not None, "the guest goes on and on"
    assert (ended.reason, ended.status) == ("exit", 0), ended
    return count
