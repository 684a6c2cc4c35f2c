"""SeaBIOS and its VGA BIOS write on a screen that the host can read; the machine is a configuration's."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardio.config import build, machine_config
from tests.e2e.support import console, read_until
from tests.platform.reading import read_acpi

SEABIOS = Path("/usr/share/seabios")

pytestmark = [
    pytest.mark.machine,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not SEABIOS.exists(), reason=f"{SEABIOS} is missing: apt-get install seabios"),
]


def test_the_bios_is_on_the_screen_and_its_tables_in_memory(tmp_path: Path) -> None:
    tables = [
        {"type": "shardio.devices:VgaText", "name": "vga"},
        {"type": "shardio.devices:FwCfg", "pio": 0x510, "sercon_port": 0,
         "files": [f"vgaroms/vgabios.bin={SEABIOS}/vgabios-isavga.bin"]},
        {"type": "shardio.devices:DebugConsole", "pio": 0x402, "output": f"file:{tmp_path / 'debug'}"},
    ]  # fmt: skip
    config = machine_config({"machine": {"firmware": "bios.bin"}, "device": tables}, where="test")
    with console(tmp_path / "debug") as log, build(config) as vm:  # its serial port has no standard input
        vm.start()
        text = read_until(log, b"No bootable device.")
        (vga,) = (device for device in vm.dispatcher.devices if device.name == "vga")
        lines = vga.call("screen").splitlines()
        row, _ = vga.call("cursor")
        vm.stop()
        published = read_acpi(vm.memory)  # what the machine told by fw_cfg

    assert b"Found 1 cpu(s)" in text
    assert lines[0].startswith("SeaBIOS (version ")
    assert "Booting from Hard Disk..." in lines
    assert row >= len(lines) - 1
    assert published.keys() == {"XSDT", "FACP", "APIC", "DSDT"}
