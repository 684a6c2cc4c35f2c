"""`UartMemory`: what of a UART outlives its shard: the chip's state, and what the host has not got.

A byte that the guest sends by the short way (`FastRegisters`) counts by a `Mark`; every other access saves
the state. Both have the number of bytes sent: the larger one is the later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from shardio.devices.byte_output import ByteOutput
from shardio.devices.output_ring import OutputRing
from shardio.devices.uart_state import UartState
from shardio.fast_registers import keep_in, let_go
from shardio.mark import Mark, Repeat

if TYPE_CHECKING:
    from shardio.devices.uart import Uart16550
    from shardio.devices.uart_core import UartCore

RING_BYTES: Final = 1 << 16
STATE_BYTES: Final = 1 << 17
"""What the host sent and the guest has not taken is part of the state."""
_MOST_HELD: Final = STATE_BYTES - 1024
AREA_BYTES: Final = RING_BYTES + Mark.BYTES
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(UartState).decode


class UartMemory:
    """The memory of a UART in its shard. `inside` is true within an access; `repeat` is the access by
    which a predecessor sent a byte last, if that was the short way.
    """

    def __init__(self, uart: Uart16550, core: UartCore, store: Any) -> None:
        """`store`: `host.persistent`. The chip goes on with what a predecessor left, and its bytes gather in
        `ring`.
        """
        self._uart = uart
        self._core = core
        self._store = store
        self.inside = False
        mark = store.area[RING_BYTES:AREA_BYTES]
        name, tail = Mark(mark).get()
        if store.state is not None:
            core.state = _decode(store.state)
        self.repeat = Repeat(name if tail > core.state.sent else None)
        core.state.sent = max(tail, core.state.sent)
        self.ring = OutputRing(store, 0, RING_BYTES, core.state.sent)
        uart.head, uart.tail = self.ring.head, self.ring.tail
        keep_in(uart, self.ring.memory, mark, store.control_at)

    @property
    def has_room(self) -> bool:
        """Whether the ring takes another byte."""
        return self._uart.tail - self._uart.head < RING_BYTES - 1

    def put(self, byte: int) -> None:
        """A byte leaves the chip; it counts when the state is saved."""
        self.ring.memory[self._uart.tail % RING_BYTES] = byte
        self._uart.tail += 1

    def send(self, output: ByteOutput) -> None:
        """Let what is in the ring leave for the host. Not within an access."""
        self.ring.tail = self._uart.tail
        output.send(self.ring.tail)
        self._uart.head = self.ring.head

    def save(self) -> None:
        """Keep the chip's state."""
        state = self._core.state
        state.sent = self._uart.tail
        if len(state.held) > _MOST_HELD:  # a program has sent more at once: the rest goes with the shard
            state = msgspec.structs.replace(state, held=state.held[:_MOST_HELD])
        self._store.save(_encode(state))

    def read(self, offset: int, size: int) -> int:
        """The guest's access, unless a predecessor has made it."""
        answer: int | None = self._store.begin()
        if answer is not None:
            return answer
        self.inside, value = True, 0
        try:
            value = self._uart.read_slowly(offset, size)
            self.save()
        finally:
            self.inside = False
            self._store.end(value)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Likewise."""
        if self._store.begin() is not None:
            return
        self.inside = True
        try:
            if not self.repeat.is_it(self._store.journal()):
                self._uart.write_slowly(offset, size, value)
                self.save()
        finally:
            self.inside = False
            self._store.end(0)

    def close(self) -> None:
        """Let the memory go."""
        let_go(self._uart)
        self.ring.close()
