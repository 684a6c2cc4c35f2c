"""What a dispatcher knows of each device: the request that `arguments` made of what `add` was given, and the
handle that it gives back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from shardio.range import MmioRange, PioRange
from shardio.resources import ResourceConstraint
from shardio.routing import Route
from shardio.shard.loading import Packed
from shardio.supervisor.failover import Policy

Span = PioRange | MmioRange


class IrqMode(StrEnum):
    """How a device drives its interrupt line."""

    EDGE = "edge"
    LEVEL = "level"
    FOLLOWED = "followed"
    """A level of which the controller sees each rise and fall, as an edge-triggered pin must."""


class Posted(StrEnum):
    """Whether a device's writes wait for it, and which way those go that do not."""

    NO = "no"
    RING = "ring"
    """An exit, then the fabric's posted ring: the guest goes on once the vCPU worker has queued it."""
    COALESCED = "coalesced"
    """The hypervisor's coalesced ring: no exit."""


class DeviceRequest(msgspec.Struct):
    """A device to be added, its arguments checked. Without `spans`, its addresses are still to be chosen, by
    `wanted`; so is its line with `needs_irq`.
    """

    name: str
    spans: tuple[Span, ...]
    packed: Packed
    shard: str | None
    irq: int | None
    irq_mode: IrqMode
    posted: Posted
    policy: Policy | None
    replicas: int
    dma: bool
    persistent: tuple[int, int] = (0, 0)
    """Bytes of memory for a state that its owner's successor finds again, and of plain memory beside it."""
    factory: Any = None
    """What makes it, as this process knows it: it says which Structs it may return."""
    kind: str = ""
    """Its class and file, for messages."""
    compatible: str = ""
    """What it is, in the device tree's words; for the tables that tell a kernel of it."""
    described: Mapping[str, Any] = {}
    """What its options make of it there: see `shardio.platform.described`."""
    wanted: tuple[ResourceConstraint, ...] = ()
    needs_irq: bool = False
    pass_fds: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    """What its shard must not drop: names of capabilities(7)."""
    message_modes: tuple[str, ...] = ()
    """Delivery modes of its messages beside fixed and lowest priority."""
    checked: Callable[[Span], None] = lambda _: None
    """Raises `MachineError` for a range that the device cannot answer."""
    profile: str = ""
    """The file into which its handlers are profiled, "" for none."""


class DeviceHandle:
    """A device of a dispatcher. `name`, `spans`; `shards`: the names of the shards that hold it, once the
    dispatcher has started.
    """

    def __init__(
        self,
        request: DeviceRequest,
        call: Callable[[DeviceHandle, str, tuple[Any, ...], Mapping[str, Any]], Any],
    ) -> None:
        self.request = request
        self.name = request.name
        self.spans = request.spans
        self.shards: tuple[str, ...] = ()
        self.shard_numbers: tuple[int, ...] = ()
        self.routes: tuple[Route, ...] = ()
        self.zones: tuple[Span, ...] = ()
        """The spans whose writes go into the hypervisor's coalesced ring."""
        self._call = call

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the device in its shard, between two accesses; the first replica's. The result
        must be plain values (None, bool, int, float, str, bytes, list, dict), or a msgspec Struct whose class
        the module of the device's class declares or imports: `restore(snapshot())`.

        Raises `DeviceFailed` with the text of what the method raised, `ShardError` when the shard dies.
        """
        return self._call(self, method, arguments, options)

    def __repr__(self) -> str:
        return f"<DeviceHandle {self.name} {', '.join(map(str, self.spans))}>"
