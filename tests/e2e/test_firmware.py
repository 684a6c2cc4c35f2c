"""Debian's SeaBIOS, with every device of its machine in a shard."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardio import Machine, pc
from tests.e2e.support import command, console, read_until

BIOS = Path("/usr/share/seabios/bios.bin")
MEMORY = 64 << 20
LAST_LINE = b"No bootable device.  Retrying in 60 seconds.\n"

pytestmark = [
    pytest.mark.machine,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not BIOS.exists(), reason=f"{BIOS} is missing: apt-get install seabios"),
]


def milestones(vcpus: int, *, acpi: bool) -> list[str]:
    """Lines of SeaBIOS's log, in order: one of each thing that it does. `acpi`: it has tables to publish,
    for which it keeps a piece of RAM.
    """
    return [
        "SeaBIOS (version ",
        "Running on QEMU (i440fx)",
        "Found QEMU fw_cfg",
        f"qemu/e820: addr 0x0000000000000000 len {MEMORY:#018x} [RAM]",
        "Found 1 PCI devices (max PCI bus is 00)",
        f"Found {vcpus} cpu(s) max supported {vcpus} cpu(s)",
        "sercon: using ioport 0x3f8",
        "Found 1 serial ports",
        "PS2 keyboard initialized",
        "All threads complete.",
        f"e820 map has {6 if acpi else 5} items:",
        "Booting from Hard Disk...",
        "No bootable device.",
    ]


def found_in_order(log: str, wanted: list[str]) -> list[str]:
    """The `wanted` texts that follow each other in `log`."""
    found, position = [], 0
    for text in wanted:
        at = log.find(text, position)
        position = max(position, at)
        found += [text] * (at >= 0)
    return found


def add_platform(vm: Machine, vcpus: int, debug_console: Path) -> None:
    """The PC's devices; the log goes to `debug_console`, the serial line nowhere."""
    outputs = {"debugcon": f"file:{debug_console}", "com1": "null"}
    for table in pc.firmware_devices(MEMORY, vcpus):
        options = {key: value for key, value in table.items() if key not in ("type", "input", "output")}
        output = {"output": outputs[table["name"]]} if "output" in table else {}
        vm.add(table["type"], **options, **output)


def test_machine_boots_seabios_with_every_device_in_a_shard(tmp_path: Path) -> None:
    with console(tmp_path / "debug") as log, Machine(memory=MEMORY, vcpus=2, shards=2) as vm:
        vm.load_firmware(BIOS)
        add_platform(vm, 2, tmp_path / "debug")

        vm.start()
        text = read_until(log, LAST_LINE).decode()
        vm.stop()

        statistics = vm.statistics()
    assert found_in_order(text, milestones(2, acpi=False)) == milestones(2, acpi=False)
    devices = {device.name: device for device in statistics.devices}
    assert {device.shard for device in statistics.devices} == {"shard0", "shard1"}
    used = {name for name, device in devices.items() if device.reads and device.writes}
    # The software CPU's IOAPIC is told of lines; SeaBIOS, which takes them by the PIC, reads nothing there.
    assert used == set(devices) - {"exit", "post", "power", "vga", "IoApic"}
    assert sum(device.refused for device in statistics.devices) == 0
    assert devices["debugcon"].writes == len(text)
    served = sum(device.reads + device.writes for device in statistics.devices)
    unclaimed = sum(vcpu.unclaimed_reads + vcpu.unclaimed_writes for vcpu in statistics.vcpus)
    assert served + unclaimed == sum(sum(vcpu.exits.values()) for vcpu in statistics.vcpus)


def test_shardio_run_boots_seabios(tmp_path: Path) -> None:
    vcpus = 4
    # The log apart from the serial line, which says the same on standard output.
    apart = f"shardio.devices:DebugConsole,name=debugcon,pio=0x402,output=file:{tmp_path / 'debug'}"
    words = ["--firmware", BIOS.name, "--memory", MEMORY, "--vcpus", vcpus, "--shards", 2, "--device", apart]
    with console(tmp_path / "debug") as log, command("run", *words) as process:
        text = read_until(log, LAST_LINE).decode()
        process.terminate()
        serial, table = process.communicate()

    assert found_in_order(text, milestones(vcpus, acpi=True)) == milestones(vcpus, acpi=True)
    assert b"No bootable device." in serial
    rows = [line.split() for line in table.decode().splitlines()]
    numbered = [row[0] for row in rows if row and row[0].isdigit()]  # exits first, then what nobody answered
    assert numbered[:vcpus] == [str(number) for number in range(vcpus)]
    assert {"debugcon", "rtc", "fw_cfg", "pci", "com1"} <= {row[0] for row in rows if row}
