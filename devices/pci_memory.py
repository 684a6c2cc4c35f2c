"""`PciMemory`: the states of a PCI bus and of the endpoints behind it, in memory that outlives their shard.

An access changes one endpoint as a rule, and encoding all of them would cost more than the access: each one's
state is encoded by itself, and again only after an access that may have changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from shardio.device import declared_memory
from shardio.devices.pci_host import AREA_BYTES

_encode = msgspec.msgpack.Encoder().encode
_BRIDGE = 1 << 14
_ENDPOINT = 1 << 14
"""Bytes of state of an endpoint that does not say how many."""
_Saved = tuple[bytes, list[tuple[int, bytes]]]
_decode = msgspec.msgpack.Decoder(_Saved).decode


def state_bytes(kinds: Iterable[tuple[Any, dict[str, Any]]]) -> int:
    """What the states of a bridge and of endpoints of these classes, with their options, take at most."""
    return _BRIDGE + sum(declared_memory(make, options)[0] or _ENDPOINT for make, options in kinds)


def area_bytes(kinds: Iterable[tuple[Any, dict[str, Any]]]) -> int:
    """What they keep beside them: the bridge first, then each endpoint."""
    return AREA_BYTES + sum(declared_memory(make, options)[1] for make, options in kinds)


class PciMemory:
    """`host.persistent` of a bus. `order` gives the slots in the order in which they are to be restored."""

    def __init__(
        self, store: Any, bridge: Any, endpoints: Mapping[int, Any], order: Callable[[], Iterable[int]]
    ) -> None:
        """Gives each endpoint its part of the area, and restores what a predecessor saved."""
        self._store = store
        self._bridge, self._endpoints, self._order = bridge, endpoints, order
        self._head = b""
        self._parts: dict[int, bytes] = {}
        at = AREA_BYTES
        for slot, endpoint in endpoints.items():
            _, size = declared_memory(endpoint, {})
            if size:
                endpoint.keep_in(store, store.area[at : at + size], self.keeper(slot))
            at += size
        if store.state is not None:
            self._restore(*_decode(store.state))

    def keeper(self, *slots: int) -> Callable[[], None]:
        """What saves the states of the endpoints in `slots`, for accesses that leave the bridge's as it is:
        of ports, which are no configuration.
        """
        return lambda: self.keep(slots, bridge=False)

    def keep(self, slots: Iterable[int], *, bridge: bool = True) -> None:
        """Save those states, and the `bridge`'s, as far as they have changed."""
        head = _encode(self._bridge.snapshot()) if bridge or not self._head else self._head
        changed = {slot: part for slot in slots if (part := self._encoded(slot)) != self._parts.get(slot)}
        if not changed and head == self._head:
            return
        self._head = head
        self._parts.update(changed)
        order = [slot for slot in dict.fromkeys([*self._order(), *self._parts]) if slot in self._parts]
        self._store.save(_encode((head, [(slot, self._parts[slot]) for slot in order])))

    def _encoded(self, slot: int) -> bytes:
        endpoint = self._endpoints[slot]
        return _encode(getattr(endpoint, "kept", endpoint.snapshot)())

    def _restore(self, head: bytes, parts: list[tuple[int, bytes]]) -> None:
        self._bridge.restore(msgspec.msgpack.decode(head, type=self._bridge.state_type))
        for slot, part in parts:
            endpoint = self._endpoints[slot]
            endpoint.restore(msgspec.msgpack.decode(part, type=endpoint.state_type))
        self._head, self._parts = head, dict(parts)
