"""One channel of an 8254 timer: its registers as a value, and what it shows at a given time.

Nothing counts: a channel keeps the tick at which it began and works out the rest when it is looked at. Times
are ticks of 1193182 Hz. A count is loaded by the write that completes it, and not a tick later.

Source: Intel 8254 data sheet (order number 231164-005), "Mode definitions".
"""

from __future__ import annotations

import msgspec

LOW_BYTE, HIGH_BYTE, BOTH_BYTES = 1, 2, 3
STATUS_OUTPUT = 0x80
STATUS_NULL = 0x40

_NONE = -1
_PERIODIC = (2, 3)
_BY_GATE = (1, 5)


class Channel(msgspec.Struct, array_like=True):
    """A channel. `count`: what it counts from (1 to 65536); `began`: the tick at which it began to, -1 where
    it has not; `stood`: the ticks it had counted when its gate stopped it, -1 while it goes on.

    `next_count`: a count that is loaded at the tick `loads`, or when the gate rises, 0 for none. `half`: the
    low byte of a count of which the high byte is due, -1 for none; `reads_high`: the high byte is read next.
    `latched`, `latched_status`: what read commands have kept, -1 for nothing. `signalled`: the tick up to
    which rises of the output have been told of.
    """

    mode: int = 0
    decimal: bool = False
    access: int = BOTH_BYTES
    count: int = 1 << 16
    began: int = _NONE
    stood: int = _NONE
    next_count: int = 0
    loads: int = 0
    half: int = _NONE
    reads_high: bool = False
    latched: int = _NONE
    latched_status: int = _NONE
    gate: bool = True
    signalled: int = 0


# --- what the guest and the gate do ---


def write_control(channel: Channel, value: int) -> None:
    """A control word that chooses this channel's mode and access: a count is due."""
    mode = value >> 1 & 7
    channel.mode = mode & 3 if mode > 5 else mode
    channel.decimal = bool(value & 1)
    channel.access = value >> 4 & 3
    channel.began = channel.stood = channel.half = channel.latched = channel.latched_status = _NONE
    channel.next_count = 0
    channel.reads_high = False


def write_count(channel: Channel, value: int, now: int) -> None:
    """A byte of a count."""
    if channel.access == BOTH_BYTES and channel.half < 0:
        channel.half = value
        if channel.mode == 0:
            channel.began = channel.stood = _NONE  # the first byte stops it, output low
        return
    low = channel.half if channel.access == BOTH_BYTES else 0
    count = _from_register(channel, value if channel.access == LOW_BYTE else low | value << 8)
    channel.half = _NONE
    if channel.mode in _BY_GATE:
        channel.next_count = count
    elif channel.mode in _PERIODIC and channel.began >= 0:
        _load_later(channel, count, now)
    else:
        _begin(channel, count, now)


def set_gate(channel: Channel, gate: bool, now: int) -> None:
    """The gate's level from now on."""
    if gate is channel.gate:
        return
    settle(channel, now)
    channel.gate = gate
    if channel.mode in _BY_GATE:
        if gate and (channel.began >= 0 or channel.next_count):
            _begin(channel, channel.next_count or channel.count, now)
    elif channel.began < 0:
        return
    elif not gate:
        channel.stood = now - channel.began
    elif channel.mode in _PERIODIC:
        _begin(channel, channel.next_count or channel.count, now)
    else:
        channel.began, channel.stood = now - channel.stood, _NONE


def latch_count(channel: Channel, now: int) -> None:
    """Keep the count until it is read; not where one is kept already."""
    if channel.latched < 0:
        channel.latched = value(channel, now)


def latch_status(channel: Channel, now: int) -> None:
    """Keep the status until it is read; not where one is kept already."""
    if channel.latched_status < 0:
        no_count = channel.next_count or channel.began < 0
        channel.latched_status = (
            (STATUS_OUTPUT if output(channel, now) else 0)
            | (STATUS_NULL if no_count else 0)
            | channel.access << 4
            | channel.mode << 1
            | channel.decimal
        )


def read(channel: Channel, now: int) -> int:
    """The next byte: a kept status, then a kept count, then the count as it is."""
    if channel.latched_status >= 0:
        status, channel.latched_status = channel.latched_status, _NONE
        return status
    count = channel.latched if channel.latched >= 0 else value(channel, now)
    high = channel.reads_high if channel.access == BOTH_BYTES else channel.access == HIGH_BYTE
    if channel.access == BOTH_BYTES:
        channel.reads_high = not high
    if high or channel.access != BOTH_BYTES:
        channel.latched = _NONE
    return count >> 8 if high else count & 0xFF


# --- what it shows ---


def output(channel: Channel, now: int) -> bool:
    """The level of its output."""
    settle(channel, now)
    if channel.began < 0:
        return channel.mode != 0
    passed = _passed(channel, now)
    if channel.mode < 2:
        return passed >= channel.count
    if channel.mode > 3:
        return passed != channel.count
    if channel.stood >= 0:
        return True
    passed %= channel.count
    return passed < _high(channel.count) if channel.mode == 3 else passed != channel.count - 1


def value(channel: Channel, now: int) -> int:
    """The count as the register shows it: 16 bits, or four decimal digits."""
    settle(channel, now)
    count = channel.count
    if channel.began >= 0:
        passed = _passed(channel, now)
        if channel.mode == 2:
            count -= passed % count
        elif channel.mode == 3:
            passed %= count
            count = (count & ~1) - 2 * (passed if passed < _high(count) else passed - _high(count))
        else:
            count -= passed
    if not channel.decimal:
        return count & 0xFFFF
    return int(f"{count % 10_000:04}", 16)


def last_rise(channel: Channel, now: int) -> int:
    """The tick of the output's last rise, or one that is not after `signalled` where there was none since."""
    settle(channel, now)
    if channel.began < 0 or channel.stood >= 0:
        return channel.signalled
    if channel.mode in _PERIODIC:
        return channel.began + (now - channel.began) // channel.count * channel.count
    end = _end(channel)
    return end if end <= now else channel.signalled


def next_event(channel: Channel, now: int) -> int | None:
    """The tick after `now` at which to look for a rise; None where none will come by itself."""
    settle(channel, now)
    if channel.began < 0 or channel.stood >= 0:
        return None
    if channel.mode in _PERIODIC:
        if channel.next_count:
            return channel.loads
        return channel.began + ((now - channel.began) // channel.count + 1) * channel.count
    end = _end(channel)
    return end if end > now else None


def settle(channel: Channel, now: int) -> None:
    """Load the count that waits for the end of the cycle (in mode 3, of its half), where that has come."""
    if not channel.next_count or channel.mode not in _PERIODIC or channel.began < 0 or channel.stood >= 0:
        return
    if now < channel.loads:
        return
    began = channel.loads
    if began < channel.began + channel.count:
        # It goes on with the low half of the new count.
        began -= _high(channel.next_count)
        channel.signalled = max(channel.signalled, began)
    channel.began, channel.count, channel.next_count = began, channel.next_count, 0


def _load_later(channel: Channel, count: int, now: int) -> None:
    settle(channel, now)
    channel.next_count = count
    if channel.stood < 0:
        channel.began += (now - channel.began) // channel.count * channel.count
        in_high_half = channel.mode == 3 and now - channel.began < _high(channel.count)
        channel.loads = channel.began + (_high(channel.count) if in_high_half else channel.count)


def _begin(channel: Channel, count: int, now: int) -> None:
    channel.count, channel.next_count = count, 0
    channel.began = channel.signalled = now
    channel.stood = 0 if not channel.gate and channel.mode not in _BY_GATE else _NONE


def _passed(channel: Channel, now: int) -> int:
    return channel.stood if channel.stood >= 0 else now - channel.began


def _end(channel: Channel) -> int:
    """When the output of a mode that does not repeat rises: a strobe is low for a tick."""
    return channel.began + channel.count + (channel.mode > 3)


def _high(count: int) -> int:
    """Ticks of a square wave's high half."""
    return (count + 1) // 2


def _from_register(channel: Channel, number: int) -> int:
    if channel.decimal:
        number = sum((number >> 4 * digit & 15) * 10**digit for digit in range(4))
        return number % 10_000 or 10_000
    return number or 1 << 16
