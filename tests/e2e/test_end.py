"""The access that asks for the machine's end is the last that its vCPU makes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from shardio import MutDevicePio
from tests.e2e.support import machine

ROUNDS = 5


class Ender(MutDevicePio):
    """Port 0 ends the machine; at port 1 accesses are counted."""

    pio_size = 2

    def __init__(self, how: str) -> None:
        self.how = how
        self.later = 0
        self.host: Any = None

    def attach(self, host: Any) -> None:
        self.host = host

    def end(self) -> None:
        if self.how == "exit":
            self.host.exit(5)
        else:
            self.host.reset()

    def read(self, offset: int, size: int) -> int:
        if offset:
            self.later += 1
        else:
            self.end()
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self.read(offset, size)

    def count(self) -> int:
        return self.later


# in or out at port 0x80, then again and again at port 0x81
CODE = {"read": b"\xe4\x80\xe4\x81\xeb\xfc", "write": b"\xe6\x80\xe6\x81\xeb\xfc"}


@pytest.mark.parametrize(("direction", "how"), [("read", "reset"), ("write", "exit")])
def test_the_guest_makes_no_access_after_the_one_that_ends_the_machine(direction: str, how: str) -> None:
    for _ in range(ROUNDS):
        with machine(shards=1) as vm:
            vm.load(CODE[direction])
            ender = vm.add(Ender, pio=0x80, how=how)
            vm.start()
            ended = vm.wait()
            assert ended is not None
            assert (ended.reason, ended.status) == (how, 5 if how == "exit" else None)
            assert ender.call("count") == 0


class Deadly(MutDevicePio):
    """A write ends its shard."""

    pio_size = 1

    def write(self, offset: int, size: int, value: int) -> None:
        os._exit(1)


def test_the_end_names_the_devices_that_were_quarantined() -> None:
    with machine(shards=["lamps", "ends"]) as vm:
        # out 0x90 until its range is quarantined, then out 0x80
        vm.load(b"\xb9\x0a\x00\xe6\x90\xe2\xfc\xe6\x80\xf4")
        vm.add(Deadly, pio=0x90, name="lamp", shard="lamps", policy="replay")
        vm.add(Ender, pio=0x80, shard="ends", how="exit")
        ended = vm.run()

        assert (ended.reason, ended.quarantined) == ("exit", ("lamp",))
