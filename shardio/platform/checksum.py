"""The checksum of firmware tables: all bytes add up to 0, modulo 256 (ACPI 6.5 section 5.2, MPS 1.4 4.1)."""

from __future__ import annotations


def with_checksum(table: bytes, at: int) -> bytes:
    """`table` with the byte at `at`, which must be 0 now, set so that the bytes add up to 0.

    >>> with_checksum(bytes([1, 2, 0]), 2)
    b'\\x01\\x02\\xfd'
    """
    return table[:at] + bytes([-sum(table) & 0xFF]) + table[at + 1 :]
