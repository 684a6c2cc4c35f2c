"""Wires: how interrupt lines reach controllers that are devices of a shard (native/wires.h says where).

A vCPU worker writes 8 bytes to the wires of the PIC and of the IOAPIC: the lines that were pulsed and the
lines that are high now.
"""

from __future__ import annotations

from typing import Final

from shardio._core import lib
from shardio.errors import InterruptError
from shardio.interrupt.config import EXTINT
from shardio.range import MmioRange

PIC_WIRES: Final = MmioRange(lib.SIO_PIC_WIRES, lib.SIO_WIRES_SIZE)
IOAPIC_WIRES: Final = MmioRange(lib.SIO_IOAPIC_WIRES, lib.SIO_WIRES_SIZE)
INTA: Final = lib.SIO_WIRES_INTA
"""Offset of the PIC's INTA cycle in its wires."""
LINES: Final = lib.SIO_WIRED_LINES
"""How many lines there are: global system interrupts 0 to 23."""


def line_bit(gsi: int) -> int | None:
    """Where a line is in words about lines: at its own number, or, EXTINT, behind those of the controllers.
    None: it is no line.

    >>> line_bit(10), line_bit(EXTINT), line_bit(24)
    (10, 24, None)
    """
    if gsi == EXTINT:
        return int(lib.SIO_LINE_EXTINT).bit_length() - 1
    return gsi if 0 <= gsi < LINES else None


def no_controllers(gsi: int) -> InterruptError:
    """Line `gsi` of a machine without interrupt controllers leads nowhere."""
    what = "the split irqchip has no lines without controllers"
    hint = 'add "shardio.devices:Pic" or "shardio.devices:IoApic", or use MSI, or irqchip=True'
    return InterruptError(gsi, what, hint)


def wired(pulses: int, levels: int) -> int:
    """What is written to the wires: `pulses`, the lines (bit n: GSI n) that saw an edge (a rise and a
    fall; of a line that is high, a fall and a rise), and `levels`, those that are high now.

    >>> hex(wired(pulses=1 << 4, levels=1 << 10))
    '0x40000000010'
    """
    return pulses | levels << 32


def unwired(value: int) -> tuple[int, int]:
    """The pulses and the levels in what was written to the wires.

    >>> unwired(0x400_0000_0010)
    (16, 1024)
    """
    return value & lib.SIO_WIRED_MASK, value >> 32 & lib.SIO_WIRED_MASK
