"""From the options of `shardio run` to the configuration of the machine that it runs."""

from __future__ import annotations

import argparse
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shardio import pc
from shardio.cli.far_console import FarConsole
from shardio.config import MachineConfig, find_firmware, machine_config, with_devices
from shardio.errors import ConfigError
from shardio.options import takes_option
from shardio.shard.loading import resolve

COMMAND_LINE = "command line"
# One key=value of --device; a comma inside quotes or brackets does not end it.
DEVICE_PART = re.compile(r"""(?:[^,"\[]|"(?:\\.|[^"\\])*"|\[[^\]]*\])+""")


def configuration(arguments: argparse.Namespace, tables: Mapping[str, Any]) -> MachineConfig:
    """The configuration that the command line asks for: the file's `tables`, with its options in front."""
    where, folder = COMMAND_LINE, Path()
    if arguments.config is not None:
        where, folder = arguments.config, Path(arguments.config).parent
    machine = {**tables.get("machine", {}), **_machine_options(arguments)}
    devices = [*tables.get("device", []), *map(parse_device, arguments.device)]
    config = machine_config({**tables, "machine": machine, "device": devices}, where=where, folder=folder)
    if not (config.image or config.firmware or config.kernel or config.payload):
        hint = "give a kernel, a payload, a firmware or an image, here or in CONFIG.toml"
        raise ConfigError(where, "nothing to run", hint)
    if arguments.image is not None and config.platform:
        return with_devices(config, pc.console_devices())
    return config


def on_terminal(config: MachineConfig) -> MachineConfig:
    """The configuration with its first serial device on the terminal, unless a device has that already."""
    if any(device.options.get("input") == "stdin" for device in config.devices):
        return config
    devices = list(config.devices)
    for i, device in enumerate(devices):
        free = "input" not in device.options
        if free and takes_option(resolve(device.type), "input"):
            devices[i] = msgspec.structs.replace(device, options={**device.options, "input": "stdin"})
            break
    return msgspec.structs.replace(config, devices=tuple(devices))


def with_console(config: MachineConfig, far: FarConsole) -> MachineConfig:
    """The configuration whose device on the terminal is at that console instead.

    Raises ConfigError where none is.
    """
    devices = list(config.devices)
    for i, device in enumerate(devices):
        if device.options.get("input") == "stdin":
            ends = {"input": f"fd:{far.reader}", "output": f"fd:{far.writer}"}
            devices[i] = msgspec.structs.replace(
                device,
                options={**device.options, **ends},
                pass_fds=(*device.pass_fds, far.reader, far.writer),
            )
            return msgspec.structs.replace(config, devices=tuple(devices))
    hint = "add a device with an input, or leave --console out"
    raise ConfigError(COMMAND_LINE, "--console, and no serial device", hint)


def parse_device(text: str) -> dict[str, Any]:
    """The `[[device]]` table of one --device: values are TOML where they can be, else text.

    Raises ConfigError for a part that is no key=value.

    >>> parse_device("shardio.devices:Uart16550,pio=0x3f8,irq=4,output=file:/tmp/log")
    {'type': 'shardio.devices:Uart16550', 'pio': 1016, 'irq': 4, 'output': 'file:/tmp/log'}
    """
    kind, *parts = DEVICE_PART.findall(text) or [""]
    table: dict[str, Any] = {"type": kind}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (equals and key.strip()):
            raise ConfigError(f"--device {text}", f'"{part}" is no KEY=VALUE', "write pio=0x3f8,irq=4 say")
        table[key.strip()] = _value(value)
    return table


def default_name(arguments: argparse.Namespace) -> str:
    """What a machine is called that was given no name: its file's name, as far as a name can hold it.

    >>> default_name(argparse.Namespace(config="/etc/my router.toml"))
    'my-router'
    """
    given = vars(arguments)
    files = (given.get(key) for key in ("config", "kernel", "payload", "firmware", "image"))
    stem = Path(next((file for file in files if file), "machine")).stem
    return re.sub(r"[^A-Za-z0-9._-]", "-", stem)[:32] or "machine"


def device_folders(config: str | None) -> list[str]:
    """Where a device's module may lie besides installed packages: the current folder, and the file's."""
    return [os.getcwd(), *([str(Path(config).resolve().parent)] if config else [])]


def _machine_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keys of `[machine]` that the command line gives; its paths are from the current folder."""
    keys = ("at", "cpu", "entry", "mode", "vcpus", "memory", "shards")
    given = {key: getattr(arguments, key) for key in keys}
    given |= {"command_line": arguments.append, "nets": arguments.nets}
    if arguments.disks is not None:
        given["disks"] = [os.path.abspath(path) for path in arguments.disks]
    for key in ("image", "kernel", "initrd", "payload", "cdrom"):
        if (path := getattr(arguments, key)) is not None:
            given[key] = os.path.abspath(path)
    if arguments.firmware is not None:
        given["firmware"] = os.path.abspath(find_firmware(arguments.firmware))
    if arguments.no_platform:
        given["platform"] = False
    if arguments.no_irqchip:
        given["irqchip"] = False
    if arguments.no_pin:
        given["pin"] = False
    return {key: value for key, value in given.items() if value is not None}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
