"""How many values a MessagePack text holds, found without making any of them.

An empty list is one byte of such a text and some sixty bytes of memory, so a text's length says little of
what unpacking it costs. The formats are those of the MessagePack specification.
"""

from __future__ import annotations

_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
          0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}  # fmt: skip
"""Bytes behind the tag of floats, integers and fixed extensions."""
_COUNTED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
            0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}  # fmt: skip
"""Of bytes, extensions and strings: how long their length is, and what else stands before the contents."""
_NESTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Of arrays and maps: how long their count is, and the values of each entry."""


def has_more_objects(text: bytes, most: int) -> bool:
    """Whether the first value of `text` holds more than `most` values, itself included. Raises `IndexError`
    for a text that is cut off.
    """
    position, expected, seen = 0, 1, 0
    while expected > 0:
        expected -= 1
        seen += 1
        if seen + expected > most:
            return True
        tag = text[position]
        position += 1
        if tag in _FIXED:
            position += _FIXED[tag]
        elif tag in _COUNTED:
            width, more = _COUNTED[tag]
            position += width + more + int.from_bytes(text[position : position + width], "big")
        elif tag in _NESTED:
            width, each = _NESTED[tag]
            expected += each * int.from_bytes(text[position : position + width], "big")
            position += width
        elif 0x80 <= tag < 0x90:
            expected += 2 * (tag & 0xF)
        elif 0x90 <= tag < 0xA0:
            expected += tag & 0xF
        elif 0xA0 <= tag < 0xC0:
            position += tag & 0x1F
    return False
