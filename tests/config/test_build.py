"""shardio.config.build: the machine that a configuration describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardio.config import build, load_config, machine_config
from shardio.errors import ImageError
from shardio.range import PioRange
from tests.boot.images import Part, elf32
from tests.config.devices import lamp

KERNEL = elf32(Part(b"\xf4" * 16, 0x10_0000), entry=0x10_0000)
MP, ACPI = b"_MP_", b"RSD PTR "


@pytest.mark.kvm
def test_machine_is_built_as_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "guest.bin").write_bytes(b"\xf4")
    config = machine_config(
        {
            "machine": {"image": "guest.bin", "vcpus": 2, "memory": "8M", "pin": False, "hang_deadline": 2.5},
            "device": [lamp(name="lamp", shard="hall", posted=True, policy="fail", colour="red")],
        },
        where="m.toml",
        folder=tmp_path,
    )

    with build(config) as machine:
        handle = machine.dispatcher.devices[0]

    assert (machine.vcpus, machine.memory.size) == (2, 8 << 20)
    assert (handle.request.shard, handle.request.posted, handle.request.policy) == ("hall", "ring", "fail")
    assert handle.spans == (PioRange(0x300, 4),)


@pytest.mark.kvm
def test_machine_that_cannot_be_built_leaves_nothing(tmp_path: Path) -> None:
    config = machine_config({"machine": {"image": "none.bin"}}, where="m.toml", folder=tmp_path)

    with pytest.raises(ImageError, match=r"none\.bin"):
        build(config)


def started(tmp_path: Path, **keys: object) -> bytes:
    """What lies between 0xE0000 and 1 MiB once the machine of these keys has begun, HLT its first step."""
    (tmp_path / "kernel").write_bytes(KERNEL)
    lines = [f"{key} = {value}\n" for key, value in keys.items()]
    (tmp_path / "m.toml").write_text("".join(["[machine]\n", *lines]))
    with build(load_config(tmp_path / "m.toml")) as vm:
        vm.start()
        return vm.memory.read(0xE0000, 0x20000)


@pytest.mark.parametrize(
    ("keys", "signatures"),
    [
        ({}, {ACPI, MP}),
        ({"tables": '"acpi"'}, {ACPI}),
        ({"tables": '"none"'}, set()),
        ({"platform": "false"}, set()),
        ({"platform": "false", "tables": '"both"'}, {ACPI, MP}),
        ({"irqchip": "false"}, set()),
    ],
)
def test_a_kernel_finds_tables(keys: dict[str, str], signatures: set[bytes], tmp_path: Path) -> None:
    high = started(tmp_path, kernel='"kernel"', cpu='"soft"', memory='"2M"', **keys)

    assert {signature for signature in (ACPI, MP) if signature in high} == signatures


def test_a_bad_kernel_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"MZ" + bytes(600))
    config = machine_config({"machine": {"kernel": "kernel", "cpu": "soft"}}, where="m.toml", folder=tmp_path)

    with pytest.raises(ImageError, match="magic at offset 0x0"):
        build(config)
