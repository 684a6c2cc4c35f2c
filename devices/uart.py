"""`Uart16550`: a PC serial port in a shard, between the guest and a terminal, pipe or file of the host.

The chip is `uart_core` and `uart_channel`, its state `uart_state`; this file joins it to the event loop, the
interrupt and the host's byte streams. Unit test: register it with a bare `IoManager` and feed it with
`receive()`.

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
from shardio.devices.uart_state import (
    CLOCK_HZ,
    FCR,
    FIFO_SIZE,
    LSR_BI,
    UartState,
    UartStatistics,
)
from shardio.errors import DeviceOptionError

_STRIDES = (1, 2, 4, 8)
_BITS_PER_CHARACTER = 10


class Uart16550(MutDevicePio, MutDeviceMmio):
    """A 16550A: 8 byte registers from its base (COM1 is port 0x3F8 with IRQ 4), wider accesses byte by byte.

    What the guest sends goes to `output` at once; what comes from `input` is read only when the receiver has
    room, so neither direction loses a byte that the guest gives time to. The line carries 8 bits whatever LCR
    says.
    """

    compatible = "ns16550a"
    pio_size = 8
    mmio_size = 8

    def __init__(
        self,
        output: str = "stdout",
        input: str = "none",  # noqa: A002 - the option's name in a configuration
        stride: int = 1,
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
        self._shift = stride.bit_length() - 1
        self._host: DeviceHost | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._paused = True
        self._received = 0
        self._sent = 0

    # --- the owner shard ------------------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Open the streams, read input in the shard's loop, raise interrupts through `host.trigger`.

        A condition that is pending in a restored state is raised again: its edge may have been lost.
        """
        self._host, self._loop = host, host.loop
        self.input.attach(host.loop, self._pump)
        self.output.open(self.input.pty)
        self.output.attach(host.loop)
        if path := self.output.pty_path or (self.input.pty.path if self.input.pty else ""):
            print(f"shardio: {host.name}: the serial port is {path}", file=sys.stderr, flush=True)
        self._revive()

    def detach(self) -> None:
        """Flush the output, close both streams. Input that was not read stays with the host."""
        self._cancel_timer()
        self.input.close()
        waiting, self._core.state.tx = self._core.state.tx, b""
        self.output.write(waiting)
        self._sent += len(waiting)
        self.output.close()
        self._host, self._loop = None, None

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
        core = self._core
        return UartStatistics(
            self._received, self._sent, core.overruns, core.tx_lost, core.cleared, core.interrupts
        )

    # --- the guest ------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """`size` bytes (1, 2, 4 or 8) from `offset`, little-endian; bytes between strides read 0, past the
        last register 0xFF.
        """
        if size == 1 and not self._shift:
            return self._read_register(offset)
        value = 0
        for i in range(size):
            register, between = divmod(offset + i, 1 << self._shift)
            value |= (0 if between else self._read_register(register)) << 8 * i
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """`size` bytes (1, 2, 4 or 8) to `offset`, little-endian; bytes that are no register's are
        dropped.
        """
        if size == 1 and not self._shift:
            self._write_register(offset, value & 0xFF)
        else:
            for i in range(size):
                register, between = divmod(offset + i, 1 << self._shift)
                if not between:
                    self._write_register(register, value >> 8 * i & 0xFF)
        if self._paused:
            self._resume()

    def _read_register(self, register: int) -> int:
        if register > 7:
            return 0xFF
        value = self._core.read(register)
        if self._core.state.held:
            self._refill()
        if self._paused:
            self._resume()
        return value

    def _write_register(self, register: int, value: int) -> None:
        if register > 7:
            return
        self._core.write(register, value)
        if register == FCR:
            # Not refilled here: the guest must find the FIFO empty that it has just cleared.
            self._pause()

    # --- the host -------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """The host sends `data`: what the receiver has no room for now follows as the guest reads."""
        self._core.state.held += data
        self._refill()

    def send_break(self) -> None:
        """The host sends a break: a zero character with LSR_BI."""
        self._core.receive(b"\0", LSR_BI)

    def set_modem_lines(self, lines: int) -> None:
        """Set CTS, DSR, RI and DCD, given as MSR bits 4-7; all but RI are on from the start."""
        self._core.set_lines(lines)

    # --- UartLine -------------------------------------------------------------------------------------------

    def can_send(self) -> bool:
        """Whether the output takes another byte: false only while its backlog is at its limit."""
        return not self.output.full

    def send(self, byte: int) -> None:
        """A byte leaves for the output."""
        self._sent += 1
        self.output.write(bytes((byte,)))

    def interrupt(self) -> None:
        """One edge on the device's interrupt line, where it has one."""
        if self._host is not None and self._host.trigger is not None:
            self._host.trigger.trigger()

    def restart_timeout(self, character_times: int) -> None:
        """Let the character time-out strike after so many character times from now; 0 cancels it.

        One loop timer serves a run of restarts: it looks at the deadline when it fires. Without a loop the
        time-out never strikes by itself (`UartCore.timeout()` does it).
        """
        if self._loop is None:
            return
        if not character_times:
            self._deadline = 0.0
            return
        bits = character_times * _BITS_PER_CHARACTER
        delay = bits * 16 * (self._core.state.divisor or 1) / CLOCK_HZ
        self._deadline = self._loop.time() + delay
        if self._timer is None:
            self._timer = self._loop.call_later(delay, self._on_timer)

    # --- inside ---------------------------------------------------------------------------------------------

    def _revive(self) -> None:
        """Go on from whatever the state is: send, receive, interrupt."""
        core = self._core
        core.line_has_room()
        core.state.signalled = 0
        core.update()
        if core.fifos and core.state.rx:
            self.restart_timeout(4)
        self._refill()
        self._pause()
        self._resume()

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop is None or not self._deadline:
            return
        left = self._deadline - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._on_timer)
        else:
            self._core.timeout()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._deadline = None, 0.0

    def _refill(self) -> None:
        """Move what the host sent before into the receiver, as far as there is room."""
        state = self._core.state
        if state.held and (room := self._core.room) > 0:
            data, state.held = state.held[:room], state.held[room:]
            self._received += len(data)
            self._core.receive(data)

    def _pump(self) -> None:
        """The input has something to read, or a cleared receiver waits for what it had before."""
        self._refill()
        room = 0 if self._core.state.held else self._core.room
        if room > 0:
            data = self.input.read(room)
            self._received += len(data)
            self._core.receive(data)
        if self._core.state.held or self._core.room <= 0:
            self._pause()

    def _pause(self) -> None:
        if not self._paused:
            self.input.pause()
            self._paused = True

    def _resume(self) -> None:
        """Read input again once half of the receiver is free; a call a byte would cost a system call each."""
        if not self._paused or self._loop is None:
            return
        room = self._core.room
        if room <= 0 or (self._core.fifos and room < FIFO_SIZE // 2):
            return
        self._paused = False
        if self._core.state.held:
            self._loop.call_soon(self._on_held)
        else:
            self.input.resume()

    def _on_held(self) -> None:
        if self._loop is not None:
            self._pump()
            if not self._paused:
                self.input.resume()

    def _output_has_room(self) -> None:
        self._core.line_has_room()
