"""Linux: bzImage, and vmlinux without a PVH note, by the 64-bit and the 32-bit boot protocol of
Documentation/arch/x86/boot.rst.

The kernel begins with RSI (ESI) at the boot parameters, the "zero page" of zero-page.rst: its own setup
header, command line, initrd, memory map, and ACPI's RSDP. 64 bits: long mode, 0x200 bytes behind the start;
32 bits: flat protected mode. Selectors are 0x10 and 0x18.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from shardio.boot.elf import Elf
from shardio.boot.image import Image
from shardio.boot.memory_map import packed
from shardio.boot.module import Module, encoded, place_modules
from shardio.boot.plan import Plan
from shardio.entry import Entry
from shardio.errors import ImageError

HDRS: Final = b"HdrS"
HDRS_AT: Final = 0x202
_SECTOR: Final = 512
_OLDEST: Final = 0x0206
"""Boot protocol 2.06, of Linux 2.6.22: the first that tells how long a command line may be."""
_BOOT_CS, _BOOT_DS = 0x10, 0x18
_ENTRY_64: Final = 0x200
_LOADED_HIGH: Final = 1 << 0
_XLF_KERNEL_64: Final = 1 << 0
_UNKNOWN_LOADER: Final = 0xFF
_ONE_MIB: Final = 1 << 20
_OLD_INITRD_END: Final = 0x3800_0000
_VMLINUX_COMMAND_LINE: Final = 2047
"""COMMAND_LINE_SIZE of x86, its end counted."""

# Offsets of the setup header, in the image and in the zero page; then those of the zero page alone.
SETUP_SECTS, SYSSIZE, BOOT_FLAG, JUMP, VERSION = 0x1F1, 0x1F4, 0x1FE, 0x201, 0x206
LOADER, LOADFLAGS, CODE32_START, RAMDISK, CMD_LINE = 0x210, 0x211, 0x214, 0x218, 0x228
INITRD_MAX, XLOADFLAGS, CMDLINE_SIZE, PREF_ADDRESS, INIT_SIZE = 0x22C, 0x236, 0x238, 0x258, 0x260
ACPI_RSDP, E820_ENTRIES, E820_TABLE = 0x70, 0x1E8, 0x2D0
_HEADER_END: Final = 0x290
"""Where the zero page has the next thing after its setup header."""
_PAGE: Final = 4096


class BzImage(NamedTuple):
    """What its setup header says of a bzImage: the header's bytes, where the kernel's code is in the file,
    where it goes and how much memory it takes there, and what it allows.
    """

    header: bytes
    code_at: int
    address: int
    memory_size: int
    has_64: bool
    initrd_end: int
    command_line_size: int


def read_bzimage(image: Image) -> BzImage:
    """Reads the setup header. Raises `ImageError` for what is no bzImage, or one that is cut."""
    flag = image.number(BOOT_FLAG, 2, "boot flag")
    if flag != 0xAA55:
        raise image.refused("boot flag", BOOT_FLAG, "0xaa55", f"{flag:#x}")
    version = image.number(VERSION, 2, "boot protocol")
    if version < _OLDEST:
        found = f"{version >> 8}.{version & 0xFF:02}"
        raise image.refused("boot protocol", VERSION, "2.06 or newer", found, "use Linux 2.6.22 or newer")
    if not image.number(LOADFLAGS, 1, "loadflags") & _LOADED_HIGH:
        raise image.refused("loadflags", LOADFLAGS, "LOADED_HIGH, a bzImage", "a zImage")
    end = HDRS_AT + image.number(JUMP, 1, "jump over the setup header")
    if not CMDLINE_SIZE + 4 <= end <= _HEADER_END:
        expected = f"an end of {CMDLINE_SIZE + 4:#x} to {_HEADER_END:#x}"
        raise image.refused("jump over the setup header", JUMP, expected, f"{end:#x}")
    code_at = ((image.number(SETUP_SECTS, 1, "setup_sects") or 4) + 1) * _SECTOR
    code_size = image.number(SYSSIZE, 4, "syssize") * 16
    # The last paragraph may be a part of one.
    image.part(code_at, max(code_size - 15, 1), "the kernel's code")
    placed = version >= 0x020A and end >= INIT_SIZE + 4
    return BzImage(
        header=image.data[SETUP_SECTS:end],
        code_at=code_at,
        address=image.number(PREF_ADDRESS, 8, "pref_address") if placed else _ONE_MIB,
        memory_size=image.number(INIT_SIZE, 4, "init_size") if placed else 0,
        has_64=version >= 0x020C and bool(image.number(XLOADFLAGS, 2, "xloadflags") & _XLF_KERNEL_64),
        initrd_end=image.number(INITRD_MAX, 4, "initrd_addr_max") + 1,
        command_line_size=image.number(CMDLINE_SIZE, 4, "cmdline_size"),
    )


def place_bzimage(
    plan: Plan, image: Image, modules: Sequence[Module], command_line: str, *, long_mode: bool
) -> tuple[Entry, int]:
    """Adds a bzImage to the plan: by the 64-bit protocol where the kernel and the CPU have it (`long_mode`),
    else by the 32-bit one. Gives the entry, and where the address of the RSDP goes.
    """
    kernel = read_bzimage(image)
    _check_command_line(image, command_line, kernel.command_line_size)
    code = image.data[kernel.code_at :]
    plan.put(image.name, kernel.address, code, kernel.memory_size)
    if kernel.address + len(code) > 1 << 32:
        raise image.refused("pref_address", PREF_ADDRESS, "one below 4 GiB", f"{kernel.address:#x}")
    page = bytearray(_PAGE)
    page[SETUP_SECTS : SETUP_SECTS + len(kernel.header)] = kernel.header
    struct.pack_into("<I", page, CODE32_START, kernel.address)
    long = long_mode and kernel.has_64
    entry = kernel.address + (_ENTRY_64 if long else 0)
    return _begin(plan, image, page, modules, command_line, entry, long, kernel.initrd_end)


def place_vmlinux(
    plan: Plan, elf: Elf, modules: Sequence[Module], command_line: str
) -> tuple[Entry, int]:
    """Adds an ELF without another protocol to the plan, as Linux's vmlinux begins: at its entry, with boot
    parameters, in long mode (64 bits) or protected mode (32).
    """
    _check_command_line(elf.image, command_line, _VMLINUX_COMMAND_LINE)
    elf.put(plan)
    page = bytearray(_PAGE)
    struct.pack_into("<H", page, BOOT_FLAG, 0xAA55)
    struct.pack_into("<4sH", page, HDRS_AT, HDRS, 0x020C)
    page[LOADFLAGS] = _LOADED_HIGH
    struct.pack_into("<I", page, CMDLINE_SIZE, _VMLINUX_COMMAND_LINE)
    return _begin(plan, elf.image, page, modules, command_line, elf.entry, elf.bits == 64, 1 << 32)


def _begin(
    plan: Plan, image: Image, page: bytearray, modules: Sequence[Module], command_line: str,
    entry: int, long: bool, initrd_end: int,
) -> tuple[Entry, int]:  # fmt: skip
    """The boot parameters, and the entry that has their address."""
    if len(modules) > 1:
        raise ImageError(image.name, f"takes one initrd, not {len(modules)} modules", "join them into one")
    for module in place_modules(plan, modules, initrd_end or _OLD_INITRD_END):
        struct.pack_into("<II", page, RAMDISK, module.where.start, len(module.where))
    page[LOADER] = _UNKNOWN_LOADER
    struct.pack_into("<I", page, CMD_LINE, plan.place("the command line", encoded(command_line)))
    ranges = packed(plan.memory, "<QQI")
    page[E820_ENTRIES] = len(ranges) // struct.calcsize("<QQI")
    page[E820_TABLE : E820_TABLE + len(ranges)] = ranges
    at = plan.place("the boot parameters", bytes(page))
    selectors = {"cs": _BOOT_CS, "ds": _BOOT_DS}
    return Entry("long" if long else "protected", entry, {"rsi": at, **selectors}), at + ACPI_RSDP


def _check_command_line(image: Image, command_line: str, most: int) -> None:
    size = len(encoded(command_line)) - 1
    if size > most:
        raise ImageError(image.name, f"takes a command line of {most} bytes, not {size}", "shorten it")
