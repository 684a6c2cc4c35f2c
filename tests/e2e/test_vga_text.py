"""SeaBIOS and its VGA BIOS write on a screen that the host can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from shardio.config import build, machine_config
from tests.e2e.support import console, read_until

SEABIOS = Path("/usr/share/seabios")

pytestmark = [
    pytest.mark.machine,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not SEABIOS.exists(), reason=f"{SEABIOS} is missing: apt-get install seabios"),
]


def test_the_bios_is_on_the_screen(tmp_path: Path) -> None:
    tables = [
        {"type": "shardio.devices:VgaText", "name": "vga"},
        {"type": "shardio.devices:FwCfg", "pio": 0x510, "sercon_port": 0,
         "files": [f"vgaroms/vgabios.bin={SEABIOS}/vgabios-isavga.bin"]},
        {"type": "shardio.devices:DebugConsole", "pio": 0x402, "output": f"file:{tmp_path / 'debug'}"},
    ]  # fmt: skip
    config = machine_config({"machine": {"firmware": "bios.bin"}, "device": tables}, where="test")
    quiet = [device for device in config.devices if device.name != "com1"]
    with console(tmp_path / "debug") as log, build(replace(config, devices=tuple(quiet))) as vm:
        vm.start()
        read_until(log, b"No bootable device.")
        (vga,) = (device for device in vm.dispatcher.devices if device.name == "vga")
        lines = vga.call("screen").splitlines()
        row, _ = vga.call("cursor")

    assert lines[0].startswith("SeaBIOS (version ")
    assert "Booting from Hard Disk..." in lines
    assert row >= len(lines) - 1
