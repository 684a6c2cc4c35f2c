"""A shard with thousands of devices, each of which asks the VMM for an interrupt while it is made.

The messages that name the devices do not fit into the shard's socket at once, and the shard asks the VMM
before it has read them all. Neither may wait for the other, at the start and after a death.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator

import pytest

from shardio import Machine, MutDeviceMmio
from shardio.dispatcher import DeviceHandle
from tests.e2e.support import MMIO, machine, until

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(180)]

LINED = 1200
MESSAGES = 400
"""Of 4072 GSIs of messages that KVM has."""
OPEN_FILES = 4096
PAD = bytes(2000)
LOOP = b"\xeb\xfe"


class Asking(MutDeviceMmio):
    """Asks for a message of its own in `attach`, unless it has a line."""

    def __init__(self, pad: bytes) -> None:
        self.pad = pad

    def attach(self, host) -> None:  # type: ignore[no-untyped-def]
        self.message = host.trigger or host.interrupts.message()

    def read(self, offset: int, size: int) -> int:
        return len(self.pad)

    def length(self) -> int:
        return len(self.pad)


def asking(vm: Machine) -> list[DeviceHandle]:
    handles = []
    for number in range(LINED + MESSAGES):
        lined = number < LINED
        handle = vm.add(
            Asking,
            mmio=MMIO + 16 * number,
            size=16,
            shard="one",
            pad=PAD,
            irq=5 if lined else None,
            irq_mode="level" if lined else None,
        )
        handles.append(handle)
    return handles


def pid_of_one(vm: Machine) -> int:
    return next(shard.pid for shard in vm.statistics().shards if shard.name == "one")


@pytest.fixture
def room() -> Iterator[None]:
    """Open files for all these interrupts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < OPEN_FILES:
        pytest.skip(f"{hard} open files are too few for these interrupts")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, OPEN_FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("room")
def test_thousands_of_devices_ask_for_interrupts_while_they_are_made() -> None:
    with machine(vcpus=1) as vm:
        handles = asking(vm)
        vm.load(LOOP, at=0x1000)
        vm.start()
        before = pid_of_one(vm)
        os.kill(before, signal.SIGKILL)
        until(lambda: pid_of_one(vm) not in (0, before), "a successor is there")

        assert [handles[at].call("length") for at in (0, LINED, LINED + MESSAGES - 1)] == [len(PAD)] * 3
