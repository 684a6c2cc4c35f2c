"""shardio.config.file: a configuration that is read, and one that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shardio.config import MachineConfig, as_toml, load_config, machine_config
from shardio.config.build import kinds_of_tables
from shardio.errors import ConfigError
from tests.config.devices import DEVICES, LAMP


def test_file_with_everything(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(
        f"""
        [machine]
        vcpus = 2
        cpu = "kvm"
        memory = "128M"
        shards = 3
        irqchip = true
        repairs = false
        image = "guest.bin"
        at = 0x2000
        entry = "0x2040"
        mode = "protected"
        pin = false
        hang_deadline = 1

        [[device]]
        type = "{LAMP}"
        pio = 0x3f8
        size = 8
        irq = 4
        shard = "serial"
        colour = "red"
        steps = [1, 2]

        [[device]]
        type = "{LAMP}"
        name = "second"
        mmio = "0xd0000000"
        size = "0x1000"
        posted = true
        policy = "replay"
        ratio = 2
        """
    )

    config = load_config(file)

    assert (config.vcpus, config.cpu, config.memory, config.shards) == (2, "kvm", 128 << 20, 3)
    assert (config.image, config.at, config.entry) == (tmp_path / "guest.bin", 0x2000, 0x2040)
    assert (config.mode, config.pin, config.hang_deadline, config.repairs) == ("protected", False, 1.0, False)
    first, second = config.devices
    assert (first.pio, first.size, first.irq, first.shard) == (0x3F8, 8, 4, "serial")
    assert first.options == {"colour": "red", "steps": [1, 2]}
    assert (second.mmio, second.size, second.posted, second.policy) == (0xD000_0000, 0x1000, True, "replay")
    assert (second.label, second.options) == ("second", {"ratio": 2})


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text("")

    assert load_config(file) == MachineConfig()


def test_options_whose_names_the_configuration_has_go_into_a_table_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(
        f'''
        [[device]]
        type = "{DEVICES}:Named"
        pio = 0x300
        size = 2
        name = "outer"
        [device.options]
        size = 7
        name = "inner"
        '''
    )

    (device,) = load_config(file).devices

    assert (device.size, device.name, device.options) == (2, "outer", {"size": 7, "name": "inner"})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("machine = 1", "is no table"),
        ("device = 1", "is no list of tables"),
        ("devices = []", 'did you mean "device"?'),
        ("[machine", "not TOML"),
    ],
)
def test_refused_file(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=f"{file}.*") as refused:
        load_config(file)

    assert part in str(refused.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")


def test_paths_of_a_kernel_are_from_the_file_s_folder(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[machine]\nkernel = "k"\ninitrd = "/i"\ncommand_line = "a=b"\n')

    config = load_config(tmp_path / "m.toml")

    assert (config.kernel, config.initrd, config.command_line) == (tmp_path / "k", Path("/i"), "a=b")


@pytest.mark.parametrize(
    "machine",
    [
        {"firmware": "/bios.bin", "vcpus": 2, "disks": ["/a.img"], "nets": ["tap:t0"]},
        {"kernel": "/vmlinux", "initrd": "/initrd", "command_line": 'quiet "x"', "memory": 1 << 30},
        {"kernel": "/vmlinux", "tables": "mp", "irqchip": True, "shards": 3},
        {"payload": "/grub.elf", "cpu": "soft", "irqchip": False},
        {"image": "/guest.bin", "at": 0x2000, "mode": "long", "hang_deadline": 2.5},
    ],
)
def test_a_configuration_that_is_written_is_the_same_when_it_is_read(
    machine: dict[str, Any], tmp_path: Path
) -> None:
    device = {"type": f"{DEVICES}:Named", "pio": 0x600, "size": 8, "options": {"size": 3}}
    written = machine_config({"machine": machine, "device": [device]}, where="m")
    file = tmp_path / "machine.toml"

    file.write_text(as_toml(written))
    again = load_config(file)

    assert as_toml(again) == file.read_text()
    assert again.devices == written.devices
    assert kinds_of_tables(again) == kinds_of_tables(written)
