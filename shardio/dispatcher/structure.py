"""Turns what a shard returned into a Struct that the VMM's program knows.

A shard is not trusted: it only names a class, and its bytes are decoded into that class where the modules
that declare the device's class, which the program imported itself, have it at their top level.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from shardio.errors import MachineError, ShardError
from shardio.shard.objects import has_more_objects
from shardio.shard.protocol import MAX_OBJECTS

if TYPE_CHECKING:
    from shardio.dispatcher.device import DeviceHandle
    from shardio.shard.protocol import Returned


def structure(handle: DeviceHandle, shard: str, answer: Returned) -> Any:
    """The Struct that a method of the device returned.

    Raises `MachineError` for a class that the device's modules do not declare, `ShardError` for bytes that
    are no such Struct.
    """
    kind = _declared(handle.request.factory, answer.name)
    if kind is None:
        raise MachineError(
            f"device {handle.name} returned a Struct {answer.name!r} that its module does not declare",
            "declare the Struct at the top level of the module of the device's class, or import it there",
        )
    try:
        if len(answer.data) > MAX_OBJECTS and has_more_objects(answer.data, MAX_OBJECTS):
            raise ValueError(f"more than {MAX_OBJECTS} values")
        return msgspec.msgpack.decode(answer.data, type=kind)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, IndexError) as error:
        raise ShardError(
            shard, f"returned no {answer.name}: {error}", "annotate the Struct's fields as they are used"
        ) from None


def _declared(factory: Any, name: str) -> type[msgspec.Struct] | None:
    parts = factory.__mro__ if isinstance(factory, type) else (factory,)
    for part in parts:
        module = sys.modules.get(getattr(part, "__module__", None) or "")
        found = getattr(module, name.rpartition(":")[2], None)
        if (
            isinstance(found, type)
            and issubclass(found, msgspec.Struct)
            and f"{found.__module__}:{found.__qualname__}" == name
        ):
            return found
    return None
