"""Debian's SeaBIOS on KVM with the devices of a PC, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardio.devices import I8042, CmosRtc, DebugConsole, FwCfg, PciHost, Port92, PostPort, Uart16550
from shardio.kvm.firmware import load_firmware
from shardio.range import PioRange
from tests.kvm.tiny_vmm import tiny_vmm

SEABIOS = Path("/usr/share/seabios/bios.bin")
LAST_WORDS = b"No bootable device."

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(not SEABIOS.exists(), reason="SeaBIOS is not installed: apt-get install seabios"),
]


class WatchedConsole(DebugConsole):
    """Keeps what is printed, and stops the vCPU that has said the last words."""

    def __init__(self, stop) -> None:
        super().__init__(output="null")
        self.text = bytearray()
        self.stop = stop

    def write(self, offset: int, size: int, value: int) -> None:
        self.text.append(value)
        if self.text.endswith(LAST_WORDS):
            self.stop()


@pytest.mark.parametrize("vcpus", [2])
def test_seabios_comes_to_the_end(vcpus, tmp_path):
    with tiny_vmm(vcpus=vcpus, memory=64 << 20) as vmm:
        load_firmware(vmm.vm, vmm.memory, SEABIOS)
        console = WatchedConsole(vmm.vcpus[0].kick)
        uart = Uart16550(output=f"file:{tmp_path}/com1")
        for device, base in [
            (uart, 0x3F8), (console, 0x402), (CmosRtc(memory="64M", vcpus=vcpus), 0x70), (FwCfg(), 0x510),
            (PciHost(), 0xCF8), (I8042(), 0x60), (Port92(), 0x92), (PostPort(), 0x80),
        ]:
            vmm.io.register_pio(PioRange(base, device.pio_size), device)
        vmm.run()
    uart.detach()
    text = console.text.decode()
    assert "qemu/e820: addr 0x0000000000000000 len 0x0000000004000000 [RAM]" in text
    assert f"Found {vcpus} cpu(s) max supported {vcpus} cpu(s)" in text
    assert "PS2 keyboard initialized" in text
    assert "SeaBIOS (version" in (tmp_path / "com1").read_text()
