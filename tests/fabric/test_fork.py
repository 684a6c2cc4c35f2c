"""Forks of a process that has an owner or a client: they have no part in it, and it goes on without them.

Each case runs in a process of its own, since its children are copies of it.
"""

from __future__ import annotations

import pytest

from tests.fabric.test_lifetime import in_a_process

PREAMBLE = """
import os
from shardio import MmioRange

def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def refused(use):
    try:
        use()
    except FabricError as error:
        told = error.message.replace(str(os.getppid()), "PARENT") + "\\n"
        os.write(1, told.encode())  # in one piece, beside those of other children
        return 3
    return 0

class Forking:
    def __init__(self):
        self.children, self.seen = [], 0

    def read(self, offset, size):
        child = os.fork()
        self.children += [child] * (child > 0)
        self.seen += 1
        return 7

    def write(self, offset, size, value):
        self.read(offset, size)
"""
ELSEWHERE = "belongs to process PARENT, of which this one is a fork"
COUNT = 5

SERVE = PREAMBLE + """
with bench(posted_slots=64) as b:
    device = Forking()
    owner, _, client = b.connect(device, posted={posted})
    told = []
    accesses = threading.Thread(target=lambda: [told.append(int({access})) for _ in range({count})])
    accesses.start()
    while device.seen < {count}:
        if code := refused(lambda: owner.turn(500_000)):
            os._exit(code)
    accesses.join()
    codes = [status(child) for child in device.children]
    print(told)
    print(codes, device.seen, b.fabric.shard_counters(0).malformed)
    print(b.fabric.vcpu_counters(0).malformed)
"""


@pytest.mark.parametrize(
    ("access", "posted", "answer"),
    [
        ("client.read(MMIO, BASE, 4)[1]", False, 7),
        ("client.write(MMIO, BASE, 4, 1)", False, 0),
        ("client.write(MMIO, BASE, 4, 1)", True, 0),
    ],
    ids=["read", "write", "posted"],
)
def test_a_child_that_comes_back_from_a_handler_serves_nothing(
    access: str, posted: bool, answer: int
) -> None:
    lines = in_a_process(SERVE.format(access=access, posted=posted, count=COUNT)).splitlines()

    assert lines[:COUNT] == [f"the owner of shard 0 {ELSEWHERE}"] * COUNT
    assert lines[COUNT:] == [str([answer] * COUNT), f"{[3] * COUNT} {COUNT} 0", "0"]


OUTSIDE = PREAMBLE + """
from tests.fabric.support import Log

with bench() as b:
    owner, _, client = b.connect(Log())
    assert client.view  # the port is this process's now
    child = os.fork()
    if child == 0:
        owner.close()
        uses = [use for name, use in each(owner).items() if name != "close"]
        uses += [lambda: client.read(MMIO, BASE, 4), lambda: client.write(MMIO, BASE, 4, 1)]
        codes = [refused(use) for use in uses]
        fabric = b.fabric
        os._exit(9 if set(codes) == {3} and fabric.waits(0, 0).reads == 0 else 1)
    print(status(child))
    with b.serving(owner):
        print(*map(int, client.read(MMIO, BASE, 4)), int(client.write(MMIO, BASE, 4, 1)))
"""


def test_a_fork_may_read_the_fabric_but_neither_serve_nor_ask() -> None:
    lines = in_a_process(OUTSIDE).splitlines()

    owner, port = f"the owner of shard 0 {ELSEWHERE}", "vCPU 0's port is in use by process PARENT"
    assert lines[:-2] == [owner] * 6 + [port] * 2
    assert lines[-2:] == ["9", "0 1 0"]


FLAGS = PREAMBLE + """
with fresh_fabric(1, 1, 8, 8) as fabric:
    owner = Owner(fabric, 0)
    with open("/proc/self/smaps") as smaps:
        lines = smaps.readlines()
    begins = [n for n, line in enumerate(lines) if "/memfd:fabric" in line]
    flags = [next(line for line in lines[n:] if line.startswith("VmFlags")).split() for n in begins]
    print(sorted("dc" in each for each in flags))
    owner.close()
"""


def test_no_child_inherits_an_owners_mapping() -> None:
    assert in_a_process(FLAGS).strip() == "[False, True]"
