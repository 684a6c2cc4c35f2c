"""`Uart16550`: a PC serial port in a shard, between the guest and a terminal, pipe or file of the host.

The chip is `uart_core` and `uart_channel`, its state `uart_state`; this file and `uart_input` join it to
the event loop, the interrupt and the host's byte streams. Unit test: register it with a bare `IoManager`
and feed it with `receive()`.

A guest that prints reads LSR and writes THR for each byte, so these two have a short way: while neither has
a side effect, `FastRegisters` answers them in C, from what `changed` has set. In a shard what is sent
gathers, 4 KiB at most, and the loop writes it after the turn in which it was sent.

>>> uart = Uart16550(output="null")
>>> uart.receive(b"A")
>>> chr(uart.read(0, 1))
'A'
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from shardio.device import DeviceHost, MutDeviceMmio, MutDevicePio
from shardio.devices.byte_input import ByteInput
from shardio.devices.byte_output import ByteOutput
from shardio.devices.uart_core import UartCore
from shardio.devices.uart_input import UartInput
from shardio.devices.uart_memory import AREA_BYTES, STATE_BYTES, UartMemory
from shardio.devices.uart_state import (
    CLOCK_HZ,
    FCR,
    LSR,
    LSR_BI,
    THR,
    UartState,
    UartStatistics,
)
from shardio.errors import DeviceOptionError
from shardio.fast_registers import FastRegisters

_STRIDES = (1, 2, 4, 8)
_BITS_PER_CHARACTER = 10
_GATHERED_LIMIT = 4096
_NOWHERE = -1  # no offset of an access


class Uart16550(FastRegisters, MutDevicePio, MutDeviceMmio):
    """A 16550A: 8 byte registers from its base (COM1 is port 0x3F8 with IRQ 4), wider accesses byte by byte.

    What the guest sends goes to `output` within a turn of the loop, in order; what comes from `input` is
    read only when the receiver has room, so neither direction loses a byte that the guest gives time to.
    The line carries 8 bits whatever LCR says.
    """

    compatible = "ns16550a"
    persistent, persistent_area = STATE_BYTES, AREA_BYTES
    guards_itself = True
    pio_size = 8
    mmio_size = 8

    @staticmethod
    def describe(stride: int = 1, **_: object) -> dict[str, int]:
        """What the options say to tables and device trees: how far apart the registers are."""
        return {"reg_shift": stride.bit_length() - 1}

    def __init__(
        self, output: str = "stdout", input: str = "none", stride: int = 1  # noqa: A002 - an option's name
    ) -> None:
        """`output`: "stdout", "stderr", "null", "file:PATH" (appended), "pty" or "fd:N"; `input`: "none",
        "stdin", "pty" (the same one as the output's), "file:PATH" or "fd:N"; `stride`: bytes from one
        register to the next (1, 2, 4 or 8; for MMIO, where the range's size is then 8 strides).

        Raises DeviceOptionError for any other value; `attach()` raises it when a file cannot be opened.
        """
        if stride not in _STRIDES:
            raise DeviceOptionError("Uart16550", "stride", stride, "give 1, 2, 4 or 8")
        self.output = ByteOutput(output, device="Uart16550")
        self.output.on_room = self._output_has_room
        self.input = ByteInput(input, device="Uart16550")
        self._core = UartCore(self)
        self._feed = UartInput(self.input, self._core, self._fed)
        self._shift = stride.bit_length() - 1
        self._host: DeviceHost | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._sent = 0
        self._flushing = False
        self.limit = _GATHERED_LIMIT
        self._memory: UartMemory | None = None

    # --- the owner shard ------------------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Open the streams, read input in the shard's loop, raise interrupts through `host.trigger`.

        A condition that is pending in a restored state is raised again: its edge may have been lost.
        """
        if getattr(host, "persistent", None) is not None:
            self._memory = UartMemory(self, self._core, host.persistent)
            self.output.keep_in(self._memory.ring)
        try:
            self._feed.attach(host)
            self.output.attach(host, self._feed.pty)
        except BaseException:
            self._feed.close()
            self._let_go()
            raise
        self._host, self._loop = host, host.loop
        if path := self.output.pty_path or (self._feed.pty.path if self._feed.pty else ""):
            print(f"shardio: {host.name}: the serial port is {path}", file=sys.stderr, flush=True)
        self._revive()
        if self._memory is not None:
            self._loop.call_soon(self._flush)

    def detach(self) -> None:
        """Flush the output, close both streams. Input that was not read stays with the host."""
        self._cancel_timer()
        self._feed.close()
        self._flush()
        waiting, self._core.state.tx = self._core.state.tx, b""
        if self._memory is None:
            self.output.write(waiting)
        self._sent += len(waiting)
        self.output.close()
        self._let_go()
        self._host, self._loop = None, None
        self.changed()

    def snapshot(self) -> UartState:
        """A copy of the state: registers, both FIFOs, and input that waits for room."""
        state = self._core.state
        return msgspec.structs.replace(state, rx=list(state.rx))

    def restore(self, state: UartState) -> None:
        """Take over `state`, as `snapshot()` gave it."""
        self._core.state = msgspec.structs.replace(state, rx=list(state.rx))
        if self._loop is not None:
            self._revive()

    def statistics(self) -> UartStatistics:
        """Counts since the device was made."""
        sent, core = self._sent + len(self.gathered) + self.tail, self._core
        lost = core.overruns, core.tx_lost, core.cleared
        return UartStatistics(self._feed.received, sent, *lost, core.interrupts)

    # --- the guest ------------------------------------------------------------------------------------------

    def read_slowly(self, offset: int, size: int) -> int:
        """`size` bytes (1, 2, 4 or 8) from `offset`, little-endian; bytes between strides read 0, past the
        last register 0xFF.
        """
        if self._memory is not None and not self._memory.inside:
            return self._memory.read(offset, size)
        if size == 1 and not self._shift:
            return self._read_register(offset)
        value = 0
        for i in range(size):
            register, between = divmod(offset + i, 1 << self._shift)
            value |= (0 if between else self._read_register(register)) << 8 * i
        return value

    def write_slowly(self, offset: int, size: int, value: int) -> None:
        """`size` bytes (1, 2, 4 or 8) to `offset`, little-endian; bytes that are no register's are
        dropped.
        """
        if self._memory is not None and not self._memory.inside:
            self._memory.write(offset, size, value)
            return
        if size == 1 and not self._shift:
            self._write_register(offset, value & 0xFF)
        else:
            for i in range(size):
                register, between = divmod(offset + i, 1 << self._shift)
                if not between:
                    self._write_register(register, value >> 8 * i & 0xFF)
        if self._feed.paused:
            self._feed.resume()

    def _read_register(self, register: int) -> int:
        if register > 7:
            return 0xFF
        value = self._core.read(register)
        if self._core.state.held:
            self._feed.refill()
        if self._feed.paused:
            self._feed.resume()
        return value

    def _write_register(self, register: int, value: int) -> None:
        if register > 7:
            return
        self._core.write(register, value)
        if register == FCR:
            # Not refilled here: the guest must find the FIFO empty that it has just cleared.
            self._feed.pause()

    # --- the host -------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """The host sends `data`: what the receiver has no room for now follows as the guest reads."""
        self._feed.receive(data)
        self.keep()

    def send_break(self) -> None:
        """The host sends a break: a zero character with LSR_BI."""
        self._core.receive(b"\0", LSR_BI)
        self.keep()

    def set_modem_lines(self, lines: int) -> None:
        """Set CTS, DSR, RI and DCD, given as MSR bits 4-7; all but RI are on from the start."""
        self._core.set_lines(lines)
        self.keep()

    # --- UartLine -------------------------------------------------------------------------------------------

    def can_send(self) -> bool:
        """Whether the output takes another byte: false only while its backlog is at its limit."""
        if self._memory is not None:
            return self._memory.has_room
        return not self.output.full

    def send(self, byte: int) -> None:
        """A byte leaves for the output, behind what was gathered."""
        if self._loop is None:
            self._sent += 1
            self.output.write(bytes((byte,)))
            return
        if self._memory is not None:
            self._memory.put(byte)
        else:
            self.gathered.append(byte)
            if len(self.gathered) >= _GATHERED_LIMIT:
                self._write_out()
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def changed(self) -> None:
        """Whether LSR and THR have their short way, and what LSR reads there."""
        self.status_at = self.data_at = _NOWHERE
        if self._loop is None or self._feed.paused:
            return
        core = self._core
        if not core.state.held and not core.state.lsr_errors:
            self.status = core.line_status
            self.status_at = LSR << self._shift
        # Only behind a byte that has asked for a flush: what follows it need not.
        if self._flushing and core.passes_through and self.can_send() and not (
            self._memory and self._memory.repeat
        ):
            self.data_at = THR

    def interrupt(self) -> None:
        """One edge on the device's interrupt line, where it has one."""
        if self._host is not None and self._host.trigger is not None:
            self._host.trigger.trigger()

    def restart_timeout(self, character_times: int) -> None:
        """Let the character time-out strike after so many character times from now; 0 cancels it.

        One loop timer serves a run of restarts: it looks at the deadline when it fires. Without a loop the
        time-out never strikes by itself (`UartCore.timeout()` does it).
        """
        if self._loop is None or not character_times:
            self._deadline = 0.0
            return
        bits = character_times * _BITS_PER_CHARACTER
        delay = bits * 16 * (self._core.state.divisor or 1) / CLOCK_HZ
        self._deadline = self._loop.time() + delay
        if self._timer is None:
            self._timer = self._loop.call_later(delay, self._on_timer)

    # --- inside ---------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Save the state, where the device has memory for it; in an access that is done at its end."""
        if self._memory is not None and not self._memory.inside:
            self._memory.save()

    def _let_go(self) -> None:
        if self._memory is not None:
            self._memory.close()
        self._memory = None

    def _fed(self) -> None:
        """The receiver has taken something from the host, or may take something again."""
        self.changed()
        self.keep()

    def _flush(self) -> None:
        """The loop's turn is over: write what was gathered in it."""
        self._flushing = False
        self._write_out()

    def _write_out(self) -> None:
        if self._memory is not None:
            self._memory.send(self.output)
            self.changed()
            return
        data = bytes(self.gathered)
        self.gathered.clear()  # first: the output may have room for more, which is gathered behind
        self._sent += len(data)
        if data:
            self.output.write(data)
        self.changed()

    def _revive(self) -> None:
        """Go on from whatever the state is: send, receive, interrupt."""
        core = self._core
        core.line_has_room()
        core.state.signalled = 0
        core.update()
        if core.fifos and core.state.rx:
            self.restart_timeout(4)
        self._feed.refill()
        self._feed.pause()
        self._feed.resume()

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop is None or not self._deadline:
            return
        left = self._deadline - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._on_timer)
        else:
            self._core.timeout()
            self.keep()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._deadline = None, 0.0

    def _output_has_room(self) -> None:
        if self._memory is not None:
            self.head = self._memory.ring.head
        self._core.line_has_room()
        self._fed()
