"""`I8042`: the PC's keyboard controller with a keyboard and a mouse that answer commands, at ports 0x60 and
0x64.

Enough for firmware and kernels to find a working keyboard at once; keys come from `send_scancodes()`. The
mouse is one that nobody moves; its line, 12, is asked for when it is first needed. Port 0x61, between the
two, is answered where no PIT is; beside a `Pit`, which has that port, its ranges are its own two ports.

Source: Intel UPI-41/42 keyboard controller as documented in the IBM PS/2 Hardware Interface Technical
Reference, "Keyboard and auxiliary device controller"; commands of the MF II keyboard.

>>> kbc = I8042()
>>> kbc.write_port(4, 0xAA)
>>> hex(kbc.read_port(0))
'0x55'
"""

from __future__ import annotations

import msgspec

from shardio.address import PioAddress
from shardio.device import DeviceHost, HostTrigger, MutDevicePio
from shardio.devices.lines import line_trigger
from shardio.devices.ps2_mouse import Mouse, MouseState
from shardio.devices.scan_codes import Translator
from shardio.range import MmioRange, PioRange

DATA = 0
PORT_B = 1
COMMAND = 4
_PORTS = 7  # a range may begin at any of them

STATUS_OUTPUT_FULL = 0x01
STATUS_SYSTEM = 0x04
STATUS_COMMAND = 0x08
STATUS_UNLOCKED = 0x10
STATUS_FROM_MOUSE = 0x20

CTR_INTERRUPT = 0x01
CTR_MOUSE_INTERRUPT = 0x02
CTR_SYSTEM = 0x04
CTR_DISABLED = 0x10
CTR_AUX_DISABLED = 0x20
CTR_TRANSLATE = 0x40

OUTPUT_NO_RESET = 0x01
OUTPUT_A20 = 0x02
OUTPUT_FULL = 0x10

_WRITE_CTR, _WRITE_OUTPUT_PORT, _ECHO_AS_KEYBOARD, _ECHO_AS_MOUSE, _TO_MOUSE = 0x60, 0xD1, 0xD2, 0xD3, 0xD4
_FROM_MOUSE = 0x100  # beside a byte in the queue
MOUSE_LINE = 12
_ACK, _RESEND, _SELF_TEST_PASSED = 0xFA, 0xFE, 0xAA
_CHOOSE_SET, _ENABLE, _DEFAULT_DISABLE, _DEFAULT, _RESET = 0xF0, 0xF4, 0xF5, 0xF6, 0xFF
_KEYBOARD_WITH_ARGUMENT = (0xED, _CHOOSE_SET, 0xF3)
_KEYBOARD_ACKNOWLEDGED = range(0xF4, 0xFE)
_SETS = (1, 2)
_QUEUE = 64


class I8042State(msgspec.Struct):
    """Registers, the bytes that wait to be read, and the command whose argument comes next (0 for none).

    `scanning`: the keyboard sends keys; `scan_set`: in which set (1 or 2); `released`: a release was
    announced to the keyboard's translation, `translated_release` to the controller's. In the queue, bit 8
    tells the mouse's bytes.
    """

    ctr: int = CTR_SYSTEM | CTR_AUX_DISABLED
    output_port: int = OUTPUT_NO_RESET | OUTPUT_A20
    port_b: int = 0
    last_was_command: bool = False
    controller_command: int = 0
    keyboard_command: int = 0
    scanning: bool = True
    scan_set: int = 2
    released: bool = False
    translated_release: bool = False
    queue: list[int] = msgspec.field(default_factory=list)
    mouse: MouseState = msgspec.field(default_factory=MouseState)


class I8042(MutDevicePio):
    """Data at offset 0, status and commands at offset 4. Its interrupt (IRQ 1) tells of each byte to be
    read.
    """

    compatible = "intel,8042"
    pio_size = 5
    persistent, state_type = 4096, I8042State
    ranges = (PioRange(0x60, 1), PioRange(0x64, 1))
    """Where it is without a base: at its own two ports alone."""

    def __init__(self) -> None:
        self._state = I8042State()
        self._mouse = Mouse()
        self._mouse_trigger: HostTrigger | None = None
        self._host: DeviceHost | None = None

    def attach(self, host: DeviceHost) -> None:
        """Interrupt through `host.trigger` and reset through `host.reset` from now on."""
        self._host = host
        if self._state.queue:
            self._interrupt()

    def detach(self) -> None:
        """Neither any more."""
        self._host = self._mouse_trigger = None

    def snapshot(self) -> I8042State:
        """A copy of the state."""
        mouse = msgspec.structs.replace(self._mouse.state)
        return msgspec.structs.replace(self._state, queue=list(self._state.queue), mouse=mouse)

    def restore(self, state: I8042State) -> None:
        """Take over `state`."""
        self._state = msgspec.structs.replace(state, queue=list(state.queue))
        self._mouse.state = msgspec.structs.replace(state.mouse)

    def send_scancodes(self, codes: bytes) -> int:
        """The user presses keys: how many of `codes` (scan code set 2) were taken, 0 while the keyboard is
        off or was told not to scan.
        """
        s = self._state
        if s.ctr & CTR_DISABLED or not s.scanning:
            return 0
        taken = codes[: _QUEUE - len(s.queue)]
        sent = bytes(taken)
        if s.scan_set == 1:
            keys = Translator(s.released)
            sent = b"".join(map(keys.translate, taken))
            s.released = keys.released
        self._from_keyboard(*sent)
        return len(taken)

    # --- the guest
    # -------------------------------------------------------------------------------------------

    def handlers_for(self, span: PioRange | MmioRange) -> object:
        """A range, so that a shard calls its ports without a detour."""
        return _Ports(self, span)

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """A port (see `read_port`), in the low byte of a wider access."""
        data[:] = self.read_port((base & _PORTS) + offset).to_bytes(len(data), "little")

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """A port (see `write_port`), from the low byte of a wider access."""
        self.write_port((base & _PORTS) + offset, data[0])

    def read_port(self, port: int) -> int:
        """The data byte (0), port 0x61 (1) or the status (4); others read 0xFF."""
        if port == DATA:
            return self._read_data()
        if port == PORT_B:
            # The refresh bit toggles: loops that count it must come to an end.
            self._state.port_b ^= 0x10
            return self._state.port_b
        return self._status() if port == COMMAND else 0xFF

    def write_port(self, port: int, value: int) -> None:
        """A data byte (0), port 0x61 (1) or a command (4); anything else is dropped."""
        if port == DATA:
            self._state.last_was_command = False
            self._write_data(value)
        elif port == PORT_B:
            self._state.port_b = self._state.port_b & 0x10 | value & 0x0F
        elif port == COMMAND:
            self._state.last_was_command = True
            self._command(value)

    def _status(self) -> int:
        s = self._state
        status = STATUS_UNLOCKED | (STATUS_OUTPUT_FULL if s.queue else 0)
        status |= STATUS_FROM_MOUSE if s.queue and s.queue[0] & _FROM_MOUSE else 0
        return status | (STATUS_COMMAND if s.last_was_command else 0) | s.ctr & STATUS_SYSTEM

    def _read_data(self) -> int:
        queue = self._state.queue
        if not queue:
            return 0
        byte = queue.pop(0)
        if queue:
            self._interrupt()
        return byte & 0xFF

    def _command(self, command: int) -> None:
        s = self._state
        s.controller_command = 0
        if command == 0x20:
            self._answer(s.ctr)
        elif command in (_WRITE_CTR, _WRITE_OUTPUT_PORT, _ECHO_AS_KEYBOARD, _ECHO_AS_MOUSE, _TO_MOUSE):
            s.controller_command = command
        elif command == 0xA7:
            s.ctr |= CTR_AUX_DISABLED
        elif command == 0xA8:
            s.ctr &= ~CTR_AUX_DISABLED
        elif command == 0xA9:
            self._answer(0x00)  # the mouse's interface is in order
        elif command == 0xA4:
            self._answer(0xF1)  # no password
        elif command == 0xAA:
            s.ctr |= CTR_SYSTEM
            self._answer(0x55)
        elif command == 0xAB:
            self._answer(0x00)
        elif command == 0xAD:
            s.ctr |= CTR_DISABLED
        elif command == 0xAE:
            s.ctr &= ~CTR_DISABLED
        elif command == 0xC0:
            self._answer(0x80)  # the key lock is open
        elif command == 0xD0:
            self._answer(s.output_port | (OUTPUT_FULL if s.queue else 0))
        elif command in (0xDD, 0xDF):
            self._set_output_port(s.output_port & ~OUTPUT_A20 | (command & 0x02))
        elif command >= 0xF0:
            # Pulses the low bits of the output port that are 0 in the command; bit 0 is the reset line.
            self._set_output_port(s.output_port & (command | 0xF0))
            s.output_port |= OUTPUT_NO_RESET

    def _write_data(self, value: int) -> None:
        s = self._state
        command, s.controller_command = s.controller_command, 0
        if command == _WRITE_CTR:
            enabled = value & ~s.ctr & (CTR_INTERRUPT | CTR_MOUSE_INTERRUPT)
            s.ctr = value
            if s.queue and enabled & self._interrupt_bit:
                self._interrupt()  # the line is high while a byte waits and interrupts are on
        elif command == _WRITE_OUTPUT_PORT:
            self._set_output_port(value)
        elif command == _ECHO_AS_KEYBOARD:
            self._answer(value)
        elif command == _ECHO_AS_MOUSE:
            self._answer(value | _FROM_MOUSE)
        elif command == _TO_MOUSE:
            s.ctr &= ~CTR_AUX_DISABLED  # talking to it switches it on
            self._answer(*(byte | _FROM_MOUSE for byte in self._mouse.receive(value)))
        elif command == 0:
            # Talking to the keyboard switches it on.
            s.ctr &= ~CTR_DISABLED
            self._keyboard(value)

    def _keyboard(self, value: int) -> None:
        s = self._state
        command, s.keyboard_command = s.keyboard_command, 0
        if command == _CHOOSE_SET:
            self._choose_set(value)
        elif command:
            self._from_keyboard(_ACK)
        elif value in _KEYBOARD_WITH_ARGUMENT:
            s.keyboard_command = value
            self._from_keyboard(_ACK)
        elif value == 0xEE:
            self._from_keyboard(0xEE)
        elif value == 0xF2:
            self._from_keyboard(_ACK, 0xAB, 0x83)
        elif value == _RESET:
            s.scanning, s.scan_set, s.released = True, 2, False
            self._from_keyboard(_ACK, _SELF_TEST_PASSED)
        elif value in _KEYBOARD_ACKNOWLEDGED:
            if value in (_DEFAULT_DISABLE, _DEFAULT):
                s.scan_set, s.released = 2, False
            if value in (_ENABLE, _DEFAULT_DISABLE):
                s.scanning = value == _ENABLE
            self._from_keyboard(_ACK)
        else:
            self._from_keyboard(_RESEND)

    def _choose_set(self, wanted: int) -> None:
        """The argument of command 0xF0: 0 asks which set is in use."""
        s = self._state
        if wanted == 0:
            self._from_keyboard(_ACK, s.scan_set)
        elif wanted in _SETS:
            s.scan_set, s.released = wanted, False
            self._from_keyboard(_ACK)
        else:
            self._from_keyboard(_RESEND)

    def _set_output_port(self, value: int) -> None:
        self._state.output_port = value
        if not value & OUTPUT_NO_RESET and self._host is not None:
            self._host.reset()

    def _from_keyboard(self, *values: int) -> None:
        """The keyboard sends: the controller translates, if its command byte says so, answers too."""
        s = self._state
        if s.ctr & CTR_TRANSLATE:
            line = Translator(s.translated_release)
            values = tuple(b"".join(map(line.translate, values)))
            s.translated_release = line.released
        self._answer(*values)

    def _answer(self, *values: int) -> None:
        queue = self._state.queue
        was_empty = not queue
        queue.extend(values)
        # A guest that never reads cannot make it grow: the oldest bytes go.
        del queue[:-_QUEUE]
        if was_empty and values:
            self._interrupt()

    @property
    def _interrupt_bit(self) -> int:
        """The bit of the command byte that lets the byte to be read next interrupt."""
        return CTR_MOUSE_INTERRUPT if self._state.queue[0] & _FROM_MOUSE else CTR_INTERRUPT

    def _interrupt(self) -> None:
        """Tell of the byte to be read next, by the line of whoever sent it."""
        enabled = self._state.ctr & self._interrupt_bit
        if self._host is None or not enabled:
            return
        trigger = self._host.trigger
        if enabled == CTR_MOUSE_INTERRUPT:
            if self._mouse_trigger is None:
                self._mouse_trigger = line_trigger(self._host, MOUSE_LINE)
            trigger = self._mouse_trigger
        if trigger is not None:
            trigger.trigger()


class _Ports:
    """A range of the controller's ports. Guests poll the status, which no read changes."""

    def __init__(self, controller: I8042, span: PioRange | MmioRange) -> None:
        self._first = int(span.base) & _PORTS
        self._controller = controller
        self.unguarded_reads = frozenset((COMMAND - self._first,))

    def read(self, offset: int, size: int) -> int:
        """A port, in the low byte of a wider access."""
        return self._controller.read_port(self._first + offset)

    def write(self, offset: int, size: int, value: int) -> None:
        """A port, from the low byte of a wider access."""
        self._controller.write_port(self._first + offset, value & 0xFF)
