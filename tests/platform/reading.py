"""Reads firmware tables back, from what the specifications say: nothing is shared with what wrote them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from shardio.memory import GuestMemory

MP_PLACES = (range(0xF0000, 0x100000),)
RSDP_PLACES = (range(0xE0000, 0x100000),)


def scan(memory: GuestMemory, signature: bytes, places: tuple[range, ...]) -> int:
    """The guest address of `signature` on a 16-byte boundary, as a kernel looks for it."""
    found = [
        address
        for place in places
        for address in place[::16]
        if memory.read(address, len(signature)) == signature
    ]
    assert len(found) == 1, f"{signature!r} found {len(found)} times"
    return found[0]


def checked(table: bytes) -> bytes:
    """`table`, whose bytes add up to 0."""
    assert sum(table) % 256 == 0, f"checksum of {table[:4]!r}"
    return table


# ---- MP ---------------------------------------------------------------------------------------------------


@dataclass
class MpTable:
    """What an MP table says: APIC ids with their flags, bus names by id, addresses of IO APICs by id,
    interrupts as (kind, flags, bus, line, apic, pin), local ones likewise.
    """

    local_apic: int
    processors: dict[int, int] = field(default_factory=dict)
    buses: dict[int, str] = field(default_factory=dict)
    io_apics: dict[int, int] = field(default_factory=dict)
    interrupts: list[tuple[int, ...]] = field(default_factory=list)
    local_interrupts: list[tuple[int, ...]] = field(default_factory=list)


def read_mp(memory: GuestMemory) -> MpTable:
    """Finds the floating pointer and reads the table (MPS 1.4, chapter 4)."""
    at = scan(memory, b"_MP_", MP_PLACES)
    pointer = checked(memory.read(at, 16))
    address, length, revision = struct.unpack_from("<IBB", pointer, 4)
    assert (length, revision) == (1, 4)
    assert pointer[11] == 0, "a default configuration instead of a table"
    size = struct.unpack("<H", memory.read(address + 4, 2))[0]
    table = checked(memory.read(address, size))
    assert table[:4] == b"PCMP"
    count, local_apic = struct.unpack_from("<HI", table, 34)
    result = MpTable(local_apic)
    at = 44
    for _ in range(count):
        at += _mp_entry(result, table, at)
    assert at == size, "the entries do not fill the table"
    return result


def _mp_entry(result: MpTable, table: bytes, at: int) -> int:
    match table[at]:
        case 0:
            result.processors[table[at + 1]] = table[at + 3]
            return 20
        case 1:
            result.buses[table[at + 1]] = table[at + 2 : at + 8].decode().strip()
        case 2:
            assert table[at + 3] == 1, "a disabled IO APIC"
            result.io_apics[table[at + 1]] = struct.unpack_from("<I", table, at + 4)[0]
        case 3:
            result.interrupts.append(struct.unpack_from("<BHBBBB", table, at + 1))
        case 4:
            result.local_interrupts.append(struct.unpack_from("<BHBBBB", table, at + 1))
        case other:
            raise AssertionError(f"entry of type {other}")
    return 8


# ---- ACPI -------------------------------------------------------------------------------------------------


def read_acpi(memory: GuestMemory) -> dict[str, bytes]:
    """Finds the RSDP and reads every table by its signature, DSDT too (ACPI 6.5, 5.2)."""
    at = scan(memory, b"RSD PTR ", RSDP_PLACES)
    checked(memory.read(at, 20))
    rsdp = checked(memory.read(at, 36))
    assert rsdp[15] == 2
    xsdt = _sdt(memory, struct.unpack_from("<Q", rsdp, 24)[0])
    tables = {"XSDT": xsdt}
    for (address,) in struct.iter_unpack("<Q", xsdt[36:]):
        table = _sdt(memory, address)
        tables[table[:4].decode()] = table
    (dsdt,) = struct.unpack_from("<Q", tables["FACP"], 140)
    assert struct.unpack_from("<I", tables["FACP"], 40)[0] == dsdt
    tables["DSDT"] = _sdt(memory, dsdt)
    return tables


def _sdt(memory: GuestMemory, address: int) -> bytes:
    (length,) = struct.unpack("<I", memory.read(address + 4, 4))
    return checked(memory.read(address, length))


def read_madt(table: bytes) -> dict[int, list[bytes]]:
    """The entries by their type, without type and length."""
    found: dict[int, list[bytes]] = {}
    at = 44
    while at < len(table):
        kind, length = table[at], table[at + 1]
        found.setdefault(kind, []).append(table[at + 2 : at + length])
        at += length
    return found


@dataclass
class AmlDevice:
    """A device of a DSDT: its `_HID`, `_UID`, and the descriptors of its `_CRS` as (tag, payload)."""

    path: str
    values: dict[str, object] = field(default_factory=dict)

    @property
    def resources(self) -> list[tuple[int, bytes]]:
        """The descriptors of `_CRS`, the end tag apart."""
        crs = self.values["_CRS"]
        assert isinstance(crs, bytes)
        return list(_descriptors(crs))


def read_dsdt(table: bytes) -> dict[str, AmlDevice]:
    """The devices below \\_SB (ACPI 6.5, 20.2)."""
    devices: dict[str, AmlDevice] = {}
    body = table[36:]
    assert body[:1] == b"\x10", "no Scope"
    start, end = _length(body, 1)
    assert end == len(body)
    assert body[start : start + 5] == b"\\_SB_"
    at = start + 5
    while at < end:
        assert body[at : at + 2] == b"\x5b\x82", "no Device"
        first, last = _length(body, at + 2)
        device = AmlDevice(body[first : first + 4].decode())
        here = first + 4
        while here < last:
            if body[here] == 0x14:
                first, end_of_method = _length(body, here + 1)
                device.values[body[first : first + 4].decode()] = body[first + 4 : end_of_method]
                here = end_of_method
                continue
            assert body[here] == 0x08, "no Name"
            label = body[here + 1 : here + 5].decode()
            device.values[label], here = _value(body, here + 5)
        devices[device.path] = device
        at = last
    return devices


def _length(body: bytes, at: int) -> tuple[int, int]:
    """Where the content begins and ends of a package whose length is at `at`."""
    extra = body[at] >> 6
    size = body[at] & (0xF if extra else 0x3F)
    for index in range(extra):
        size |= body[at + 1 + index] << (4 + 8 * index)
    return at + 1 + extra, at + size


def _value(body: bytes, at: int) -> tuple[object, int]:
    opcode = body[at]
    if opcode in (0, 1):
        return opcode, at + 1
    if opcode == 0x0D:
        end = body.index(b"\0", at)
        return body[at + 1 : end].decode(), end + 1
    if opcode == 0x11:
        start, end = _length(body, at + 1)
        size, start = _value(body, start)
        assert size == end - start
        return body[start:end], end
    if opcode == 0x12:
        start, end = _length(body, at + 1)
        count, at = body[start], start + 1
        elements = []
        for _ in range(count):
            element, at = _value(body, at)
            elements.append(element)
        assert at == end
        return elements, end
    if chr(opcode).isupper():
        return body[at : at + 4].decode(), at + 4
    width = {0x0A: 1, 0x0B: 2, 0x0C: 4, 0x0E: 8}[opcode]
    return int.from_bytes(body[at + 1 : at + 1 + width], "little"), at + 1 + width


def _descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while data[at] != 0x79:
        large = data[at] & 0x80
        tag = data[at] if large else data[at] >> 3
        size = struct.unpack_from("<H", data, at + 1)[0] + 3 if large else (data[at] & 7) + 1
        yield tag, data[at + (3 if large else 1) : at + size]
        at += size
    assert at + 2 == len(data), "bytes behind the end tag"
