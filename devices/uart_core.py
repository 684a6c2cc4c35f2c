"""The 16550A's registers: what each read and write gives and does, over a `UartChannel`.

Source: PC16550D data sheet, section 8 "Registers".
"""

from __future__ import annotations

from shardio.devices import uart_state as u
from shardio.devices.uart_channel import (
    DATA,
    ENTRY_ERRORS,
    FROM_HOST,
    MSI,
    RLS,
    THRE,
    TIMEOUT,
    UartChannel,
    UartLine,
)
from shardio.devices.uart_state import UartState


class UartCore(UartChannel):
    """One 16550A: `read` and `write` are the guest's, the rest is `UartChannel`'s."""

    def __init__(self, line: UartLine, state: UartState | None = None) -> None:
        super().__init__(line, state)
        self._reads = (
            self._read_rbr, self._read_ier, self._read_iir, self._read_lcr,
            self._read_mcr, self._read_lsr, self._read_msr, self._read_scr,
        )
        self._writes = (
            self._write_thr, self._write_ier, self._write_fcr, self._write_lcr,
            self._write_mcr, self._ignore, self._ignore, self._write_scr,
        )

    def read(self, register: int) -> int:
        """The byte in `register` (0-7), with the side effects of reading it."""
        return self._reads[register]()

    def write(self, register: int, value: int) -> None:
        """Write the byte `value` to `register` (0-7); LSR and MSR ignore it."""
        self._writes[register](value)

    # --- registers with side effects ------------------------------------------------------------------------

    def _read_rbr(self) -> int:
        s = self.state
        if s.lcr & u.LCR_DLAB:
            return s.divisor & 0xFF
        if not s.rx:
            return 0
        entry = s.rx.pop(0)
        s.timed_out = False
        self._reveal_errors()
        if self.fifos:
            self.line.restart_timeout(4 if s.rx else 0)
        self._served(DATA | TIMEOUT)
        return entry & 0xFF

    def _read_ier(self) -> int:
        s = self.state
        return s.divisor >> 8 if s.lcr & u.LCR_DLAB else s.ier

    def _read_lcr(self) -> int:
        return self.state.lcr

    def _read_mcr(self) -> int:
        return self.state.mcr

    def _read_scr(self) -> int:
        return self.state.scr

    def _read_iir(self) -> int:
        found = self.pending()
        if found & RLS:
            value = u.IIR_RLS
        elif found & DATA:
            value = u.IIR_RDA
        elif found & TIMEOUT:
            value = u.IIR_CTI
        elif found & THRE:
            value = u.IIR_THRE
            self.state.thre_pending = False
            self._served(THRE)
        elif found & MSI:
            value = u.IIR_MSI
        else:
            value = u.IIR_NONE
        return value | (u.IIR_FIFOS if self.fifos else 0)

    @property
    def line_status(self) -> int:
        """LSR as it is; reading the register clears the errors in it."""
        s = self.state
        value = s.lsr_errors
        if s.rx:
            value |= u.LSR_DR
        if not s.tx:
            value |= u.LSR_THRE | u.LSR_TEMT
        if self.fifos and (value & u.LSR_CHARACTER_ERRORS or any(entry & ENTRY_ERRORS for entry in s.rx)):
            value |= u.LSR_FIFO_ERROR
        return value

    @property
    def passes_through(self) -> bool:
        """Whether a character that is written now goes out at once and changes nothing else that a guest can
        see: no interrupt, no loopback, no divisor.
        """
        s = self.state
        return not (s.tx or s.lcr & u.LCR_DLAB or s.mcr & u.MCR_LOOP or s.ier & u.IER_THRE) and s.thre_pending

    def _read_lsr(self) -> int:
        s = self.state
        value = self.line_status
        if s.lsr_errors:
            s.lsr_errors = 0
            self._served(RLS)
        return value

    def _read_msr(self) -> int:
        s = self.state
        value = self._lines() | s.msr_deltas
        if s.msr_deltas:
            s.msr_deltas = 0
            self._served(MSI)
        return value

    def _write_thr(self, value: int) -> None:
        s = self.state
        if s.lcr & u.LCR_DLAB:
            s.divisor = s.divisor & 0xFF00 | value
            return
        if not s.tx and not s.mcr & u.MCR_LOOP and self.line.can_send():
            # The usual case: the character passes through THR at once, which is empty again.
            self.line.send(value)
            s.thre_pending = True
            self._served(THRE)
            return
        if not self.fifos:
            self.tx_lost += len(s.tx)
            s.tx = bytes((value,))
        elif len(s.tx) < u.FIFO_SIZE:
            s.tx += bytes((value,))
        else:
            self.tx_lost += 1
        s.thre_pending = False
        self._transmit()
        self._served(THRE)

    def _write_ier(self, value: int) -> None:
        s = self.state
        if s.lcr & u.LCR_DLAB:
            s.divisor = s.divisor & 0xFF | value << 8
            return
        value &= 0x0F
        if value & ~s.ier & u.IER_THRE and not s.tx:
            # Enabling it while the transmitter is empty interrupts at once, even if IIR was read before.
            s.thre_pending = True
        s.ier = value
        self.update()

    def _write_fcr(self, value: int) -> None:
        s = self.state
        toggled = (value ^ s.fcr) & u.FCR_ENABLE
        # Without its enable bit the other bits of FCR are not programmed.
        s.fcr = value & u.FCR_STORED if value & u.FCR_ENABLE else 0
        clear = u.FCR_CLEAR_RX | u.FCR_CLEAR_TX if toggled else value if value & u.FCR_ENABLE else 0
        if clear & u.FCR_CLEAR_RX:
            # What the host sent is not lost: a driver clears the FIFO before it listens, and a modem with
            # flow # control would still hold these characters.
            returned = bytes(entry & 0xFF for entry in s.rx if entry & FROM_HOST)
            s.held = returned + s.held
            s.rx.clear()
            s.timed_out = False
            self.line.restart_timeout(0)
        if clear & u.FCR_CLEAR_TX:
            self.cleared += len(s.tx)
            s.thre_pending = s.thre_pending or bool(s.tx)
            s.tx = b""
        self.update()

    def _write_lcr(self, value: int) -> None:
        s = self.state
        if value & ~s.lcr & u.LCR_BREAK and s.mcr & u.MCR_LOOP:
            self._receive(u.LSR_BI << 8)
        s.lcr = value
        self.update()

    def _write_mcr(self, value: int) -> None:
        before = self._lines()
        self.state.mcr = value & u.MCR_WRITABLE
        self._note_lines(before)
        self.line_has_room()
        self.update()

    def _write_scr(self, value: int) -> None:
        self.state.scr = value

    def _ignore(self, value: int) -> None:
        """LSR and MSR are the chip's to write."""
