"""Tiny kernels of each boot protocol, which say what they were given: on KVM, and those that begin in 32 bits
on the software CPU too.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from shardio.boot import Module
from shardio.errors import ImageError, MachineError
from tests.boot.images import Part, bzimage, elf32, elf64, flat_multiboot, multiboot_header, pvh_note
from tests.e2e.support import PATIENCE_S, add_exit_port, machine
from tests.guests.build import guest

CODE_AT = 0x10_0000
LINE = "console=ttyS0 root=/dev/vda"
INITRD = bytes(range(256)) * 17
MODULE_LINE = "second one"
RAM, RESERVED = 1, 2
# Of a machine with 2 MiB: start, size and type, with the hole of a PC below 1 MiB.
MAP = ((0, 0xA0000, RAM), (0xA0000, 0x60000, RESERVED), (0x10_0000, 0x10_0000, RAM))
RSDP_AT = 0xE_0000
CR0_PE, CR0_ET = 1 << 0, 1 << 4


def packed(form: str) -> bytes:
    """The memory map, an entry as `struct` has it in `form`."""
    return b"".join(struct.pack(form, *entry) for entry in MAP)


def text(line: str) -> bytes:
    return line.encode() + b"\0"


def told(
    image: bytes, folder: Path, tables: bool = False, modules: tuple[Module, ...] = (), **options: str
) -> bytes:
    """What the guest says until it ends."""
    report = folder / "report"
    with machine(shards=1, **options) as vm:
        vm.load_kernel(image, initrd=INITRD, command_line=LINE, modules=modules)
        vm.add("shardio.devices:Uart16550", pio=0x3F8, output=f"file:{report}")
        add_exit_port(vm)
        for kind in ("acpi", "mp") if tables else ():
            vm.load_tables(kind)

        assert vm.run(PATIENCE_S).status == 0
    return report.read_bytes()


def pvh(bits: int) -> bytes:
    """The PVH guest as an ELF whose own entry would be a mistake."""
    code = Part(guest("boot_pvh"), CODE_AT, virtual=CODE_AT)
    parts = (Part(b"\xf4", CODE_AT + 0x1000), code, pvh_note(CODE_AT, bits // 8))
    make = elf32 if bits == 32 else elf64
    return make(*parts, entry=CODE_AT + 0x1000)


@pytest.mark.machine
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(("tables", "rsdp"), [(False, 0), (True, RSDP_AT)])
def test_a_pvh_guest_is_given_its_start_info(bits: int, tables: bool, rsdp: int, tmp_path: Path) -> None:
    modules = (Module(b"more", MODULE_LINE),)

    said = told(pvh(bits), tmp_path, tables, modules)

    state = b"3\x08\x10" + struct.pack("<I", CR0_PE | CR0_ET)
    assert said == state + text(LINE) + INITRD + text("") + packed("<QQI4x") + struct.pack("<Q", rsdp)


def multiboot(form: str) -> bytes:
    """The Multiboot guest as a flat image, or as an ELF whose first bytes are the header."""
    code = guest("boot_multiboot")
    if form == "flat":
        return flat_multiboot(code)
    header = Part(multiboot_header(0b11), CODE_AT + 0x1000)
    make = elf32 if form == "elf32" else elf64
    return make(header, Part(code, CODE_AT, virtual=0xC010_0000), entry=0xC010_0000)


@pytest.mark.machine
@pytest.mark.parametrize("form", ["flat", "elf32", "elf64"])
def test_a_multiboot_guest_is_given_its_information(form: str, tmp_path: Path) -> None:
    said = told(multiboot(form), tmp_path)

    state = b"3\x08\x10" + struct.pack("<I", 0x2BAD_B002)
    memory = struct.pack("<III", 0b10_0100_1101, 640, 1024)
    ranges = b"".join(struct.pack("<IQQI", 20, *entry) for entry in MAP)
    assert said == state + memory + text(LINE) + INITRD + text("") + ranges


PARAMETERS = text(LINE) + INITRD + packed("<QQI")
"""What a Linux guest says after how its processor is."""


@pytest.mark.kvm
@pytest.mark.parametrize(("has_64", "state"), [(True, b"6\x10\x18"), (False, b"3\x10\x18")])
def test_a_bzimage_begins_by_the_protocol_that_it_has(has_64: bool, state: bytes, tmp_path: Path) -> None:
    said = told(bzimage(guest("boot_linux"), has_64=has_64), tmp_path, tables=True)

    assert said == state + PARAMETERS + struct.pack("<Q", RSDP_AT)


@pytest.mark.parametrize("has_64", [True, False])
def test_the_software_cpu_begins_a_bzimage_in_32_bits(has_64: bool, tmp_path: Path) -> None:
    said = told(bzimage(guest("boot_linux"), has_64=has_64), tmp_path, cpu="soft")

    assert said == b"3\x10\x18" + PARAMETERS + bytes(8)


@pytest.mark.kvm
def test_a_vmlinux_of_64_bits_begins_in_long_mode(tmp_path: Path) -> None:
    image = elf64(Part(guest("boot_linux"), CODE_AT, virtual=0xFFFF_FFFF_8010_0000), entry=CODE_AT + 0x200)

    assert told(image, tmp_path) == b"6\x10\x18" + PARAMETERS + bytes(8)


@pytest.mark.machine
def test_a_payload_is_given_its_table(tmp_path: Path) -> None:
    report = tmp_path / "report"
    with machine(shards=1) as vm:
        vm.load_payload(elf32(Part(guest("boot_payload"), CODE_AT), entry=CODE_AT))
        vm.add("shardio.devices:Uart16550", pio=0x3F8, output=f"file:{report}")
        add_exit_port(vm)

        assert vm.run(PATIENCE_S).status == 0
    said = report.read_bytes()
    assert said[:7] == b"3\x08\x10LBIO"
    assert said[7 + 20 :] == struct.pack("<II", 1, 8 + 60) + packed("<QQI")


@pytest.mark.machine
def test_tables_where_coreboot_s_is_are_refused_with_both_ranges() -> None:
    with machine() as vm:
        vm.load_payload(elf32(Part(b"\xf4", CODE_AT), entry=CODE_AT))
        vm.load_tables("mp")

        both = r"the coreboot table: at 0xf0000 to .* the mp tables at 0xf0000"
        with pytest.raises(ImageError, match=both):
            vm.start()


@pytest.mark.machine
def test_a_vmlinux_of_32_bits_begins_in_protected_mode(tmp_path: Path) -> None:
    image = elf32(Part(guest("boot_linux"), CODE_AT), entry=CODE_AT)

    assert told(image, tmp_path) == b"3\x10\x18" + PARAMETERS + bytes(8)


def test_the_software_cpu_refuses_a_vmlinux_of_64_bits_by_name() -> None:
    with machine(cpu="soft") as vm:
        vm.load_kernel(elf64(Part(guest("boot_linux"), CODE_AT), entry=CODE_AT + 0x200))

        with pytest.raises(MachineError, match="no long mode"):
            vm.start()
