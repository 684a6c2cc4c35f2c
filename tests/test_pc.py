"""shardio.pc and how a configuration takes its devices in."""

from __future__ import annotations

from typing import Any

import pytest

from shardio import pc
from shardio.config import MachineConfig, machine_config, with_devices
from shardio.dispatcher.arguments import device_request
from shardio.errors import ConfigError

MEMORY = 64 << 20


def machine(*devices: dict[str, Any], **keys: Any) -> MachineConfig:
    return machine_config({"machine": keys, "device": list(devices)}, where="m.toml")


@pytest.mark.parametrize(
    "tables", [pc.console_devices(), pc.kernel_devices(MEMORY, 4), pc.firmware_devices(MEMORY, 4)]
)
def test_every_device_is_valid_and_none_overlap(tables: list[dict[str, Any]]) -> None:
    config = with_devices(MachineConfig(memory=MEMORY), tables)

    assert len(config.devices) == len(tables)


def test_firmware_brings_the_platform() -> None:
    config = machine(firmware="bios.bin", vcpus=4, memory="128M")

    by_name = {device.name: device for device in config.devices}
    names = {"com1", "exit", "debugcon", "rtc", "fw_cfg", "pci", "i8042", "port92", "post", "vga", "power"}
    assert set(by_name) == names
    assert by_name["rtc"].options == {"memory": 128 << 20, "vcpus": 4}
    assert by_name["fw_cfg"].options == {"memory": 128 << 20, "vcpus": 4}
    assert (by_name["com1"].irq, by_name["rtc"].irq) == (4, 8)


@pytest.mark.parametrize("key", ["kernel", "payload"])
def test_a_kernel_brings_what_it_finds_without_firmware(key: str) -> None:
    config = machine(**{key: "file"})

    names = {"com1", "exit", "rtc", "pci", "i8042", "vga", "power"}
    assert {device.name for device in config.devices} == names


@pytest.mark.parametrize("key", ["firmware", "kernel", "payload"])
def test_platform_false_brings_none(key: str) -> None:
    assert machine(**{key: "file"}, platform=False).devices == ()


def test_without_an_irqchip_the_platform_is_polled() -> None:
    config = machine(firmware="bios.bin", irqchip=False)

    assert {device.irq for device in config.devices} == {None}


def test_image_in_a_file_brings_none() -> None:
    assert machine(image="guest.bin").devices == ()


def test_named_device_stands_in_for_the_platform_s() -> None:
    own = {"type": "shardio.devices:Echo", "pio": 0x3F0, "size": 16, "name": "rtc"}

    config = machine(own, firmware="bios.bin")

    labels = [device.label for device in config.devices]
    assert labels.count("rtc") == 1
    assert "com1" not in labels
    assert "CmosRtc" in labels


def test_a_line_that_the_platform_needs_is_told() -> None:
    own = {"type": "shardio.devices:Echo", "pio": 0x300, "size": 16, "irq": 4}

    with pytest.raises(ConfigError, match=r'platform "com1": .*share irq 4'):
        machine(own, firmware="bios.bin")


@pytest.mark.parametrize(
    ("irqchip", "ports"), [(True, [(0x60, 1), (0x64, 1)]), ("split", [(0x60, 5)]), (False, [(0x60, 5)])]
)
def test_port_0x61_is_the_pit_s_where_there_is_one(irqchip: bool | str, ports: list[tuple[int, int]]) -> None:
    config = machine(firmware="bios.bin", irqchip=irqchip)

    (keyboard,) = [device for device in config.devices if device.name == "i8042"]
    spans = device_request(keyboard.type, **keyboard.arguments).spans
    assert [(int(span.base), span.size) for span in spans] == ports


def test_on_the_software_cpu_the_platform_lies_beside_the_controllers() -> None:
    config = machine(firmware="bios.bin", cpu="soft")

    assert "i8042" in {device.name for device in config.devices}


def test_on_the_software_cpu_the_controllers_are_devices_in_the_way() -> None:
    own = {"type": "shardio.devices:Echo", "pio": 0x40, "size": 4}

    with pytest.raises(ConfigError, match="overlaps device Pit"):
        machine(own, cpu="soft")


def test_drives_for_firmware_are_behind_an_ide_controller() -> None:
    config = machine(firmware="bios.bin", disks=["/a", "/b"], cdrom="/c", nets=["tap:t0", "pair:/x,/y"])

    (bus,) = [device for device in config.devices if device.name == "pci"]
    drives, first, second = bus.options["functions"]
    assert bus.type == "shardio.devices:PciBus"
    assert drives == {"type": "shardio.devices.ide:PiixIde", "hda": "/a", "hdb": "/b", "cdrom": "/c"}
    assert (first["tap"], second["local"], second["peer"]) == ("t0", "/x", "/y")
    assert first["mac"] != second["mac"]


def test_disks_for_a_kernel_are_virtio_devices() -> None:
    config = machine(kernel="vmlinux", disks=["/a", "/b"])

    (bus,) = [device for device in config.devices if device.name == "pci"]
    assert [table["path"] for table in bus.options["functions"]] == ["/a", "/b"]
    assert {table["type"] for table in bus.options["functions"]} == {"shardio.devices.virtio:VirtioPciBlock"}


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"firmware": "b", "disks": ["/1", "/2", "/3", "/4", "/5"]}, "room for 4"),
        ({"firmware": "b", "disks": ["/1", "/2", "/3", "/4"], "cdrom": "/c"}, "room for 3"),
        ({"kernel": "b", "nets": ["tap0"]}, '"tap0" is no network'),
        ({"kernel": "b", "nets": ["tap:"]}, "no network"),
        ({"kernel": "b", "nets": ["pair:/a"]}, "no network"),
        ({"image": "b", "disks": ["/1"]}, "there is none"),
        ({"firmware": "b", "disks": ["/1"], "platform": False}, "there is none"),
    ],
)
def test_drives_that_cannot_be_are_refused(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        machine(**keys)
