"""AML, the byte code of ACPI: as much as a table of devices with their resources takes.

Source: ACPI 6.5, chapter 20 (encoding) and section 6.4 (resource descriptors). Every function returns bytes
that can be joined.

>>> name("_UID", integer(1)).hex()
'085f55494401'
"""

from __future__ import annotations

import struct
from typing import Final

_NAME: Final = b"\x08"
_SCOPE: Final = b"\x10"
_BUFFER: Final = b"\x11"
_PACKAGE: Final = b"\x12"
_METHOD: Final = b"\x14"
_DEVICE: Final = b"\x5b\x82"
_INTEGERS: Final = ((1, b"\x0a"), (2, b"\x0b"), (4, b"\x0c"), (8, b"\x0e"))


def segment(text: str) -> bytes:
    """A name of up to four characters, padded with underscores. Raises ValueError for any other.

    >>> segment("COM1")
    b'COM1'
    """
    valid = text and len(text) <= 4 and text.isascii() and text.replace("_", "A").isalnum()
    if not valid or text != text.upper() or text[0].isdigit():
        raise ValueError(f"{text!r} is no AML name: use 1 to 4 of A-Z, 0-9 and _, no digit first")
    return text.ljust(4, "_").encode()


def integer(value: int) -> bytes:
    """An integer of 0 to 2^64-1 in its shortest form. Raises ValueError for another."""
    if value in (0, 1):
        return bytes([value])
    for size, prefix in _INTEGERS:
        if 0 <= value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    raise ValueError(f"{value} is no AML integer: use 0 to 2^64-1")


def string(text: str) -> bytes:
    """An ASCII string without zeroes."""
    return b"\x0d" + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """A Plug and Play id such as "PNP0501": three letters and four hexadecimal digits, as an integer.

    >>> eisa_id("PNP0501").hex()
    '0c41d00501'
    """
    first, second, third = (ord(letter) - 0x40 for letter in text[:3])
    packed = (first << 10 | second << 5 | third) << 16 | int(text[3:], 16)
    return b"\x0c" + packed.to_bytes(4, "big")


def name(path: str, value: bytes) -> bytes:
    """`Name(path, value)`."""
    return _NAME + segment(path) + value


def buffer(data: bytes) -> bytes:
    """A buffer with this content."""
    return _BUFFER + _sized(integer(len(data)) + data)


def package(*elements: bytes) -> bytes:
    """A package of up to 255 elements."""
    return _PACKAGE + _sized(bytes([len(elements)]) + b"".join(elements))


def reference(path: str) -> bytes:
    """The name of another object, as an element of a package."""
    return segment(path)


def method(path: str, arguments: int, *terms: bytes) -> bytes:
    """`Method(path, arguments, NotSerialized)`."""
    return _METHOD + _sized(segment(path) + bytes([arguments]) + b"".join(terms))


def scope(path: str, *terms: bytes) -> bytes:
    """`Scope(\\path)`, of one segment from the root."""
    return _SCOPE + _sized(b"\\" + segment(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """`Device(path)`."""
    return _DEVICE + _sized(segment(path) + b"".join(terms))


def _sized(body: bytes) -> bytes:
    """`body` behind its package length, which counts itself."""
    for extra in range(4):
        total = len(body) + 1 + extra
        if total < (1 << 6 if not extra else 1 << 4 + 8 * extra):
            break
    else:
        raise ValueError(f"{len(body)} bytes are too long for an AML package: split it")
    if not extra:
        return bytes([total]) + body
    lead = extra << 6 | total & 0xF
    return bytes([lead]) + (total >> 4).to_bytes(extra, "little") + body


# ---- resource descriptors ---------------------------------------------------------------------------------


def resources(*descriptors: bytes) -> bytes:
    """A resource template: a buffer of descriptors and the end tag (its checksum 0: not to be checked)."""
    return buffer(b"".join(descriptors) + b"\x79\x00")


def memory32(base: int, size: int) -> bytes:
    """`Memory32Fixed(ReadWrite, ...)`: `size` bytes at a 32-bit address."""
    return struct.pack("<BHBII", 0x86, 9, 1, base, size)


def memory64(base: int, size: int) -> bytes:
    """`QWordMemory(ResourceConsumer, ..., NonCacheable, ReadWrite, ...)`, fixed: above 4 GiB."""
    return struct.pack("<BHBBBQQQQQ", 0x8A, 43, 0, 0x0D, 0x01, 0, base, base + size - 1, 0, size)


def ports(base: int, size: int) -> bytes:
    """`IO(Decode16, ...)`: `size` (up to 255) ports from `base`."""
    return struct.pack("<BBHHBB", 0x47, 1, base, base, 1, size)


def bus_numbers(first: int, last: int) -> bytes:
    """`WordBusNumber(ResourceProducer, MinFixed, MaxFixed, ...)`."""
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 2, 0x0C, 0, 0, first, last, 0, last - first + 1)


def memory_window(base: int, size: int) -> bytes:
    """`DWordMemory(ResourceProducer, ..., ReadWrite, ...)`: addresses below 4 GiB that a bridge hands on."""
    return struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0x0C, 0x01, 0, base, base + size - 1, 0, size)


def port_window(first: int, size: int) -> bytes:
    """`WordIO(ResourceProducer, MinFixed, MaxFixed, ..., EntireRange)`: ports that a bridge hands on."""
    return struct.pack("<BHBBBHHHHH", 0x88, 13, 1, 0x0C, 0x03, 0, first, first + size - 1, 0, size)


def interrupt(line: int, *, level: bool) -> bytes:
    """`Interrupt(ResourceConsumer, Edge or Level, ActiveHigh, Exclusive or, when level, Shared)`: a GSI."""
    flags = 0x01 | (0x08 if level else 0x02)
    return struct.pack("<BHBBI", 0x89, 6, flags, 1, line)


def isa_interrupt(line: int) -> bytes:
    """`IRQNoFlags`: an edge on ISA line 0 to 15."""
    return struct.pack("<BH", 0x22, 1 << line)
