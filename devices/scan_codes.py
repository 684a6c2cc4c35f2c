"""The keyboard controller's translation of scan code set 2, which keyboards send, into set 1, which PC
software reads.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and auxiliary device controller", scan code
translation. Set 2 announces a release by 0xF0 before the code; set 1 has bit 7 set in the code instead.
"""

from __future__ import annotations

from typing import Final

RELEASE: Final = 0xF0
_RELEASED: Final = 0x80
_TABLE: Final = bytes.fromhex(
    "ff43413f3d3b3c58644442403e0f2959"
    "65382a701d10025a66712c1f1e11035b"
    "672e2d201205045c68392f211413065d"
    "693130232215075e6a7232241608095f"
    "6b332517180b0a606c34352627190c61"
    "6d7328741a0d626e3a361c1b752b6376"
    "55567778797a0e7b7c4f7d4b477e7f6f"
    "5253504c4d480145574e514a37494654"
)
_BEYOND: Final = {0x83: 0x41, 0x84: 0x54}  # F7 and SysRq


def set_1(code: int) -> int:
    """What a byte of the keyboard's becomes, RELEASE apart: a key's code in set 1, and most answers
    themselves.

    >>> hex(set_1(0x1C)), hex(set_1(0xFA))
    ('0x1e', '0xfa')
    """
    return _TABLE[code] if code < len(_TABLE) else _BEYOND.get(code, code)


class Translator:
    """Translates a stream of bytes; `released`: RELEASE came, and the code that it is about did not yet."""

    def __init__(self, released: bool = False) -> None:
        self.released = released

    def translate(self, code: int) -> bytes:
        """The set 1 byte for `code`; none for RELEASE itself.

        >>> keys = Translator()
        >>> b"".join(map(keys.translate, bytes.fromhex("1c f0 1c e0 75 e0 f0 75"))).hex(" ")
        '1e 9e e0 48 e0 c8'
        """
        if code == RELEASE:
            self.released = True
            return b""
        released, self.released = self.released, False
        return bytes([set_1(code) | (_RELEASED if released else 0)])
