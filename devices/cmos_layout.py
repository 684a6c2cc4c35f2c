"""What firmware reads about the machine from CMOS memory: RAM sizes, the number of CPUs, the checksum.

Source: SeaBIOS `src/hw/rtc.h` for the places; the low ones are those of the IBM PC AT.
"""

from __future__ import annotations

# Where `shardio.memory` ends its first region; its own name would bring the compiled core in (a test
# compares).
LOW_MEMORY_END = 3 << 30
_KIB = 1 << 10
_MIB = 1 << 20
_EQUIPMENT = 0x14
_EQUIPMENT_FPU = 0x02


def describe_machine(cmos: bytearray, memory: int, vcpus: int) -> None:
    """Write `memory` (bytes of RAM, of which what goes above 3 GiB sits at 4 GiB) and `vcpus` into `cmos`."""
    low = min(memory, LOW_MEMORY_END)
    above_1m = min(max(low - _MIB, 0) // _KIB, 0xFFFF)
    cmos[_EQUIPMENT] = _EQUIPMENT_FPU
    _store(cmos, 0x15, 2, min(low // _KIB, 640))
    _store(cmos, 0x17, 2, above_1m)
    _store(cmos, 0x30, 2, above_1m)
    _store(cmos, 0x34, 2, max(low - 16 * _MIB, 0) // (64 * _KIB))
    _store(cmos, 0x5B, 3, min((memory - low) // (64 * _KIB), 0xFFFFFF))
    cmos[0x5F] = vcpus - 1
    # Big-endian, over the bytes that the AT's set-up program owned.
    cmos[0x2E:0x30] = sum(cmos[0x10:0x2E]).to_bytes(2, "big")


def _store(cmos: bytearray, at: int, size: int, value: int) -> None:
    cmos[at : at + size] = value.to_bytes(size, "little")
