"""A guest asleep in HLT, woken only by the UART's and the RTC's interrupts, each device in a shard of its
own.
"""

from __future__ import annotations

import os

import pytest

from shardio import Machine
from tests.guests.build import guest

pytestmark = pytest.mark.machine


def test_a_sleeping_guest_gets_every_byte_and_every_tick(tmp_path):
    keys = bytes(range(1, 251))
    os.mkfifo(tmp_path / "keys")
    with Machine(memory="2M", vcpus=1) as vm:
        (tmp_path / "guest.bin").write_bytes(guest("hlt_irq", UART_COUNT=len(keys), RTC_COUNT=20))
        vm.load(tmp_path / "guest.bin", at=0x1000)
        vm.add(
            "shardio.devices:Uart16550", pio=0x3F8, irq=4, shard="uart",
            input=f"file:{tmp_path}/keys", output=f"file:{tmp_path}/echo",
        )
        vm.add("shardio.devices:CmosRtc", pio=0x70, irq=8, shard="rtc")
        vm.add("shardio.devices:ExitPort", pio=0xF4, shard="rtc", raw=True)
        vm.start()
        with (tmp_path / "keys").open("wb", buffering=0) as typing:
            for key in keys:
                typing.write(bytes((key,)))
        ended = vm.wait(timeout=30)
    assert ended is not None
    assert ended.status == 0
    assert (tmp_path / "echo").read_bytes() == keys
