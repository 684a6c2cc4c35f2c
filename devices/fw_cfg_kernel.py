"""The items by which firmware is given a Linux kernel: `kernel_items` splits an image as firmware expects it.

Source: QEMU's docs/specs/fw_cfg and standard-headers/linux/qemu_fw_cfg.h for the keys; Linux's
Documentation/arch/x86/boot.rst for the setup header.
"""

from __future__ import annotations

import struct
from typing import Final

KERNEL_ADDRESS, KERNEL_SIZE, INITRD_ADDRESS, INITRD_SIZE = 0x07, 0x08, 0x0A, 0x0B
KERNEL_DATA, INITRD_DATA = 0x11, 0x12
COMMAND_LINE_ADDRESS, COMMAND_LINE_SIZE, COMMAND_LINE = 0x13, 0x14, 0x15
SETUP_ADDRESS, SETUP_SIZE, SETUP_DATA = 0x16, 0x17, 0x18

_SETUP_AT: Final = 0x1_0000
_COMMAND_LINE_AT: Final = 0x2_0000
_KERNEL_AT: Final = 0x10_0000
_SECTOR: Final = 512
_SETUP_SECTORS: Final = 0x1F1
_MAGIC: Final = 0x202
_INITRD_LIMIT: Final = 0x22C
_OLDEST_INITRD_LIMIT: Final = 0x37FF_FFFF
_PAGE: Final = 0x1000


def kernel_items(kernel: bytes, initrd: bytes, command_line: str, memory_end: int) -> dict[int, bytes]:
    """What the items hold. `kernel` is a bzImage, of which the real-mode part is an item of its own; any
    other image is one piece. `memory_end`: the first address after the RAM below 4 GiB; the initrd goes as
    far up as there and the kernel's header allow. Integers are little-endian.
    """
    setup, limit = b"", _OLDEST_INITRD_LIMIT
    if kernel[_MAGIC : _MAGIC + 4] == b"HdrS":
        size = ((kernel[_SETUP_SECTORS] or 4) + 1) * _SECTOR
        setup, kernel = kernel[:size], kernel[size:]
        limit = struct.unpack_from("<I", setup, _INITRD_LIMIT)[0] or limit
    text = command_line.encode() + b"\0"
    top = min(limit + 1, memory_end)
    initrd_at = max(0, top - len(initrd)) & ~(_PAGE - 1)
    words = {
        KERNEL_ADDRESS: _KERNEL_AT,
        KERNEL_SIZE: len(kernel),
        INITRD_ADDRESS: initrd_at if initrd else 0,
        INITRD_SIZE: len(initrd),
        COMMAND_LINE_ADDRESS: _COMMAND_LINE_AT,
        COMMAND_LINE_SIZE: len(text),
        SETUP_ADDRESS: _SETUP_AT,
        SETUP_SIZE: len(setup),
    }
    data = {KERNEL_DATA: kernel, INITRD_DATA: initrd, COMMAND_LINE: text, SETUP_DATA: setup}
    return {key: struct.pack("<I", value) for key, value in words.items()} | data
