"""The task file of an ATA drive: its registers' numbers and bits, and the commands' codes.

Source: ATA/ATAPI-6 (T13/1410D revision 3b), clause 7 for the registers and clause 8 for the commands.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

# Offsets from the command block's first port (clause 7). Writing 1 sets features, writing 7 begins a command.
DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS = range(8)
FEATURES: Final = ERROR
COMMAND: Final = STATUS

# Status (clause 7.15).
BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
READY: Final = DRDY | DSC

# Error (clause 7.9). Of a packet command bits 4 to 7 are the sense key instead.
UNC, IDNF, ABRT = 0x40, 0x10, 0x04
DIAGNOSTIC_PASSED: Final = 0x01

# Device (clause 7.7): bit 6 chooses LBA, bit 4 the drive. Bits 5 and 7 are obsolete and read as written.
USE_LBA, SECOND = 0x40, 0x10

# Device control (clause 7.8).
HOB, SRST, NIEN = 0x80, 0x04, 0x02

# Interrupt reason, which is the count register of a packet command (clause 7.10).
REASON_COMMAND, REASON_TO_HOST = 0x01, 0x02


class Command(IntEnum):
    """Codes of the commands that a drive here knows (clause 8)."""

    DEVICE_RESET = 0x08
    RECALIBRATE = 0x10
    READ_SECTORS = 0x20
    READ_SECTORS_ONCE = 0x21
    READ_SECTORS_EXT = 0x24
    READ_DMA_EXT = 0x25
    READ_MULTIPLE_EXT = 0x29
    WRITE_SECTORS = 0x30
    WRITE_SECTORS_ONCE = 0x31
    WRITE_SECTORS_EXT = 0x34
    WRITE_DMA_EXT = 0x35
    WRITE_MULTIPLE_EXT = 0x39
    READ_VERIFY = 0x40
    READ_VERIFY_ONCE = 0x41
    READ_VERIFY_EXT = 0x42
    SEEK = 0x70
    EXECUTE_DEVICE_DIAGNOSTIC = 0x90
    INITIALIZE_DEVICE_PARAMETERS = 0x91
    PACKET = 0xA0
    IDENTIFY_PACKET_DEVICE = 0xA1
    READ_MULTIPLE = 0xC4
    WRITE_MULTIPLE = 0xC5
    SET_MULTIPLE_MODE = 0xC6
    READ_DMA = 0xC8
    READ_DMA_ONCE = 0xC9
    WRITE_DMA = 0xCA
    WRITE_DMA_ONCE = 0xCB
    STANDBY_IMMEDIATE = 0xE0
    IDLE_IMMEDIATE = 0xE1
    STANDBY = 0xE2
    IDLE = 0xE3
    CHECK_POWER_MODE = 0xE5
    SLEEP = 0xE6
    FLUSH_CACHE = 0xE7
    FLUSH_CACHE_EXT = 0xEA
    IDENTIFY_DEVICE = 0xEC
    SET_FEATURES = 0xEF


class Fault(Exception):
    """A command fails with these bits in the error register."""

    def __init__(self, error: int) -> None:
        super().__init__(f"error {error:#04x}")
        self.error = error
