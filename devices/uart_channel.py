"""The 16550A's receiver, transmitter, modem lines and interrupt output, without registers and without host
I/O.

Facts. The chip's INTR output is a level: high while any enabled condition holds. The PC feeds it to an
edge-triggered input, so a driver that serves one condition and leaves another pending sees no second edge and
hangs, unless it reads IIR until that says "none". Drivers differ in how careful they are.

Consequences. Here each access that serves a condition lowers the line for an instant: whatever is still
pending (or pending again) afterwards is a new edge. A driver that loops over IIR may take one interrupt more,
which finds "none"; no driver loses one. Transmission takes no time: the line takes a character at once, or
later when what is behind it is full, and only then THRE stays clear.

Source: PC16550D data sheet, section 8; interrupt priorities are its table II, FIFO rules its section 8.11.
"""

from __future__ import annotations

from typing import Protocol

from shardio.devices import uart_state as u
from shardio.devices.uart_state import UartState

FROM_HOST = 1 << 16
"""In an entry of the receive FIFO: the host sent it."""
RLS, DATA, TIMEOUT, THRE, MSI = 0x10, 0x08, 0x04, 0x02, 0x01
"""The interrupt conditions, by priority."""
ENTRY_ERRORS = u.LSR_CHARACTER_ERRORS << 8
"""In an entry of the receive FIFO: the character's PE, FE and BI."""


class UartLine(Protocol):
    """What is outside the chip."""

    def can_send(self) -> bool:
        """Whether the line takes another character now."""

    def send(self, byte: int) -> None:
        """A character leaves the chip."""

    def interrupt(self) -> None:
        """A rising edge on INTR."""

    def changed(self) -> None:
        """What a guest sees of the chip may be different now."""

    def restart_timeout(self, character_times: int) -> None:
        """Call `UartCore.timeout()` unless called again within so many character times; 0 means never."""


class UartChannel:
    """The parts of one 16550A that the outside sees; `UartCore` adds the registers.

    `overruns`, `tx_lost` and `cleared` count lost characters, `interrupts` the edges.
    """

    def __init__(self, line: UartLine, state: UartState | None = None) -> None:
        self.state = state or UartState()
        self.line = line
        self.overruns = 0
        self.tx_lost = 0
        self.cleared = 0
        self.interrupts = 0

    @property
    def fifos(self) -> bool:
        """Whether FCR has the FIFOs enabled."""
        return bool(self.state.fcr & u.FCR_ENABLE)

    @property
    def room(self) -> int:
        """Characters that the receiver takes from the line without an overrun; 0 in loopback."""
        if self.state.mcr & u.MCR_LOOP:
            return 0
        return (u.FIFO_SIZE if self.fifos else 1) - len(self.state.rx)

    def receive(self, data: bytes, errors: int = 0) -> None:
        """`data` comes in from the line, each character with `errors` (LSR_PE, LSR_FE, LSR_BI).

        What comes beyond `room` is an overrun (LSR_OE); nothing comes in while in loopback.
        """
        if self.state.mcr & u.MCR_LOOP:
            return
        for byte in data:
            self._receive(byte | (errors & u.LSR_CHARACTER_ERRORS) << 8 | FROM_HOST)
        self.update()

    def set_lines(self, lines: int) -> None:
        """The modem's CTS, DSR, RI and DCD inputs, as MSR bits 4-7; changes set the delta bits."""
        before = self._lines()
        self.state.lines = lines & u.MSR_LINES
        self._note_lines(before)
        self.update()

    def timeout(self) -> None:
        """Four character times passed with characters in the FIFO and none in or out."""
        if self.fifos and self.state.rx:
            self.state.timed_out = True
            self.update()

    def line_has_room(self) -> None:
        """The line takes characters again: send what waits."""
        if self.state.tx:
            self._transmit()
            self.update()

    def pending(self) -> int:
        """The enabled conditions that hold now, one bit each; the highest bit has the highest priority."""
        s = self.state
        found = 0
        if s.ier & u.IER_RLS and s.lsr_errors:
            found |= RLS
        if s.ier & u.IER_RDA and s.rx:
            if len(s.rx) >= (u.TRIGGER_LEVELS[s.fcr >> 6] if s.fcr & u.FCR_ENABLE else 1):
                found |= DATA
            if s.timed_out:
                found |= TIMEOUT
        if s.ier & u.IER_THRE and s.thre_pending:
            found |= THRE
        if s.ier & u.IER_MSI and s.msr_deltas:
            found |= MSI
        return found

    def update(self) -> None:
        """Raise INTR for conditions that were not signalled yet; OUT2 gates it, as on the PC."""
        s = self.state
        now = self.pending() if s.mcr & u.MCR_OUT2 else 0
        fresh = now & ~s.signalled
        s.signalled = now
        if fresh:
            self.interrupts += 1
            self.line.interrupt()
        self.line.changed()

    # --- for the registers
    # ---------------------------------------------------------------------------------------------

    def _served(self, conditions: int) -> None:
        """The guest served one of `conditions`: if INTR was high for it, what is pending now is a new
        edge.
        """
        if self.state.signalled & conditions:
            self.state.signalled = 0
        self.update()

    def _receive(self, entry: int) -> None:
        s = self.state
        if len(s.rx) < (u.FIFO_SIZE if self.fifos else 1):
            s.rx.append(entry)
        else:
            self.overruns += 1
            s.lsr_errors |= u.LSR_OE
            if not self.fifos:
                s.rx[0] = entry
        self._reveal_errors()
        if self.fifos:
            self.line.restart_timeout(4)

    def _reveal_errors(self) -> None:
        """A character's errors appear in LSR when it comes to the head of the FIFO."""
        rx = self.state.rx
        if rx and rx[0] & ENTRY_ERRORS:
            self.state.lsr_errors |= rx[0] >> 8 & u.LSR_CHARACTER_ERRORS
            rx[0] &= ~ENTRY_ERRORS

    def _transmit(self) -> None:
        s = self.state
        if s.mcr & u.MCR_LOOP:
            waiting, s.tx = s.tx, b""
            for byte in waiting:
                self._receive(byte)
        while s.tx and self.line.can_send():
            byte, s.tx = s.tx[0], s.tx[1:]
            self.line.send(byte)
        if not s.tx:
            s.thre_pending = True

    def _lines(self) -> int:
        """MSR bits 4-7: the modem's inputs, or in loopback the chip's own outputs."""
        mcr = self.state.mcr
        if not mcr & u.MCR_LOOP:
            return self.state.lines
        lines = u.MSR_CTS if mcr & u.MCR_RTS else 0
        lines |= u.MSR_DSR if mcr & u.MCR_DTR else 0
        lines |= u.MSR_RI if mcr & u.MCR_OUT1 else 0
        return lines | (u.MSR_DCD if mcr & u.MCR_OUT2 else 0)

    def _note_lines(self, before: int) -> None:
        changed = before ^ self._lines()
        # The ring indicator counts only when it ends.
        ended = changed & before & u.MSR_RI
        self.state.msr_deltas |= (changed & ~u.MSR_RI | ended) >> 4
