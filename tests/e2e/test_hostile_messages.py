"""A device that sends a message of a mode that it does not declare: refused, and the machine goes on."""

from __future__ import annotations

import pytest

from shardio import Machine, MachineError, MutDeviceMmio
from shardio.device import DeviceHost
from shardio.dispatcher import DeviceHandle
from shardio.interrupt import MsiConfig
from tests.e2e.support import MMIO, machine

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(120)]

LOOP = b"\xeb\xfe"
NMI, INIT = 0x400, 0x500
"""Delivery modes in a message's data (Intel SDM volume 3, section 11.11.2)."""


class Sender(MutDeviceMmio):
    """Sends the messages that it is told to."""

    mmio_size = 16

    def attach(self, host: DeviceHost) -> None:
        self.message = host.interrupts.message()

    def read(self, offset: int, size: int) -> int:
        return 0

    def send(self, data: int) -> None:
        """To the local APIC of vCPU 0."""
        self.message.configure(MsiConfig(0xFEE0_0000, data))
        self.message.enable()
        self.message.trigger()


class Watchdog(Sender):
    """The same, and it declares an NMI."""

    message_modes = ("nmi",)


def started(vm: Machine, device: type[Sender]) -> tuple[DeviceHandle, DeviceHandle]:
    """A device of that class, and one of another shard that declares nothing."""
    vm.load(LOOP)
    one = vm.add(device, mmio=MMIO, shard="one", name="one")
    other = vm.add(Sender, mmio=MMIO + 16, shard="two", name="other")
    vm.start()
    return one, other


@pytest.mark.parametrize(("data", "mode"), [(NMI, "nmi"), (INIT, "init")])
def test_a_mode_that_is_not_declared_is_refused_and_the_machine_goes_on(data: int, mode: str) -> None:
    with machine(shards=2) as vm:
        one, other = started(vm, Sender)
        with pytest.raises(MachineError, match=f"delivery mode {mode}"):
            one.call("send", data)
        other.call("send", 0x31)
        shards = {shard.name: shard.spawns for shard in vm.statistics().shards}
        assert vm.wait(0.0) is None

    assert (shards["one"], shards["two"]) == (1, 1)


def test_what_one_device_declares_is_not_another_shard_s() -> None:
    with machine(shards=2) as vm:
        _, other = started(vm, Watchdog)
        with pytest.raises(MachineError, match="delivery mode nmi"):
            other.call("send", NMI)
