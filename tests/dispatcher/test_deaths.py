"""Shards that die while the dispatcher changes its devices: what was asked for is done all the same."""

from __future__ import annotations

import os
import signal

from shardio import Dispatcher, MutDeviceMmio

BASE = 0xD000_0000


class Departing(MutDeviceMmio):
    """Its shard dies while it is detached."""

    def read(self, offset: int, size: int) -> int:
        return 7

    def detach(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Staying(MutDeviceMmio):
    """It answers."""

    def read(self, offset: int, size: int) -> int:
        return 8


def test_a_device_whose_shard_dies_of_its_removal_is_removed() -> None:
    with Dispatcher(vcpus=1, shards=1) as d:
        d.add(Departing, mmio=BASE, size=8)
        port, data = d.port(0), bytearray(4)
        port.mmio_read(BASE, data)

        d.remove("Departing")
        d.add(Staying, mmio=BASE, size=8)
        port.mmio_read(BASE, data)

        assert int.from_bytes(data, "little") == 8
        assert [device.name for device in d.devices] == ["Staying"]
