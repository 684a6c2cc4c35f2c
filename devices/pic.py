"""`Pic`: the PC's pair of 8259A interrupt controllers, for machines whose hypervisor has none.

The master's input 2 is the slave's output; lines 0 to 15 come over the wires (`shardio.interrupt.wires`), and
the master's output is the level line EXTINT to the boot processor, which acknowledges by an INTA cycle over
the wires.

Source: Intel 8259A data sheet; the edge/level control registers are those of Intel's 82371AB (PIIX4).
"""

from __future__ import annotations

import msgspec

from shardio.address import MmioAddress, PioAddress
from shardio.device import DeviceHost, HostPersistent, MutDeviceMmio, MutDevicePio
from shardio.devices.pic_chip import (
    POLLED,
    SPURIOUS,
    Chip,
    acknowledge,
    read_register,
    requested,
    set_elcr,
    set_lines,
    write_command,
    write_data,
)
from shardio.interrupt import LegacyConfig, LevelInterrupt
from shardio.interrupt.config import EXTINT
from shardio.interrupt.wires import INTA, PIC_WIRES, unwired
from shardio.range import PioRange

MASTER = 0x20
SLAVE = 0xA0
ELCR = 0x4D0

_CASCADE = 2
_CASCADE_BIT = 1 << _CASCADE
# The timer, the keyboard, the cascade, the clock and the coprocessor can only be edge-triggered.
_MASTER_ELCR, _SLAVE_ELCR = 0xF8, 0xDE


class PicState(msgspec.Struct, array_like=True):
    """Both chips."""

    master: Chip = msgspec.field(default_factory=Chip)
    slave: Chip = msgspec.field(default_factory=Chip)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(PicState).decode


class Pic(MutDevicePio, MutDeviceMmio):
    """Two 8259A at ports 0x20 and 0xA0, with ELCR at 0x4D0.

    >>> pic = Pic()
    >>> data = bytearray(1)
    >>> pic.pio_write(PioAddress(0x20), 1, memoryview(b"\\xfb"))
    >>> pic.pio_read(PioAddress(0x20), 1, memoryview(data))
    >>> data.hex()
    'fb'
    """

    ranges = (PioRange(MASTER, 2), PioRange(SLAVE, 2), PioRange(ELCR, 2), PIC_WIRES)
    policy = "replay"
    persistent = 512

    def __init__(self) -> None:
        self._state = PicState()
        self._output = False
        self._line: LevelInterrupt | None = None
        self._store: HostPersistent | None = None

    def attach(self, host: DeviceHost) -> None:
        """Drive the boot processor's EXTINT line from now on."""
        self._store = host.persistent
        if self._store is not None and self._store.state is not None:
            self._state = _decode(self._store.state)
        self._line = host.interrupts.level(LegacyConfig(EXTINT))
        self._line.enable()
        self._output = False
        self._update()

    def detach(self) -> None:
        """Drive it no more."""
        self._line = self._store = None

    def snapshot(self) -> PicState:
        """A copy of the state."""
        state = self._state
        return PicState(msgspec.structs.replace(state.master), msgspec.structs.replace(state.slave))

    def restore(self, state: PicState) -> None:
        """Take over `state`."""
        self._state = PicState(msgspec.structs.replace(state.master), msgspec.structs.replace(state.slave))
        self._update()

    # --- the guest
    # -------------------------------------------------------------------------------------------

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """A register, a poll, or ELCR; each byte of a wider access is a port's."""
        for i in range(len(data)):
            data[i] = self._read(base, offset + i)

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """A command word or ELCR; each byte of a wider access is a port's."""
        for i, value in enumerate(data):
            self._write(base, offset + i, value)
        self._update()

    def _chip(self, base: int) -> Chip:
        return self._state.master if base == MASTER else self._state.slave

    def _read(self, base: int, offset: int) -> int:
        if base == ELCR:
            return self._state.slave.elcr if offset else self._state.master.elcr
        chip = self._chip(base)
        if not chip.poll:
            return read_register(chip, offset)
        chip.poll = False
        line = self._acknowledge(chip)
        self._update()
        return 0 if line < 0 else POLLED | line

    def _write(self, base: int, offset: int, value: int) -> None:
        if base == ELCR:
            if offset:
                set_elcr(self._state.slave, value & _SLAVE_ELCR)
            else:
                set_elcr(self._state.master, value & _MASTER_ELCR)
        elif offset:
            write_data(self._chip(base), value)
        else:
            write_command(self._chip(base), value)

    # --- the wires
    # -------------------------------------------------------------------------------------------

    def mmio_read(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """The INTA cycle: acknowledges the interrupt that the output asks for, and gives its vector."""
        vector = self._inta() if offset == INTA else 0
        data[:] = vector.to_bytes(len(data), "little")

    def mmio_write(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """The lines: see `shardio.interrupt.wires`."""
        if offset == 0:
            self.set_lines(*unwired(int.from_bytes(data, "little")))

    def set_lines(self, pulses: int, levels: int) -> None:
        """Lines in `levels` are high from now on; those in `pulses` saw an edge besides."""
        master, slave = self._state.master, self._state.slave
        set_lines(slave, pulses >> 8 & 0xFF, levels >> 8 & 0xFF)
        cascade = master.lines & _CASCADE_BIT
        set_lines(master, pulses & 0xFF & ~_CASCADE_BIT, levels & 0xFF & ~_CASCADE_BIT | cascade)
        self._update()

    def _inta(self) -> int:
        master, slave = self._state.master, self._state.slave
        line = self._acknowledge(master)
        if line == _CASCADE:
            line = self._acknowledge(slave)
            vector = slave.base + (line if line >= 0 else SPURIOUS)
        else:
            vector = master.base + (line if line >= 0 else SPURIOUS)
        self._update()
        return vector

    def _acknowledge(self, chip: Chip) -> int:
        """The input that is in service from now on, -1 for none."""
        master, slave = self._state.master, self._state.slave
        line = requested(chip, self._nested(chip))
        if line < 0:
            return line
        acknowledge(chip, line)
        if chip is slave:
            # Its output falls, and rises again where another request is left. A poll acknowledges without the
            # master, which has nothing to ask for any more.
            master.lines &= ~_CASCADE_BIT
            master.irr &= ~_CASCADE_BIT
        return line

    def _nested(self, chip: Chip) -> int:
        """In special fully nested mode a slave in service lets the slave's other requests through."""
        return _CASCADE_BIT if chip is self._state.master and chip.fully_nested else 0

    def _update(self) -> None:
        """Let the slave's output reach the master, and the master's the processor; keep the state."""
        master, slave = self._state.master, self._state.slave
        others = master.lines & ~_CASCADE_BIT
        set_lines(master, 0, others | _CASCADE_BIT if requested(slave) >= 0 else others)
        output = requested(master, self._nested(master)) >= 0
        if output is not self._output and self._line is not None:
            self._output = output
            if output:
                self._line.trigger()
            else:
                self._line.deassert()
        if self._store is not None:
            self._store.save(_encode(self._state))
