"""`IoApic`: an I/O APIC of 24 pins, for machines whose hypervisor has none.

Pin n is line n, which comes over the wires (`shardio.interrupt.wires`); each pin that the guest unmasks has a
message interrupt of its own, configured from its redirection entry.

Source: Intel 82093AA data sheet (order number 290566-001), section 3.2; the EOI register is that of the I/O
APICs of version 0x20 (Intel 82801 ICH, "I/O xAPIC").
"""

from __future__ import annotations

import msgspec

from shardio.address import MmioAddress
from shardio.device import DeviceHost, HostPersistent, MutDeviceMmio
from shardio.interrupt import EdgeInterrupt, InterruptManager, MsiConfig
from shardio.interrupt.config import MESSAGE_MODES
from shardio.interrupt.wires import IOAPIC_WIRES, LINES, unwired
from shardio.range import MmioRange

BASE = 0xFEC0_0000
SELECT = 0x00
WINDOW = 0x10
EOI = 0x40

ID = 0x00
VERSION = 0x01
ARBITRATION = 0x02
REDIRECTION = 0x10

VERSION_VALUE = (LINES - 1) << 16 | 0x20

LOGICAL = 1 << 11
DELIVERY_PENDING = 1 << 12
REMOTE_IRR = 1 << 14
LEVEL = 1 << 15
MASKED = 1 << 16
_READ_ONLY = DELIVERY_PENDING | REMOTE_IRR
_LOW_WRITABLE = 0x1FFFF & ~_READ_ONLY
_HIGH = 0xFF00_0000
_DELIVERY_MODE = 0x700
_LOWEST_PRIORITY = 0x100
_ID = 0x0F00_0000

_MESSAGES = 0xFEE0_0000
_MESSAGE_LOGICAL = 1 << 2
_MESSAGE_LEVEL = 1 << 15 | 1 << 14  # trigger mode, and asserted


class IoApicState(msgspec.Struct, array_like=True):
    """The registers. `lines`: bit n is line n as it is now; `redirection`: 64 bits a pin."""

    select: int = 0
    id: int = 0
    lines: int = 0
    redirection: list[int] = msgspec.field(default_factory=lambda: [MASKED] * LINES)


def message_of(entry: int) -> MsiConfig:
    """The message that a redirection entry stands for (PCI 3.0 section 6.8.1, Intel SDM volume 3 section
    11.11).

    >>> message_of(0x0100_0000_0000_0831)
    MsiConfig(address=4276097028, data=49, device_id=None)
    """
    address = _MESSAGES | entry >> 56 << 12 | (_MESSAGE_LOGICAL if entry & LOGICAL else 0)
    data = entry & (_DELIVERY_MODE | 0xFF) | (_MESSAGE_LEVEL if _is_level(entry) else 0)
    return MsiConfig(address, data)


def _is_level(entry: int) -> bool:
    """NMI, SMI, INIT and ExtINT are edges whatever the entry says."""
    return bool(entry & LEVEL) and entry & _DELIVERY_MODE <= _LOWEST_PRIORITY


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(IoApicState).decode


class IoApic(MutDeviceMmio):
    """An 82093AA at 0xFEC0_0000.

    >>> ioapic = IoApic()
    >>> ioapic.mmio_write(MmioAddress(0xFEC0_0000), 0, memoryview(bytes([1, 0, 0, 0])))
    >>> version = bytearray(4)
    >>> ioapic.mmio_read(MmioAddress(0xFEC0_0000), 0x10, memoryview(version))
    >>> version[::-1].hex()
    '00170020'
    """

    ranges = (MmioRange(BASE, 0x1000), IOAPIC_WIRES)
    policy = "replay"
    persistent = 512
    compatible = "intel,ioapic"
    message_modes = MESSAGE_MODES  # its guest chooses the mode of each pin

    def __init__(self) -> None:
        self._state = IoApicState()
        self._interrupts: InterruptManager | None = None
        self._store: HostPersistent | None = None
        self._messages: list[EdgeInterrupt | None] = [None] * LINES

    def attach(self, host: DeviceHost) -> None:
        """Send messages from now on."""
        self._store = host.persistent
        if self._store is not None and self._store.state is not None:
            self._state = _decode(self._store.state)
        self._interrupts = host.interrupts
        self._resume()

    def detach(self) -> None:
        """Send none any more; the host takes the interrupts back."""
        self._interrupts = self._store = None
        self._messages = [None] * LINES

    def snapshot(self) -> IoApicState:
        """A copy of the state."""
        return msgspec.structs.replace(self._state, redirection=list(self._state.redirection))

    def restore(self, state: IoApicState) -> None:
        """Take over `state`."""
        self._state = msgspec.structs.replace(state, redirection=list(state.redirection))
        self._resume()

    def _resume(self) -> None:
        for pin, entry in enumerate(self._state.redirection):
            if not entry & MASKED:
                self._program(pin)
                # A level line that is high and not in service has not been delivered.
                self._service(pin)

    # --- the guest
    # -------------------------------------------------------------------------------------------

    def mmio_read(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """The selected register through the window, or which one is selected; anything else reads 0."""
        value = 0
        if base == BASE:
            if offset == WINDOW:
                value = self._read_selected()
            elif offset == SELECT:
                value = self._state.select
        size = len(data)
        data[:] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def mmio_write(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """Select a register, write it through the window, or end an interrupt; or the wires."""
        value = int.from_bytes(data, "little")
        if base != BASE:
            if offset == 0:
                self.set_lines(*unwired(value))
        elif offset == WINDOW:
            self._write_selected(value & 0xFFFF_FFFF)
        elif offset == SELECT:
            self._state.select = value & 0xFF
        elif offset == EOI:
            self._end(value & 0xFF)
        if self._store is not None:
            self._store.save(_encode(self._state))

    def _read_selected(self) -> int:
        state = self._state
        pin, high = divmod(state.select - REDIRECTION, 2)
        if 0 <= pin < LINES:
            return state.redirection[pin] >> 32 if high else state.redirection[pin] & 0xFFFF_FFFF
        if state.select == VERSION:
            return VERSION_VALUE
        return state.id if state.select in (ID, ARBITRATION) else 0

    def _write_selected(self, value: int) -> None:
        state = self._state
        pin, high = divmod(state.select - REDIRECTION, 2)
        if state.select == ID:
            state.id = value & _ID
        elif 0 <= pin < LINES:
            entry = state.redirection[pin]
            if high:
                entry = entry & 0xFFFF_FFFF | (value & _HIGH) << 32
            else:
                entry = entry & ~_LOW_WRITABLE | value & _LOW_WRITABLE
            # Linux and Xen clear Remote IRR by making an entry edge-triggered for a moment.
            if not _is_level(entry):
                entry &= ~REMOTE_IRR
            state.redirection[pin] = entry
            if not entry & MASKED:
                self._program(pin)
                self._service(pin)

    def _end(self, vector: int) -> None:
        """The processor ended `vector`: lines of level pins that are still high interrupt again."""
        for pin, entry in enumerate(self._state.redirection):
            if entry & REMOTE_IRR and entry & 0xFF == vector:
                self._state.redirection[pin] = entry & ~REMOTE_IRR
                self._service(pin)

    # --- the wires
    # -------------------------------------------------------------------------------------------

    def set_lines(self, pulses: int, levels: int) -> None:
        """Lines in `levels` are high from now on; those in `pulses` saw an edge besides."""
        state = self._state
        rising = pulses | levels & ~state.lines
        state.lines = levels
        while rising:
            pin = (rising & -rising).bit_length() - 1
            rising &= rising - 1
            entry = state.redirection[pin]
            # Edges at a masked pin are ignored; a level line that stays high is seen when it is unmasked.
            if not entry & MASKED:
                self._send(pin, entry)

    def _service(self, pin: int) -> None:
        """Deliver a level pin whose line is high."""
        entry = self._state.redirection[pin]
        if self._state.lines >> pin & 1 and _is_level(entry) and not entry & MASKED:
            self._send(pin, entry)

    def _send(self, pin: int, entry: int) -> None:
        """Send the pin's message; of a level pin, only where none is in service."""
        if _is_level(entry):
            if entry & REMOTE_IRR:
                return
            self._state.redirection[pin] = entry | REMOTE_IRR
        message = self._messages[pin]
        if message is not None:
            message.trigger()

    def _program(self, pin: int) -> None:
        """Let the pin's message be what its entry says. One that is masked sends none, and is left as it
        was.
        """
        if self._interrupts is None:
            return
        message = self._messages[pin]
        config = message_of(self._state.redirection[pin])
        if message is None:
            message = self._messages[pin] = self._interrupts.message(config)
            message.enable()
        else:
            message.configure(config)
