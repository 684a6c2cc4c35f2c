"""What a machine knows of each device: the request that `add` made of its arguments, and the handle that it
gives back.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from shardio.device import answers, is_mutable
from shardio.errors import MachineError
from shardio.machine.placement import Shard, shard_name
from shardio.range import MmioRange, PioRange
from shardio.routing import Route
from shardio.shard.loading import Factory, Packed, pack, resolve
from shardio.supervisor.recovery import Policy

GSIS = 4096
"""Interrupt lines and messages that KVM tells apart (KVM_MAX_IRQ_ROUTES)."""


class IrqMode(StrEnum):
    """How a device drives its interrupt line."""

    EDGE = "edge"
    LEVEL = "level"


class Posted(StrEnum):
    """Whether a device's writes wait for it, and which way those go that do not."""

    NO = "no"
    RING = "ring"
    """An exit, then the fabric's posted ring: the guest goes on once the vCPU worker has queued it."""
    COALESCED = "coalesced"
    """KVM's coalesced ring: no exit."""


class DeviceRequest(msgspec.Struct):
    """A device to be added, its arguments checked."""

    name: str
    spans: tuple[PioRange | MmioRange, ...]
    packed: Packed
    shard: str | None
    irq: int | None
    irq_mode: IrqMode
    posted: Posted
    policy: Policy | None
    replicas: int
    dma: bool
    compatible: str = ""
    """What it is, in the device tree's words; for the tables that tell a kernel of it."""


class DeviceHandle:
    """A device of a machine. `name`, `spans`; `shards`: the names of the shards that hold it, once the
    machine has started.
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
        self.zones: tuple[PioRange | MmioRange, ...] = ()
        """The spans whose writes go into KVM's coalesced ring."""
        self._call = call

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of the device in its shard, between two accesses; the first replica's. The result
        must be plain values (None, bool, int, float, str, bytes, list, dict).

        Raises `MachineError` with the text of what the method raised, `ShardError` when the shard dies.
        """
        return self._call(self, method, arguments, options)

    def __repr__(self) -> str:
        return f"<DeviceHandle {self.name} {', '.join(map(str, self.spans))}>"


def device_request(
    device: Factory,
    name: str | None,
    pio: int | None,
    mmio: int | None,
    size: int | None,
    *,
    shard: Shard | str | None,
    irq: int | None,
    irq_mode: str | None,
    posted: bool | str,
    policy: str | None,
    replicas: int,
    options: Mapping[str, Any],
) -> DeviceRequest:
    """Check what `Machine.add` was given. Raises `MachineError`, `InvalidRange`, `InvalidAddress`."""
    factory = resolve(device) if isinstance(device, str) else device
    if not callable(factory):
        raise MachineError(
            f"{device!r} is no class or factory of devices",
            "add the class, a function that makes the device, or its dotted path",
        )
    label: str = name or getattr(factory, "__name__", None) or type(factory).__name__
    if pio is None and mmio is None:
        raise MachineError(f"device {label} has no range", "give it pio=... or mmio=...")
    spans = tuple(
        _span(factory, label, base, size, kind)
        for base, kind in ((pio, PioRange), (mmio, MmioRange))
        if base is not None
    )
    if isinstance(factory, type):
        for span in spans:
            _check_space(factory, label, span, replicas)
    elif replicas > 1:
        raise MachineError(
            f"device {label} comes from a function, so nothing says that it is immutable",
            "add a class that derives from DevicePio or DeviceMmio to replicate it",
        )
    try:
        chosen = None if policy is None else Policy(policy)
    except ValueError:
        raise MachineError(f"no policy {policy!r}", f"use one of {', '.join(Policy)}") from None
    try:
        mode = IrqMode(str(irq_mode or getattr(factory, "irq_mode", IrqMode.EDGE)))
    except ValueError:
        raise MachineError(f"no irq_mode {irq_mode!r}", f"use one of {', '.join(IrqMode)}") from None
    if replicas < 1:
        raise MachineError(f"{replicas} replicas of device {label}", "use 1, or more for an immutable device")
    return DeviceRequest(
        label,
        spans,
        pack(device, options),
        None if shard is None else shard_name(shard),
        _line(label, irq),
        mode,
        _posted(posted),
        chosen,
        replicas,
        bool(getattr(factory, "dma", False)),
        getattr(factory, "compatible", ""),
    )


def _line(label: str, irq: int | None) -> int | None:
    if irq is not None and not 0 <= operator.index(irq) < GSIS:
        raise MachineError(f"device {label} wants irq {irq}", f"use a line from 0 to {GSIS - 1}")
    return irq


def _posted(wanted: bool | str) -> Posted:
    if wanted is True or wanted is False:
        return Posted.RING if wanted else Posted.NO
    if wanted != Posted.COALESCED:
        raise MachineError(f"no posted={wanted!r}", 'use True, False or "coalesced"')
    return Posted.COALESCED


def _span(
    factory: Any, label: str, base: int, size: int | None, kind: type[PioRange] | type[MmioRange]
) -> PioRange | MmioRange:
    space = "pio" if kind is PioRange else "mmio"
    length = size if size is not None else getattr(factory, f"{space}_size", None)
    if length is None:
        raise MachineError(f"device {label} declares no {space}_size", "give size=... (bytes)")
    return kind(base, length)


def _check_space(factory: type, label: str, span: PioRange | MmioRange, replicas: int) -> None:
    space = "pio" if isinstance(span, PioRange) else "mmio"
    if not answers(factory, space) and not getattr(factory, "native_handler", None):
        raise MachineError(
            f"device {label} has no handlers for {space}",
            f"give it read/write or {space}_read/{space}_write, or place it in the other space",
        )
    if replicas > 1 and is_mutable(factory, space):
        raise MachineError(
            f"device {label} is mutable: it has exactly one owner, not {replicas}",
            "derive it from DevicePio or DeviceMmio if no access changes its state",
        )
