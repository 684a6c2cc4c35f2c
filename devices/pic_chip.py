"""One 8259A interrupt controller: its registers as a value, and what commands, requests and INTA do to them.

`Pic` wires two of them up as a PC does. An edge stays in the request register until INTA although its line
falls, as in the PICs of KVM and of PC chipsets, so that a pulse is an edge.

Source: Intel 8259A data sheet (order number 231468-003), "Programming the 8259A".
"""

from __future__ import annotations

import msgspec

ICW1 = 0x10
ICW1_IC4 = 0x01
ICW1_SINGLE = 0x02
ICW1_LEVEL = 0x08
ICW4_AUTO_EOI = 0x02
ICW4_FULLY_NESTED = 0x10
OCW3 = 0x08
OCW3_READ = 0x02
OCW3_READ_ISR = 0x01
OCW3_POLL = 0x04
OCW3_SET_MASK_MODE = 0x40
OCW3_MASK_MODE = 0x20
POLLED = 0x80

SPURIOUS = 7
"""The input whose vector INTA gives where nothing is requested."""

_READY, _ICW2, _ICW3, _ICW4 = range(4)
_EOI, _SPECIFIC, _ROTATE = 1, 2, 4


class Chip(msgspec.Struct, array_like=True):
    """An 8259A. Bit n of `irr`, `imr`, `isr`, `elcr` and `lines` (the inputs as they are now) is input n.

    `lowest`: the input of lowest priority. `elcr`: the inputs that the chipset's edge/level control register
    makes level-triggered; `all_level`: ICW1 makes all of them so. `step`: the initialization command word
    that is due.
    """

    irr: int = 0
    imr: int = 0
    isr: int = 0
    lines: int = 0
    elcr: int = 0
    all_level: bool = False
    base: int = 0
    lowest: int = 7
    auto_eoi: bool = False
    rotate_on_auto_eoi: bool = False
    fully_nested: bool = False
    mask_mode: bool = False
    read_isr: bool = False
    poll: bool = False
    step: int = _READY
    single: bool = False
    needs_icw4: bool = False


def requested(chip: Chip, ignored: int = 0) -> int:
    """The input whose interrupt the chip asks for, -1 for none. `ignored`: inputs in service that hold
    nothing back (special fully nested mode: the one that a slave is at).
    """
    requests = chip.irr & ~chip.imr
    if not requests:
        return -1
    # In special mask mode an input in service that is masked holds no other one back.
    serving = chip.isr & ~ignored & ~(chip.imr if chip.mask_mode else 0)
    first = _rank(chip, requests)
    return (chip.lowest + 1 + first) & 7 if first < _rank(chip, serving) else -1


def acknowledge(chip: Chip, line: int) -> None:
    """INTA for input `line`: it is in service from now on, or ended already by automatic EOI."""
    if not level_triggered(chip) >> line & 1:
        chip.irr &= ~(1 << line)
    if not chip.auto_eoi:
        chip.isr |= 1 << line
    elif chip.rotate_on_auto_eoi:
        chip.lowest = line


def set_lines(chip: Chip, pulses: int, lines: int) -> None:
    """The inputs are `lines` from now on; those in `pulses` saw an edge besides."""
    level = level_triggered(chip)
    rising = pulses | lines & ~chip.lines
    chip.irr = (chip.irr | rising) & ~level | lines & level
    chip.lines = lines


def set_elcr(chip: Chip, elcr: int) -> None:
    """Choose which inputs are level-triggered."""
    chip.elcr = elcr
    level = level_triggered(chip)
    chip.irr = chip.irr & ~level | chip.lines & level


def level_triggered(chip: Chip) -> int:
    """The inputs that are level-triggered."""
    return 0xFF if chip.all_level else chip.elcr


def write_command(chip: Chip, value: int) -> None:
    """A write to the even port: ICW1, OCW2 or OCW3."""
    if value & ICW1:
        _initialize(chip, value)
    elif value & OCW3:
        if value & OCW3_POLL:
            chip.poll = True
        if value & OCW3_READ:
            chip.read_isr = bool(value & OCW3_READ_ISR)
        if value & OCW3_SET_MASK_MODE:
            chip.mask_mode = bool(value & OCW3_MASK_MODE)
    else:
        _end_or_rotate(chip, value >> 5, value & 7)


def write_data(chip: Chip, value: int) -> None:
    """A write to the odd port: the mask (OCW1), or the initialization command word that is due."""
    if chip.step == _READY:
        chip.imr = value
    elif chip.step == _ICW2:
        chip.base = value & 0xF8
        chip.step = _next_step(chip, _ICW3)
    elif chip.step == _ICW3:
        # Where the slave is connected: on a PC that is wired.
        chip.step = _next_step(chip, _ICW4)
    else:
        chip.auto_eoi = bool(value & ICW4_AUTO_EOI)
        chip.fully_nested = bool(value & ICW4_FULLY_NESTED)
        chip.step = _READY


def read_register(chip: Chip, odd: int) -> int:
    """A read of the odd port (the mask) or of the even one (requests, or what is in service)."""
    if odd:
        return chip.imr
    return chip.isr if chip.read_isr else chip.irr


def _initialize(chip: Chip, icw1: int) -> None:
    chip.all_level = bool(icw1 & ICW1_LEVEL)
    chip.single, chip.needs_icw4 = bool(icw1 & ICW1_SINGLE), bool(icw1 & ICW1_IC4)
    # The edge sense circuit is reset: a line that is high must fall and rise again.
    chip.irr = chip.lines & level_triggered(chip)
    chip.imr = chip.isr = 0
    chip.lowest = 7
    chip.mask_mode = chip.read_isr = chip.poll = chip.rotate_on_auto_eoi = False
    chip.auto_eoi = chip.fully_nested = False
    chip.step = _ICW2


def _next_step(chip: Chip, step: int) -> int:
    if step == _ICW3 and not chip.single:
        return _ICW3
    return _ICW4 if chip.needs_icw4 else _READY


def _end_or_rotate(chip: Chip, command: int, line: int) -> None:
    """OCW2. `command`: bit 0 ends an interrupt, bit 1 names it by `line`, bit 2 rotates."""
    if command in (0, _ROTATE):
        chip.rotate_on_auto_eoi = bool(command)
        return
    if command == _SPECIFIC:  # no operation
        return
    if not command & _SPECIFIC:
        # A masked input stays in service in special mask mode, or nobody could end what it let through.
        serving = chip.isr & ~(chip.imr if chip.mask_mode else 0)
        if not serving:
            return
        line = (chip.lowest + 1 + _rank(chip, serving)) & 7
    if command & _EOI:
        chip.isr &= ~(1 << line)
    if command & _ROTATE:
        chip.lowest = line


def _rank(chip: Chip, inputs: int) -> int:
    """How many inputs come before the first of `inputs` in the order of priority; 8 where there is none."""
    if not inputs:
        return 8
    shift = (chip.lowest + 1) & 7
    turned = inputs >> shift | inputs << 8 - shift
    return (turned & -turned).bit_length() - 1
