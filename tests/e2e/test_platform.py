"""The platform around the devices: tables that a kernel finds, a keyboard that wakes, a reset that resets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardio import Machine
from shardio.config import build, machine_config
from shardio.devices.virtio import VirtioMmioRng
from shardio.dispatcher import ExitInfo
from shardio.errors import ConfigError, ImageError, MachineError
from tests.e2e.support import MMIO, PATIENCE_S, add_exit_port, machine, result, until
from tests.guests.build import guest
from tests.platform.reading import read_acpi, read_dsdt, read_madt, read_mp

pytestmark = pytest.mark.machine

CODES_AT = 0x9100
LEVEL_HIGH = 0x000D


def add_devices(vm: Machine) -> None:
    """A serial line, the keyboard controller, and two virtio devices of which one has a level line."""
    vm.add("shardio.devices:Uart16550", pio=0x3F8, irq=4, output="null")
    vm.add("shardio.devices:I8042", irq=1)
    vm.add(VirtioMmioRng, mmio=MMIO, irq=5, name="edge")
    vm.add(VirtioMmioRng, mmio=MMIO + 0x1000, irq=6, irq_mode="level", name="level")
    add_exit_port(vm)


# ---- tables ----


def test_acpi_tables_hold_what_the_machine_holds() -> None:
    with machine(vcpus=2, shards=1) as vm:
        vm.load(guest("hello"))
        vm.load_tables("acpi")
        add_devices(vm)

        vm.run(PATIENCE_S)

        tables = read_acpi(vm.memory)
    devices = read_dsdt(tables["DSDT"])
    entries = read_madt(tables["APIC"])
    assert set(devices) == {"C000", "C001", "V000", "V001", "COM1", "KBD_", "MOU_"}
    assert len(entries[0]) == 2
    assert [entry[1] for entry in entries[2]] == [6]


def test_mp_table_holds_what_the_machine_holds() -> None:
    with machine(vcpus=4, shards=1) as vm:
        vm.load(guest("hello"))
        vm.load_tables("mp")
        add_devices(vm)

        vm.run(PATIENCE_S)

        table = read_mp(vm.memory)
    assert list(table.processors) == [0, 1, 2, 3]
    assert [line for _, flags, _, line, _, _ in table.interrupts if flags == LEVEL_HIGH] == [6]


def test_a_configuration_asks_for_tables(tmp_path: Path) -> None:
    (tmp_path / "guest").write_bytes(guest("hello"))
    tables = {
        "machine": {"image": "guest", "tables": "mp"},
        "device": [{"type": "shardio.devices:ExitPort", "pio": 0xF4}],
    }

    with build(machine_config(tables, where="test", folder=tmp_path)) as vm:
        vm.run(PATIENCE_S)
        table = read_mp(vm.memory)
    assert list(table.processors) == [0]


def test_a_configuration_with_unknown_tables_is_refused() -> None:
    with pytest.raises(ConfigError, match="tables"):
        machine_config({"machine": {"tables": "smbios"}}, where="test")


def test_tables_are_refused_where_they_would_lie(tmp_path: Path) -> None:
    (tmp_path / "bios.bin").write_bytes(bytes(0x10000))
    with machine(irqchip=False) as vm, pytest.raises(MachineError, match="interrupt controllers"):
        vm.load_tables("mp")
    with machine() as vm:
        with pytest.raises(MachineError, match="no tables 'smbios'"):
            vm.load_tables("smbios")
        vm.load_tables("acpi")
        with pytest.raises(MachineError, match="firmware"):
            vm.load_firmware(tmp_path / "bios.bin")


def test_firmware_that_failed_to_load_is_no_firmware(tmp_path: Path) -> None:
    with machine() as vm:
        with pytest.raises(ImageError):
            vm.load_firmware(tmp_path / "missing")
        vm.load_tables("acpi")
        assert vm.hardware.devices == ()


# ---- keyboard controller ----


def test_scan_codes_wake_the_guest_and_it_resets_the_machine() -> None:
    with machine(shards=1) as vm:
        vm.load(guest("keyboard", COUNT=5))
        keyboard = vm.add("shardio.devices:I8042", irq=1)
        vm.start()
        until(lambda: result(vm, 12) == 1, "the guest sleeps")

        taken = [keyboard.call("send_scancodes", b"\x1c")]
        until(lambda: result(vm, 4) == 1, "the first code is there")
        taken.append(keyboard.call("send_scancodes", b"\xf0\x1c\x32\x21"))
        ended = vm.wait(PATIENCE_S)

        received, interrupts = result(vm, 4), result(vm, 8)
        codes = vm.memory.read(CODES_AT, 5)
        stopped = result(vm, 0)
    assert taken == [1, 4]
    assert ended == ExitInfo("reset")
    assert (received, codes, stopped) == (5, b"\x1c\xf0\x1c\x32\x21", 1)
    assert 2 <= interrupts <= 5
