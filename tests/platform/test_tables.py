"""MP and ACPI tables and the device tree, read back as a kernel reads them, and by their makers' tools."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from shardio.devices import Hpet
from shardio.devices.hpet import SHORTEST_NS
from shardio.errors import MachineError
from shardio.memory import GuestMemory
from shardio.platform import (
    Hardware,
    PciPin,
    PlatformDevice,
    acpi_tables,
    aml,
    device_tree,
    kernel_arguments,
    mp_table,
    place_tables,
)
from tests.platform.reading import read_acpi, read_dsdt, read_madt, read_mp

MIB = 1 << 20
RNG = PlatformDevice("rng", "virtio,mmio", 0xD000_0000, 0x1000, irq=5)
DISK = PlatformDevice("disk", "virtio,mmio", 0xD000_1000, 0x1000, irq=20, level=True)
FAR = PlatformDevice("far", "virtio,mmio", 0x2_0000_0000, 0x200000, irq=7, level=True)
COM1 = PlatformDevice("com1", "ns16550a", 0x3F8, 8, pio=True, irq=4)
CLOCK = PlatformDevice("rtc", "motorola,mc146818", 0x70, 2, pio=True, irq=8)
KEYBOARD = PlatformDevice("kbd", "intel,8042", 0x60, 5, pio=True, irq=1)
PINS = (PciPin(1, 1, 11), PciPin(2, 1, 11), PciPin(3, 2, 20))
PCI = PlatformDevice("pci", "pci-host-cam-generic", 0xCF8, 8, pio=True, pins=PINS)
WINDOW = PlatformDevice("pci", "pci-host-cam-generic", 0xE000_0000, 0x100_0000, pins=PINS)
WIDE_UART = PlatformDevice("com2", "ns16550a", 0xD000_4000, 32, irq=3, reg_shift=2)
POWER = PlatformDevice("power", "acpi,power", 0x600, 8, pio=True)
HPET = PlatformDevice("hpet", "intel,hpet", 0xFED0_0000, 0x400)
ALL = (RNG, DISK, FAR, COM1, CLOCK, KEYBOARD, PCI, WINDOW, WIDE_UART, POWER, HPET)

ENABLED, BOOTSTRAP = 1, 2
EDGE_HIGH, LEVEL_HIGH = 0x0005, 0x000D


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    """Guest RAM."""
    with GuestMemory(2 * MIB) as made:
        yield made


def hardware(memory: GuestMemory, *devices: PlatformDevice, vcpus: int = 1) -> Hardware:
    """A machine with these devices."""
    return Hardware(vcpus, memory.regions, devices)


# ---- MP ---------------------------------------------------------------------------------------------------


def test_mp_table_names_each_vcpu_once_and_vcpu_0_as_bootstrap(memory: GuestMemory) -> None:
    place_tables("mp", hardware(memory, vcpus=3), memory)

    table = read_mp(memory)

    assert table.processors == {0: ENABLED | BOOTSTRAP, 1: ENABLED, 2: ENABLED}
    assert table.io_apics == {3: 0xFEC0_0000}
    assert table.local_apic == 0xFEE0_0000


def test_mp_table_routes_each_isa_line_to_the_pin_of_its_number(memory: GuestMemory) -> None:
    place_tables("mp", hardware(memory, COM1, RNG), memory)

    table = read_mp(memory)

    assert table.interrupts == [(0, EDGE_HIGH, 0, n, 1, n) for n in range(16) if n != 2]
    assert table.buses == {0: "ISA"}


def test_mp_table_says_which_line_is_level_and_knows_lines_above_the_isa_bus(memory: GuestMemory) -> None:
    place_tables("mp", hardware(memory, RNG, DISK, FAR), memory)

    modes = {line: flags for _, flags, _, line, _, _ in read_mp(memory).interrupts}

    assert (modes[5], modes[7], modes[20]) == (EDGE_HIGH, LEVEL_HIGH, LEVEL_HIGH)


def test_mp_table_connects_every_local_apic_to_the_8259_and_to_nmi(memory: GuestMemory) -> None:
    place_tables("mp", hardware(memory), memory)

    assert read_mp(memory).local_interrupts == [(3, 0, 0, 0, 0xFF, 0), (1, 0, 0, 0, 0xFF, 1)]


def test_mp_table_names_the_pci_bus_where_there_is_one(memory: GuestMemory) -> None:
    place_tables("mp", hardware(memory, PCI), memory)

    table = read_mp(memory)

    # Linux looks a PCI device's line up by its bus number, which is 0 (arch/x86, IO_APIC_get_PCI_irq_vector).
    assert table.buses == {0: "PCI", 1: "ISA"}
    assert {bus for _, _, bus, _, _, _ in table.local_interrupts} == {1}


# ---- ACPI -------------------------------------------------------------------------------------------------


def test_acpi_root_leads_to_every_table(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, *ALL), memory)

    assert set(read_acpi(memory)) == {"XSDT", "FACP", "APIC", "HPET", "DSDT"}


def test_the_hpet_table_is_there_where_the_device_is_and_says_what_the_device_says(
    memory: GuestMemory,
) -> None:
    """IA-PC HPET specification 1.0a, section 3.2.4."""
    place_tables("acpi", hardware(memory, HPET), memory)

    tables = read_acpi(memory)
    block, space, width, offset, _, address, number, shortest, protection = struct.unpack_from(
        "<IBBBBQBHB", tables["HPET"], 36
    )
    hpet = Hpet()
    devices = read_dsdt(tables["DSDT"])

    assert block == hpet.read(0, 4)
    assert (space, width, offset, address, number, protection) == (0, 64, 0, 0xFED0_0000, 0, 0)
    assert shortest == SHORTEST_NS * 1_000_000 // hpet.read(4, 4)
    assert devices["HPT0"].values["_HID"] == 0x0301_D041  # PNP0103
    assert "HPET" not in read_acpi_of(hardware(memory, CLOCK))


def read_acpi_of(hardware: Hardware) -> dict[str, bytes]:
    with GuestMemory(2 * MIB) as memory:
        place_tables("acpi", hardware, memory)
        return read_acpi(memory)


def test_madt_names_vcpus_io_apic_nmi_and_the_level_lines(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, *ALL, vcpus=2), memory)

    entries = read_madt(read_acpi(memory)["APIC"])

    assert entries[0] == [struct.pack("<BBI", number, number, 1) for number in range(2)]
    assert entries[1] == [struct.pack("<BxII", 2, 0xFEC0_0000, 0)]
    # Lines 7 and 11: what is wired to PCI pins is level-triggered too. Above the ISA lines there is no
    # override.
    assert entries[2] == [struct.pack("<BBIH", 0, line, line, LEVEL_HIGH) for line in (7, 11)]
    assert entries[4] == [struct.pack("<BHB", 0xFF, 0, 1)]


def test_fadt_resets_through_the_keyboard_controller(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, KEYBOARD), memory)

    fadt = read_acpi(memory)["FACP"]

    flags, space, _, _, _, port, value = struct.unpack_from("<IBBBBQB", fadt, 112)
    assert flags >> 10 & 1
    assert (space, port, value) == (1, 0x64, 0xFE)


def test_fadt_names_the_power_registers_where_there_are_any(memory: GuestMemory) -> None:
    """ACPI 6.5, table 5.9: reset register at 116, timer at 76 and 208, sleep registers at 244 and 256."""
    place_tables("acpi", hardware(memory, KEYBOARD, POWER), memory)

    tables = read_acpi(memory)
    fadt = tables["FACP"]

    def register(at: int) -> tuple[int, ...]:
        return struct.unpack_from("<BBBBQ", fadt, at)

    assert (register(116), fadt[128]) == ((1, 8, 0, 1, 0x602), 1)
    assert (register(244), register(256)) == ((1, 8, 0, 1, 0x600), (1, 8, 0, 1, 0x601))
    assert (struct.unpack_from("<I", fadt, 76), fadt[91]) == ((0x604,), 4)
    assert register(208) == (1, 32, 0, 3, 0x604)
    assert struct.unpack_from("<I", fadt, 112)[0] >> 8 & 1  # TMR_VAL_EXT
    assert aml.name("_S5", aml.package(aml.integer(5), *[aml.integer(0)] * 3)) in tables["DSDT"]


def test_without_power_registers_there_is_no_soft_off(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, KEYBOARD), memory)

    tables = read_acpi(memory)
    assert b"_S5_" not in tables["DSDT"]
    assert tables["FACP"][244:268] == bytes(24)


def test_fadt_without_keyboard_controller_and_clock_says_so(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory), memory)

    fadt = read_acpi(memory)["FACP"]

    boot, flags = struct.unpack_from("<HxI", fadt, 109)
    assert not flags >> 10 & 1
    assert not boot >> 1 & 1
    assert boot >> 5 & 1


def test_dsdt_describes_virtio_devices_below_and_above_4_gib(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, RNG, FAR), memory)

    devices = read_dsdt(read_acpi(memory)["DSDT"])

    assert [devices[path].values["_HID"] for path in ("V000", "V001")] == ["LNRO0005"] * 2
    assert devices["V000"].resources == [
        (0x86, struct.pack("<BII", 1, 0xD000_0000, 0x1000)),
        (0x89, struct.pack("<BBI", 0x03, 1, 5)),
    ]
    wide, line = devices["V001"].resources
    assert wide[0] == 0x8A
    assert struct.unpack("<3xQQQQQ", wide[1]) == (0, 0x2_0000_0000, 0x2_001F_FFFF, 0, 0x20_0000)
    assert line == (0x89, struct.pack("<BBI", 0x09, 1, 7))


def test_dsdt_describes_the_pc_s_devices(memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, COM1, CLOCK, KEYBOARD, PCI, WINDOW), memory)

    devices = read_dsdt(read_acpi(memory)["DSDT"])

    assert devices["COM1"].resources == [
        (8, struct.pack("<BHHBB", 1, 0x3F8, 0x3F8, 1, 8)),
        (4, struct.pack("<H", 1 << 4)),
    ]
    assert [tag for tag, _ in devices["KBD_"].resources] == [8, 8, 4]
    assert devices["RTC_"].resources[1] == (4, struct.pack("<H", 1 << 8))
    assert devices["MOU_"].values["_HID"] == 0x130F_D041  # PNP0F13, as bytes 41 D0 0F 13
    assert devices["MOU_"].resources == [(4, struct.pack("<H", 1 << 12))]
    buses, ports, window, *windows = devices["PCI0"].resources
    assert [tag for tag, _ in (buses, ports)] == [0x88, 8]
    # ACPI 6.5, section 6.4.3.5.3: ports (type 1) that a bridge hands on, all but its own.
    assert [(tag, body[0], *struct.unpack_from("<HH", body, 5)) for tag, body in windows] == [
        (0x88, 1, 0x0000, 0x0CF7), (0x88, 1, 0x0D00, 0xFFFF),
    ]  # fmt: skip
    assert window[0] == 0x87
    assert struct.unpack_from("<II", window[1], 7) == (0xE000_0000, 0xE0FF_FFFF)


def test_dsdt_leaves_out_a_uart_whose_registers_are_apart(memory: GuestMemory) -> None:
    """A driver of PNP0501 would take them for bytes in a row."""
    place_tables("acpi", hardware(memory, COM1, WIDE_UART), memory)

    devices = read_dsdt(read_acpi(memory)["DSDT"])

    assert [path for path in devices if path.startswith("COM")] == ["COM1"]


@pytest.mark.skipif(shutil.which("iasl") is None, reason="no iasl: apt install acpica-tools")
@pytest.mark.parametrize("vcpus", [1, 254])
def test_iasl_reads_the_tables_without_a_word(vcpus: int, tmp_path: Path, memory: GuestMemory) -> None:
    place_tables("acpi", hardware(memory, *ALL, vcpus=vcpus), memory)
    for name, table in read_acpi(memory).items():
        (tmp_path / f"{name}.aml").write_bytes(table)

    decompiled = subprocess.run(
        ["iasl", "-d", *sorted(map(str, tmp_path.glob("*.aml")))], capture_output=True, text=True, check=True
    )
    compiled = subprocess.run(
        ["iasl", "-tc", "DSDT.dsl"], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert "rror" not in decompiled.stderr.replace("ACPI Error:", "")
    assert "0 Errors, 0 Warnings, 0 Remarks" in compiled.stdout


KINDS = st.sampled_from(
    ["virtio,mmio", "ns16550a", "motorola,mc146818", "intel,8042", "pci-host-cam-generic"]
)
DEVICES = st.lists(
    st.builds(
        PlatformDevice,
        name=st.just("any"),
        compatible=KINDS,
        base=st.integers(0, 0xF000),
        size=st.integers(1, 0xFF),
        pio=st.booleans(),
        irq=st.none() | st.integers(0, 23),
        level=st.booleans(),
        reg_shift=st.integers(0, 3),
        pins=st.lists(
            st.builds(PciPin, st.integers(0, 31), st.integers(1, 4), st.integers(0, 30)), max_size=6
        ).map(tuple),
    ),
    max_size=40,
)


@given(DEVICES, st.integers(1, 254))
def test_any_hardware_makes_tables_that_read_back(devices: list[PlatformDevice], vcpus: int) -> None:
    with GuestMemory(2 * MIB) as memory:
        machine = hardware(memory, *devices, vcpus=vcpus)
        place_tables("mp", machine, memory)
        place_tables("acpi", machine, memory)

        processors = read_mp(memory).processors
        tables = read_acpi(memory)

    entries = read_madt(tables["APIC"])
    described = [path for path in read_dsdt(tables["DSDT"]) if path.startswith("V")]
    assert list(processors) == [entry[1] for entry in entries[0]] == list(range(vcpus))
    assert len(described) == len(machine.of("virtio,mmio"))


# ---- AML --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=5000))
def test_aml_lengths_hold_for_content_of_any_size(data: bytes) -> None:
    made = aml.scope("_SB", aml.device("DEV", aml.name("_CRS", aml.buffer(data))))

    devices = read_dsdt(bytes(36) + made)

    assert devices["DEV_"].values == {"_CRS": data}


@given(st.integers(0, 2**64 - 1))
def test_aml_integers_read_back(value: int) -> None:
    made = aml.scope("_SB", aml.device("DEV", aml.name("_UID", aml.integer(value))))

    assert read_dsdt(bytes(36) + made)["DEV_"].values == {"_UID": value}


@pytest.mark.parametrize("text", ["", "TOOBIG", "low", "1ST", "A-B", "Ä"])
def test_aml_refuses_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match="no AML name"):
        aml.segment(text)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_aml_refuses_what_is_no_integer(value: int) -> None:
    with pytest.raises(ValueError, match="no AML integer"):
        aml.integer(value)


# ---- device tree and kernel arguments ---------------------------------------------------------------------


def test_device_tree_has_memory_and_the_memory_mapped_devices(memory: GuestMemory) -> None:
    text = device_tree(hardware(memory, RNG, FAR, COM1))

    assert re.findall(r"^\t(\S+) \{", text, re.MULTILINE) == [
        "memory@0",
        "virtio_mmio@d0000000",
        "virtio_mmio@200000000",
    ]
    assert "reg = <0x2 0x0 0x0 0x200000>;" in text
    assert re.findall(r"interrupts = <(.*)>", text) == ["5 1", "7 4"]


@pytest.mark.parametrize(("shift", "expected"), [(0, []), (2, ["2"])])
def test_device_tree_tells_how_far_apart_a_uarts_registers_are(
    memory: GuestMemory, shift: int, expected: list[str]
) -> None:
    """Devicetree Specification 0.4, section 4.2.2 (ns16550): reg-shift is the distance as a power of two."""
    text = device_tree(hardware(memory, structs.replace(WIDE_UART, reg_shift=shift)))

    assert re.findall(r"reg-shift = <(.*)>;", text) == expected


def test_device_tree_for_a_gic_has_three_cells(memory: GuestMemory) -> None:
    text = device_tree(hardware(memory, RNG), parent="gic", spi=True)

    assert "interrupt-parent = <&gic>;" in text
    assert re.findall(r"interrupts = <(.*)>", text) == ["0 5 1"]


@pytest.mark.skipif(shutil.which("dtc") is None, reason="no dtc: apt install device-tree-compiler")
def test_dtc_compiles_the_fragment(memory: GuestMemory, tmp_path: Path) -> None:
    controller = "interrupt-controller; #address-cells = <0>; #interrupt-cells = <2>;"
    board = f"/dts-v1/;\n/ {{ intc: intc {{ {controller} }}; }};\n"
    (tmp_path / "machine.dts").write_text(board + device_tree(hardware(memory, RNG, DISK, FAR, WIDE_UART)))

    done = subprocess.run(
        ["dtc", "-O", "dts", "machine.dts"], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert done.stderr == ""
    assert "virtio_mmio@d0001000" in done.stdout


def test_kernel_arguments_name_the_virtio_devices_with_a_line(memory: GuestMemory) -> None:
    polled = PlatformDevice("polled", "virtio,mmio", 0xD000_3000, 0x1000)

    text = kernel_arguments(hardware(memory, RNG, COM1, FAR, polled))

    assert text == "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=2M@0x200000000:7"


# ---- refusals ---------------------------------------------------------------------------------------------


def test_unknown_tables_are_refused(memory: GuestMemory) -> None:
    with pytest.raises(MachineError, match="no tables 'smbios'"):
        place_tables("smbios", hardware(memory), memory)


def test_tables_that_do_not_fit_are_refused_before_anything_is_written(memory: GuestMemory) -> None:
    many = [PlatformDevice(f"d{n}", "virtio,mmio", 0xD000_0000 + 0x1000 * n, 0x1000) for n in range(1500)]

    with pytest.raises(MachineError, match="do not fit"):
        place_tables("acpi", hardware(memory, *many), memory)

    assert memory.read(0xE0000, 0x20000) == bytes(0x20000)


@pytest.mark.parametrize("make", [mp_table, acpi_tables])
@pytest.mark.parametrize("address", [0xF0008, 1 << 32, -16])
def test_addresses_where_nobody_looks_are_refused(make: object, address: int, memory: GuestMemory) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match="not found"):
        make(hardware(memory), address)
