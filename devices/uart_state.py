"""The 16550A's state apart from its behaviour, and the names of its registers and bits.

Source: National Semiconductor PC16550D data sheet (1995), section 8 "Registers".
"""

from __future__ import annotations

import msgspec

# Register offsets; DLL and DLM take the place of the first two while LCR.DLAB is set.
RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7

IER_RDA = 0x01  # received data available, and the character time-out
IER_THRE = 0x02  # transmitter holding register empty
IER_RLS = 0x04  # receiver line status
IER_MSI = 0x08  # modem status

IIR_NONE = 0x01
IIR_RLS = 0x06
IIR_RDA = 0x04
IIR_CTI = 0x0C
IIR_THRE = 0x02
IIR_MSI = 0x00
IIR_FIFOS = 0xC0

FCR_ENABLE = 0x01
FCR_CLEAR_RX = 0x02
FCR_CLEAR_TX = 0x04
FCR_STORED = 0xC9  # enable, DMA mode, trigger level

LCR_BREAK = 0x40
LCR_DLAB = 0x80

MCR_DTR = 0x01
MCR_RTS = 0x02
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08
MCR_LOOP = 0x10
MCR_WRITABLE = 0x1F

LSR_DR = 0x01
LSR_OE = 0x02
LSR_PE = 0x04
LSR_FE = 0x08
LSR_BI = 0x10
LSR_THRE = 0x20
LSR_TEMT = 0x40
LSR_FIFO_ERROR = 0x80
LSR_CHARACTER_ERRORS = LSR_PE | LSR_FE | LSR_BI
LSR_ERRORS = LSR_OE | LSR_CHARACTER_ERRORS

MSR_DCTS = 0x01
MSR_DDSR = 0x02
MSR_TERI = 0x04
MSR_DDCD = 0x08
MSR_CTS = 0x10
MSR_DSR = 0x20
MSR_RI = 0x40
MSR_DCD = 0x80
MSR_LINES = 0xF0

FIFO_SIZE = 16
TRIGGER_LEVELS = (1, 4, 8, 14)
CLOCK_HZ = 1_843_200  # the PC's crystal: 115200 baud at divisor 1


class UartState(msgspec.Struct):
    """Everything that the guest can observe of a UART; `snapshot()` copies it, `restore()` takes it back.

    `rx` holds received characters, oldest first: bits 0-7 the byte, bits 10-12 its PE, FE and BI (LSR bits
    shifted left by 8), bit 16 set when the host sent it. `tx` holds what the line has not taken yet, `held`
    what the host sent and the receiver had no room for; `sent` counts the bytes that have left the chip,
    where it keeps them in a ring. The defaults are those of master reset (data sheet table III); the divisor,
    undefined there, is PC firmware's 9600 baud.
    """

    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    scr: int = 0
    divisor: int = 12
    lsr_errors: int = 0
    lines: int = MSR_CTS | MSR_DSR | MSR_DCD
    msr_deltas: int = 0
    thre_pending: bool = True
    timed_out: bool = False
    signalled: int = 0
    rx: list[int] = msgspec.field(default_factory=list)
    tx: bytes = b""
    held: bytes = b""
    sent: int = 0


class UartStatistics(msgspec.Struct, frozen=True):
    """What a UART did since it was made: bytes, and characters lost as the hardware loses them.

    `overruns`: received into a full FIFO; `tx_lost`: written to a full one; `cleared`: dropped unsent by FCR.
    """

    received: int = 0
    sent: int = 0
    overruns: int = 0
    tx_lost: int = 0
    cleared: int = 0
    interrupts: int = 0
