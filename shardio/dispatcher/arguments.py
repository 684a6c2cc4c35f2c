"""The arguments of `add`, checked: whatever is wrong with them is found here, whoever gives them."""

from __future__ import annotations

import operator
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from shardio.device import (
    DevicePio,
    MutDevicePio,
    answers,
    declared_capabilities,
    declared_memory,
    is_mutable,
)
from shardio.dispatcher.device import DeviceRequest, IrqMode, Posted, Span
from shardio.dispatcher.kinds import check_list, check_number, check_numbers, is_text
from shardio.dispatcher.placement import Shard, shard_name
from shardio.errors import MachineError, ShardioError
from shardio.interrupt.config import MESSAGE_MODES
from shardio.options import check_names
from shardio.platform import described
from shardio.range import MmioRange, PioRange
from shardio.resources import ResourceConstraint
from shardio.shard.by_value import file_of
from shardio.shard.loading import Factory, pack, resolve
from shardio.shard.walls import capability_bits
from shardio.supervisor.failover import Policy

E = TypeVar("E", bound=StrEnum)

GSIS = 4096
"""Interrupt lines and messages that KVM tells apart (KVM_MAX_IRQ_ROUTES)."""

TAKEN = frozenset({
    "pio", "mmio", "size", "ranges", "irq", "irq_mode", "shard", "posted", "policy", "replicas", "name",
    "pass_fds", "options",
})  # fmt: skip
"""Names of arguments of `add`: a constructor's options of these names go into `options`."""


def device_request(
    device: Factory,
    *,
    name: str | None = None,
    pio: int | None = None,
    mmio: int | None = None,
    size: int | None = None,
    ranges: Sequence[Span] | None = None,
    shard: Shard | str | None = None,
    irq: int | None = None,
    irq_mode: str | None = None,
    posted: bool | str = False,
    policy: str | None = None,
    replicas: int = 1,
    pass_fds: Sequence[int] = (),
    options: Mapping[str, Any] | None = None,
) -> DeviceRequest:
    """Check what `Dispatcher.add` was given. Raises `MachineError`, `InvalidRange`, `InvalidAddress`."""
    factory = resolve(device) if isinstance(device, str) else device
    if not callable(factory):
        raise MachineError(
            f"{device!r} is no class or factory of devices",
            "add the class, a function that makes the device, or its dotted path",
        )
    if name is not None and not is_text(name):
        raise MachineError(f"no device can have the name {name!r}", "give it a name of one letter or more")
    label: str = name or getattr(factory, "__name__", None) or type(factory).__name__
    check_numbers(f"device {label}", pio=pio, mmio=mmio, size=size, irq=irq)
    check_number(f"device {label}", "replicas", replicas)
    check_list(label, "ranges", ranges, "PioRanges and MmioRanges")
    check_list(label, "pass_fds", pass_fds, "descriptors")
    if replicas < 1:
        raise MachineError(f"{replicas} replicas of device {label}", "use 1, or more for an immutable device")
    if replicas > 1 and not isinstance(factory, type):
        raise MachineError(
            f"device {label} comes from a function, so nothing says that it is immutable",
            "add a class that derives from DevicePio or DeviceMmio to replicate it",
        )

    check_names(factory, options or {}, TAKEN)

    def check(span: Span) -> None:
        if isinstance(factory, type):
            _check_space(factory, label, span, replicas)

    persistent = declared_memory(factory, options or {})
    if policy is None:
        # With a state that outlives its shard, each access that is repeated happens exactly once.
        policy = getattr(factory, "policy", Policy.REPLAY if any(persistent) else None)
    mode = str(getattr(factory, "irq_mode", IrqMode.EDGE) if irq_mode is None else irq_mode)
    own = _spans(factory, label, pio, mmio, size, ranges)
    spans = (*own, *_further_ranges(factory, options or {}))
    for span in spans:
        check(span)
    return DeviceRequest(
        label,
        spans,
        pack(device, dict(options or {})),
        None if shard is None else shard_name(shard),
        _line(label, irq),
        _one_of(IrqMode, mode, "irq_mode"),
        _posted(posted),
        None if policy is None else _one_of(Policy, policy, "policy"),
        operator.index(replicas),
        bool(getattr(factory, "dma", False)),
        persistent,
        factory,
        _kind(factory),
        getattr(factory, "compatible", ""),
        described(factory, options or {}),
        () if own else _wanted(factory, label, size),
        irq is None and bool(getattr(factory, "needs_irq", False)),
        tuple(_open(label, fd) for fd in pass_fds or ()),
        _capabilities(factory, options or {}),
        _message_modes(label, factory),
        check,
    )


def _capabilities(factory: Factory, options: Mapping[str, Any]) -> tuple[str, ...]:
    names = declared_capabilities(factory, options)
    capability_bits(names)
    return names


def _message_modes(label: str, factory: Any) -> tuple[str, ...]:
    modes = tuple(getattr(factory, "message_modes", ()))
    if unknown := set(modes).difference(MESSAGE_MODES):
        raise MachineError(
            f"device {label} declares message_modes of {', '.join(map(repr, sorted(unknown)))}",
            f"use {', '.join(MESSAGE_MODES)}",
        )
    return modes


def own_arguments(device: Factory, options: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments, given in one place and in another. Raises `MachineError` for one that is
    given in both.
    """
    if not isinstance(options, Mapping):
        raise MachineError(f"{device} has options={options!r}", "give a dictionary of its arguments")
    for name in sorted(options.keys() & more.keys()):
        raise MachineError(f"{name!r} of {device} is given twice", "give it in options, or beside them")
    return {**options, **more}


def _kind(factory: Any) -> str:
    """A factory's name and file."""
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    return f"{name}, {file}" if (file := file_of(factory)) else name


def _spans(
    factory: Any,
    label: str,
    pio: int | None,
    mmio: int | None,
    size: int | None,
    ranges: Sequence[Span] | None,
) -> tuple[Span, ...]:
    """The device's ranges: those given, those that its class always has, or none."""
    if pio is None and mmio is None:
        fixed = ranges if ranges is not None else getattr(factory, "ranges", ())
        if not all(isinstance(span, PioRange | MmioRange) for span in fixed):
            raise MachineError(f"device {label} has ranges={fixed!r}", "give PioRanges and MmioRanges")
        return tuple(fixed)
    if ranges is not None:
        raise MachineError(f"device {label} has ranges, and pio or mmio too", "give one of the two")
    if pio is not None and mmio is not None and size is not None:
        raise MachineError(
            f"device {label} has two ranges and one size",
            "let its class declare pio_size and mmio_size, or give ranges=[...]",
        )
    return tuple(
        _span(factory, label, base, size, kind)
        for base, kind in ((pio, PioRange), (mmio, MmioRange))
        if base is not None
    )


def _further_ranges(factory: Any, options: Mapping[str, Any]) -> tuple[Span, ...]:
    """The ranges that a device's options bring, beside its own: what its static method `further_ranges`
    gives.
    """
    declared = getattr(factory, "further_ranges", None)
    try:
        return () if declared is None else tuple(declared(**options))
    except (TypeError, ValueError, ShardioError):  # options that its constructor refuses, which says why
        return ()


def _wanted(factory: Any, label: str, size: int | None) -> tuple[ResourceConstraint, ...]:
    """What a device without an address needs: a range of the space that it answers, aligned to its size."""
    ports_alone = isinstance(factory, type) and issubclass(factory, DevicePio | MutDevicePio)
    has_ports = ports_alone or hasattr(factory, "pio_size") or not answers(factory, "mmio")
    memory = hasattr(factory, "mmio_size") or hasattr(factory, "native_handler") or not has_ports
    length = size or getattr(factory, "mmio_size" if memory else "pio_size", None)
    if length is None:
        length = 0x1000 if memory else 8
    align = 1 << (length - 1).bit_length()
    if memory:
        return (ResourceConstraint.mmio_with_constraints(length, None, max(align, 0x1000)),)
    return (ResourceConstraint.pio_with_constraints(length, None, align),)


def _open(label: str, fd: int) -> int:
    check_number(f"device {label}", "pass_fds", fd)
    number = operator.index(fd)
    try:
        os.fstat(number)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", error)
        hint = "open it first, and keep it open as long as the device is there"
        raise MachineError(f"device {label} is given descriptor {fd}: {why}", hint) from None
    return number


def _one_of(kind: type[E], value: str, what: str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise MachineError(f"no {what} {value!r}", f"use one of {', '.join(kind)}") from None


def _line(label: str, irq: int | None) -> int | None:
    if irq is None:
        return None
    if not 0 <= operator.index(irq) < GSIS:
        raise MachineError(f"device {label} wants irq {irq}", f"use a line from 0 to {GSIS - 1}")
    return operator.index(irq)


def _posted(wanted: bool | str) -> Posted:
    if wanted is True or wanted is False:
        return Posted.RING if wanted else Posted.NO
    if wanted != Posted.COALESCED:
        raise MachineError(f"no posted={wanted!r}", 'use True, False or "coalesced"')
    return Posted.COALESCED


def _span(
    factory: Any, label: str, base: int, size: int | None, kind: type[PioRange] | type[MmioRange]
) -> Span:
    space = "pio" if kind is PioRange else "mmio"
    length = size if size is not None else getattr(factory, f"{space}_size", None)
    if length is None:
        raise MachineError(f"device {label} declares no {space}_size", "give size=... (bytes)")
    return kind(base, length)


def _check_space(factory: type, label: str, span: Span, replicas: int) -> None:
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
