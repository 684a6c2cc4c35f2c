"""A guest reads and writes a disk through the IDE controller, and SeaBIOS boots from one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shardio.dispatcher import ExitInfo
from tests.devices.ide.disc import bootable_disc
from tests.devices.ide.guest import SECTOR, TYPE, image_of
from tests.e2e.support import PATIENCE_S, add_exit_port, command, machine, result
from tests.guests.build import guest

BIOS = Path("/usr/share/seabios/bios.bin")
READY, INTERRUPT = 0x50, 0x04

pytestmark = pytest.mark.machine


@pytest.mark.parametrize("count", [1, 8])
def test_sectors_go_by_string_instructions_and_by_dma(tmp_path: Path, count: int) -> None:
    image = tmp_path / "disk.img"
    before = image_of(image, 100)
    with machine(shards=1) as vm:
        vm.load(guest("ide", COUNT=count))
        functions = [{"type": TYPE, "hda": str(image)}]
        vm.add("shardio.devices:PciBus", pio=0xCF8, functions=functions)
        add_exit_port(vm)
        ended = vm.run(PATIENCE_S)
        told = [result(vm, offset) for offset in (4, 8, 12, 16)]
        by_pio, by_dma = (vm.memory.read(at, count * SECTOR) for at in (0x3_0000, 0x4_0000))

    wanted = before[: count * SECTOR]
    assert ended == ExitInfo("exit", status=0)
    assert told == [READY, READY, INTERRUPT, READY]
    assert (by_pio, by_dma) == (wanted, wanted)
    assert image.read_bytes() == before[: 64 * SECTOR] + wanted + before[(64 + count) * SECTOR :]


@pytest.mark.timeout(180)
@pytest.mark.skipif(not BIOS.exists(), reason=f"{BIOS} is missing: apt-get install seabios")
@pytest.mark.parametrize(("option", "found", "content"), [
    ("hda", b"ata0-0: SHARDIO DISK ATA-6 Hard-Disk (1 MiBytes)", lambda code: code.ljust(1 << 20, b"\0")),
    ("cdrom", b"DVD/CD [ata1-0: SHARDIO CD-ROM ATAPI-6 DVD/CD]", bootable_disc),
])  # fmt: skip
def test_seabios_boots(tmp_path: Path, option: str, found: bytes, content: Callable[[bytes], bytes]) -> None:
    (tmp_path / "image").write_bytes(content(guest("boot_sector")))
    (tmp_path / "vm.toml").write_text(f"""
        [machine]
        firmware = "bios.bin"
        [[device]]
        type = "shardio.devices:PciBus"
        pio = 0xcf8
        functions = [{{ type = "{TYPE}", {option} = "{tmp_path}/image" }}]
    """)
    with command("run", tmp_path / "vm.toml") as process:
        text, _ = process.communicate(timeout=PATIENCE_S)

    assert found in text
    assert b"The boot sector is here" in text
    assert process.returncode == 0x10 << 1 | 1
