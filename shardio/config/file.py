"""A configuration as TOML: reading a file, and writing one."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from shardio.config.build import kinds_of_tables
from shardio.config.check import check_shape, machine_config
from shardio.config.model import DEVICE_KEYS, MACHINE_KEYS, DeviceConfig, MachineConfig
from shardio.errors import ConfigError
from shardio.platform import TABLE_KINDS


def load_config(path: str | Path) -> MachineConfig:
    """Reads the TOML file at `path`; relative paths in it are from the file's own folder.

    Raises ConfigError naming the file, the table, the key and the hint.
    """
    return machine_config(load_tables(path), where=str(path), folder=Path(path).parent)


def load_tables(path: str | Path) -> dict[str, Any]:
    """The tables of the TOML file at `path`, their keys unchecked. Raises ConfigError when it is no such."""
    try:
        tables = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(str(path), error.strerror or str(error), "name a configuration file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"not TOML: {error}", "correct the file there") from error
    check_shape(tables, str(path))
    return tables


def as_toml(config: MachineConfig) -> str:
    """The configuration as a file, without what is a default already: `load_config` of it is the same
    machine. Its platform's devices are among the `[[device]]` tables, its paths are absolute.
    """
    import tomli_w  # only where it is asked for

    machine = _changed(config, MachineConfig(), MACHINE_KEYS) | {"platform": False}
    if config.tables is None and (kinds := kinds_of_tables(config)):  # those that come with the platform
        machine["tables"] = "both" if kinds == TABLE_KINDS else kinds[0]
    kept = machine.keys() - {"disks", "cdrom", "nets"}  # which are devices by now
    machine = {key: machine[key] for key in MACHINE_KEYS if key in kept}
    devices = []
    for device in config.devices:
        table = _changed(device, DeviceConfig(type=""), DEVICE_KEYS)
        options = table.pop("options", {})
        own = {key: value for key, value in options.items() if key in DEVICE_KEYS}
        devices.append(table | {key: value for key, value in options.items() if key not in own})
        devices[-1] |= {"options": own} if own else {}
    return tomli_w.dumps({"machine": machine, "device": devices})


def _changed(struct: msgspec.Struct, default: msgspec.Struct, keys: Iterable[str]) -> dict[str, Any]:
    """The fields that differ from `default`, paths as text."""
    found = {key: getattr(struct, key) for key in keys if getattr(struct, key) != getattr(default, key)}
    texts = {key: os.path.abspath(value) for key, value in found.items() if isinstance(value, Path)}
    return {**found, **texts}
