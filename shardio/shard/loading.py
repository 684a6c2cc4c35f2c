"""Makes a device from what the VMM named: a dotted path or a factory, and options.

The factory travels apart from its options, so that a warm spare can load it before any device is made.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shardio.errors import MachineError
from shardio.shard import by_value
from shardio.spelling import listed, nearest

Factory = str | Callable[..., Any]


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A device to make: pickles of its factory (or dotted path) beside source text for its tracebacks, and of
    the options, a dict.
    """

    factory: bytes
    options: bytes


def resolve(path: str) -> Callable[..., Any]:
    """The class or function at "package.module:Name".

    Raises `MachineError` naming the part that does not exist.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise MachineError(f"{path!r} names no device", 'write it as "package.module:Class"')
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise MachineError(
            f"cannot import {module_name!r} of device {path!r}: {error}",
            "install the package, or correct the name",
        ) from error
    except Exception as error:  # the module is the user's code: whatever it raises is the reason
        raise MachineError(
            f"importing {module_name!r} of device {path!r} raised {type(error).__name__}: {error}",
            "correct the module",
        ) from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = {each for each in dir(found) if each[:1].isupper()}
            raise MachineError(
                f"module {module_name!r} has no {name!r}", nearest(part, names) or listed(names)
            ) from None
    if not callable(found):
        raise MachineError(f"{path!r} is not callable", "name a class or a factory function")
    result: Callable[..., Any] = found
    return result


def pack(factory: Factory, options: Mapping[str, Any]) -> Packed:
    """A factory and its options for `make` in a shard. A class of the program's main file, or a local one,
    goes by value.

    Raises `MachineError` for what cannot leave this process: an open file or socket, a lock.
    """
    texts = {} if isinstance(factory, str) else by_value.sources(factory)
    try:
        return Packed(by_value.dumps((factory, texts), factory), by_value.dumps(dict(options), factory))
    except (pickle.PicklingError, AttributeError, TypeError, ValueError) as error:
        raise MachineError(
            f"the device {factory!r} or its options cannot go to another process: {error}",
            "open files and sockets in the device's attach(), in the shard",
        ) from None


def load(factory: bytes) -> Callable[..., Any]:
    """A packed factory, its modules imported. Raises whatever importing them raises."""
    found, texts = pickle.loads(factory)
    by_value.show_sources(texts)
    made: Callable[..., Any] = resolve(found) if isinstance(found, str) else found
    return made


def make(packed: Packed) -> Any:
    """The device that `pack` described."""
    return load(packed.factory)(**pickle.loads(packed.options))
