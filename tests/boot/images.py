"""Images as bytes: ELF files, Multiboot headers and bzImages, made from what the specifications say."""

from __future__ import annotations

import struct
from typing import NamedTuple

PT_LOAD, PT_NOTE = 1, 4
EM_386, EM_X86_64 = 3, 62
MULTIBOOT_MAGIC = 0x1BAD_B002
BY_ADDRESSES = 1 << 16


class Part(NamedTuple):
    """A program header and its bytes."""

    data: bytes
    address: int
    memory_size: int = 0
    virtual: int | None = None
    kind: int = PT_LOAD


def elf32(*parts: Part, entry: int, machine: int = EM_386, kind: int = 2) -> bytes:
    """An ELF executable of 32 bits (System V gABI, chapters 4 and 5)."""
    at = 52 + 32 * len(parts)
    headers, body = b"", b""
    for part in parts:
        virtual = part.address if part.virtual is None else part.virtual
        size = max(part.memory_size, len(part.data))
        headers += struct.pack(
            "<8I", part.kind, at + len(body), virtual, part.address, len(part.data), size, 7, 4
        )
        body += part.data
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    rest = struct.pack("<HHIIIIIHHHHHH", kind, machine, 1, entry, 52, 0, 0, 52, 32, len(parts), 40, 0, 0)
    return ident + rest + headers + body


def elf64(*parts: Part, entry: int, machine: int = EM_X86_64, kind: int = 2) -> bytes:
    """An ELF executable of 64 bits."""
    at = 64 + 56 * len(parts)
    headers, body = b"", b""
    for part in parts:
        virtual = part.address if part.virtual is None else part.virtual
        size = max(part.memory_size, len(part.data))
        headers += struct.pack(
            "<IIQQQQQQ", part.kind, 7, at + len(body), virtual, part.address, len(part.data), size, 4
        )
        body += part.data
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    rest = struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, 0, 0, 64, 56, len(parts), 64, 0, 0)
    return ident + rest + headers + body


def pvh_note(entry: int, size: int = 4) -> Part:
    """Xen's note of a PVH entry, behind one of another owner with the same number."""
    other = struct.pack("<III", 4, 4, 18) + b"GNU\0" + bytes(4)
    ours = struct.pack("<III", 4, size, 18) + b"Xen\0" + entry.to_bytes(size, "little")
    return Part(other + ours, 0, kind=PT_NOTE)


def multiboot_header(flags: int = 0, *addresses: int) -> bytes:
    """A Multiboot header: `addresses` are header, load, load end, bss end and entry."""
    checksum = -(MULTIBOOT_MAGIC + flags) & 0xFFFF_FFFF
    return struct.pack(f"<{3 + len(addresses)}I", MULTIBOOT_MAGIC, flags, checksum, *addresses)


def flat_multiboot(code: bytes, load: int = 0x10_0000, memory_size: int = 0) -> bytes:
    """A flat Multiboot image: the header, then `code`, entered at its first byte."""
    load_end = load + 32 + len(code)
    bss_end = load + memory_size if memory_size else 0
    return multiboot_header(BY_ADDRESSES, load, load, load_end, bss_end, load + 32) + code


def bzimage(
    code: bytes,
    *,
    has_64: bool = True,
    address: int = 0x10_0000,
    memory_size: int = 0x1000,
    version: int = 0x020F,
    command_line_size: int = 255,
    initrd_max: int = 0x7FFF_FFFF,
    loadflags: int = 1,
) -> bytes:
    """A bzImage with one sector of real-mode code (Documentation/arch/x86/boot.rst)."""
    code += bytes(-len(code) % 16)
    image = bytearray(1024)
    image[0x1F1] = 1
    struct.pack_into("<I", image, 0x1F4, len(code) // 16)
    struct.pack_into("<H", image, 0x1FE, 0xAA55)
    image[0x200:0x202] = b"\xeb\x6a"
    struct.pack_into("<4sH", image, 0x202, b"HdrS", version)
    image[0x211] = loadflags
    struct.pack_into("<I", image, 0x214, 0x10_0000)
    struct.pack_into("<I", image, 0x22C, initrd_max)
    struct.pack_into("<IBBH", image, 0x230, 0x1000, 0, 12, int(has_64))
    struct.pack_into("<I", image, 0x238, command_line_size)
    struct.pack_into("<QI", image, 0x258, address, memory_size)
    return bytes(image) + code
