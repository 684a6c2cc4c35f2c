"""ACPI tables as files of fw_cfg, loaded as a firmware does: what `acpi_tables` would make."""

from __future__ import annotations

import struct

import pytest

from shardio.memory import GuestMemory
from shardio.platform import acpi_files, acpi_tables
from tests.platform.reading import read_acpi
from tests.platform.test_tables import hardware

TABLES_AT, RSDP_AT = 0x10_0040, 0xF_5A00


def load(files: dict[str, bytes], memory: GuestMemory) -> None:
    """What firmware does with the script: QEMU's hw/acpi/bios-linker-loader.c."""
    at = {"etc/acpi/tables": TABLES_AT, "etc/acpi/rsdp": RSDP_AT}
    script = files["etc/table-loader"]
    assert len(script) % 128 == 0
    for start in range(0, len(script), 128):
        (command,), rest = struct.unpack_from("<I", script, start), script[start + 4 : start + 128]
        name = rest[:56].rstrip(b"\0").decode()
        if command == 1:
            alignment, zone = struct.unpack_from("<IB", rest, 56)
            assert not at[name] % alignment
            assert zone == (2 if name.endswith("rsdp") else 1)
            memory.write(at[name], files[name])
        elif command == 2:
            source = rest[56:112].rstrip(b"\0").decode()
            offset, size = struct.unpack_from("<IB", rest, 112)
            value = int.from_bytes(memory.read(at[name] + offset, size), "little") + at[source]
            memory.write(at[name] + offset, value.to_bytes(size, "little"))
        else:
            assert command == 3
            offset, first, length = struct.unpack_from("<III", rest, 56)
            summed = sum(memory.read(at[name] + first, length))
            byte = memory.read(at[name] + offset, 1)[0]
            memory.write(at[name] + offset, bytes([byte - summed & 0xFF]))


@pytest.mark.parametrize("vcpus", [1, 4])
def test_what_firmware_loads_is_what_a_kernel_finds_without_it(vcpus: int) -> None:
    with GuestMemory(4 << 20) as memory, GuestMemory(4 << 20) as other:
        described = hardware(memory, vcpus=vcpus)
        load(acpi_files(described), memory)
        other.write(0xE_0000, acpi_tables(described, 0xE_0000))
        found, expected = read_acpi(memory), read_acpi(other)
    assert found.keys() == expected.keys() > {"FACP", "APIC", "DSDT"}
    assert found["DSDT"] == expected["DSDT"]
    assert found["APIC"] == expected["APIC"]
