"""What the `functions` of a `PciBus` say: tables with a class, its slot, and the class's own options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from inspect import signature
from typing import Any, Final

from shardio.errors import DeviceOptionError

NO_ENDPOINT: Final = "name a class that sits on PCI, such as shardio.devices.virtio:VirtioPciRng"


def described_functions(
    tables: list[dict[str, Any]] | None,
) -> Iterator[tuple[int, Callable[..., Any], dict[str, Any]]]:
    """Slot, class and own options of each table of `functions`. Raises DeviceOptionError for what is none,
    and for options that the class does not take.
    """
    given = [] if tables is None else tables
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        hint = 'give a list of tables such as {type = "package.module:Class", slot = 3}'
        raise DeviceOptionError("PciBus", "functions", tables, hint)
    for number, table in enumerate(given, 1):
        options = dict(table)
        make = _endpoint_class(options.pop("type", None))
        slot = options.pop("slot", number)
        try:
            signature(make).bind(**options)
        except TypeError as error:
            raise DeviceOptionError("PciBus", "functions", table, f"{make.__name__}: {error}") from None
        yield slot, make, options


def _endpoint_class(path: object) -> Callable[..., Any]:
    module, _, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    try:
        found: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        hint = 'write "package.module:Class"'
        raise DeviceOptionError("PciBus", "type", path, hint) from None
    if not isinstance(found, type):
        raise DeviceOptionError("PciBus", "type", path, NO_ENDPOINT)
    return found
