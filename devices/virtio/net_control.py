"""The control queue of virtio-net (virtio 1.2 section 5.1.6.5): which frames the driver wants to receive, and
the address that it gives itself.

Until the driver has said what it wants, it receives every frame: one that knows no control queue filters for
itself.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

CLASS_RX: Final = 0
CLASS_MAC: Final = 1
MODES: Final = ("promiscuous", "all_multicast", "all_unicast", "no_multicast", "no_unicast", "no_broadcast")
"""The commands of CLASS_RX, by number; those from the third on belong to VIRTIO_NET_F_CTRL_RX_EXTRA."""
EXTRA_MODES: Final = 2
MAC_TABLE_SET: Final = 0
MAC_ADDR_SET: Final = 1

F_CTRL_VQ: Final = 1 << 17
F_CTRL_RX: Final = 1 << 18
F_CTRL_RX_EXTRA: Final = 1 << 20
F_CTRL_MAC_ADDR: Final = 1 << 23
FEATURES: Final = F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR

TABLE_LIMIT: Final = 256
"""Addresses of a kind that the table holds; with more, all of that kind are received (section 5.1.6.5.2)."""
COMMAND_LIMIT: Final = 64 * 1024
"""Bytes of the longest command."""
_BROADCAST: Final = b"\xff" * 6
_MAC_BYTES: Final = 6


class FilterState(msgspec.Struct):
    """What the driver has asked for: its address, the modes that are on, and the table of addresses; None
    in a table's place where it had too many.
    """

    mac: bytes
    modes: frozenset[str] = frozenset(("promiscuous",))
    unicast: frozenset[bytes] | None = frozenset()
    multicast: frozenset[bytes] | None = frozenset()


class ReceiveFilter:
    """Which frames go to the driver; `state` is all that there is to it."""

    def __init__(self, mac: bytes) -> None:
        """`mac`: the address that the device has after a reset."""
        self._mac = mac
        self.state = FilterState(mac)

    def reset(self) -> None:
        """An empty table, every frame, the address of the beginning."""
        self.state = FilterState(self._mac)

    def accepts(self, frame: bytes) -> bool:
        """Whether a frame goes to the driver, by its destination.

        >>> asked = ReceiveFilter(bytes.fromhex("525400123456"))
        >>> asked.command(CLASS_RX, 0, b"\\0", FEATURES)
        True
        >>> [asked.accepts(bytes.fromhex(to)) for to in ("525400123456", "525400000001", "ffffffffffff")]
        [True, False, True]
        """
        state = self.state
        to, modes = frame[:_MAC_BYTES], state.modes
        if "promiscuous" in modes or len(to) < _MAC_BYTES:
            return True
        if to == _BROADCAST:
            return "no_broadcast" not in modes
        if to[0] & 1:
            wanted, everything, nothing = state.multicast, "all_multicast", "no_multicast"
        else:
            wanted, everything, nothing = state.unicast, "all_unicast", "no_unicast"
        if everything in modes:
            return True
        return nothing not in modes and (to == state.mac or wanted is None or to in wanted)

    def command(self, kind: int, number: int, data: bytes, negotiated: int) -> bool:
        """Do what the driver commands, of class `kind`. False: it cannot be, and nothing has changed."""
        if not negotiated & F_CTRL_VQ:
            return False
        if kind == CLASS_RX and negotiated & F_CTRL_RX:
            return self._set_mode(number, data, negotiated)
        if kind == CLASS_MAC and number == MAC_TABLE_SET and negotiated & F_CTRL_RX:
            return self._set_table(data)
        if kind == CLASS_MAC and number == MAC_ADDR_SET and negotiated & F_CTRL_MAC_ADDR:
            return self._set_address(data)
        return False

    def _set_mode(self, number: int, data: bytes, negotiated: int) -> bool:
        known = len(MODES) if negotiated & F_CTRL_RX_EXTRA else EXTRA_MODES
        if number >= known or len(data) != 1:
            return False
        mode = MODES[number]
        self.state.modes = self.state.modes | {mode} if data[0] else self.state.modes - {mode}
        return True

    def _set_table(self, data: bytes) -> bool:
        unicast, rest = _addresses(data)
        multicast, rest = _addresses(rest) if rest is not None else (None, None)
        if unicast is None or multicast is None or rest:
            return False
        self.state.unicast, self.state.multicast = map(_bounded, (unicast, multicast))
        return True

    def _set_address(self, data: bytes) -> bool:
        if len(data) != _MAC_BYTES or data[0] & 1:
            return False
        self.state.mac = data
        return True


def _addresses(data: bytes) -> tuple[frozenset[bytes] | None, bytes | None]:
    """The addresses of a struct virtio_net_ctrl_mac, and what follows it; None twice where it is cut off."""
    if len(data) < 4:
        return None, None
    end = 4 + _MAC_BYTES * int(struct.unpack_from("<I", data)[0])
    if end > len(data):
        return None, None
    return frozenset(data[at : at + _MAC_BYTES] for at in range(4, end, _MAC_BYTES)), data[end:]


def _bounded(addresses: frozenset[bytes]) -> frozenset[bytes] | None:
    return addresses if len(addresses) <= TABLE_LIMIT else None
