"""Whether a configuration makes a machine: what the library would refuse is refused here, with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shardio import pc
from shardio.config.convert import convert, refuse_unknown, told_at
from shardio.config.model import DEVICE_KEYS, MACHINE_KEYS, DeviceConfig, MachineConfig
from shardio.dispatcher.arguments import device_request, own_arguments
from shardio.dispatcher.claims import Claims
from shardio.dispatcher.device import Span
from shardio.errors import ConfigError, DeviceOverlap
from shardio.memory import check_size, parse_size, regions_of
from shardio.options import check_options
from shardio.reserved import Reserved, reserved_by_kvm, reserved_by_soft
from shardio.shard.loading import resolve
from shardio.soft.machine import BOARD
from shardio.spelling import nearest

# Where Debian's packages put firmware: `firmware = "bios.bin"` finds SeaBIOS.
FIRMWARE_FOLDERS = (Path("/usr/share/seabios"), Path("/usr/share/qemu"), Path("/usr/share/bochs"))


def machine_config(tables: Mapping[str, Any], *, where: str, folder: Path = Path()) -> MachineConfig:
    """Checks the tables of a configuration; `where` begins each error, paths are relative to `folder`.

    Every device claims its name, line and addresses as `build` will have it do, in a machine that is not
    made: what the library refuses is refused here, with the file and the table in front.
    """
    check_shape(tables, where)
    machine, devices = tables.get("machine", {}), tables.get("device", [])
    refuse_unknown(machine, MACHINE_KEYS, f"{where}: [machine]", "key")
    machine = dict(machine)
    if "memory" in machine:
        with told_at(f"{where}: [machine] memory"):
            machine["memory"] = parse_size(machine["memory"])
            check_size(machine["memory"])
    config: MachineConfig = convert(machine, MachineConfig, f"{where}: [machine]")
    _check_guest(config, f"{where}: [machine]")
    named = [(table, f"{where}: [[device]] {i}") for i, table in enumerate(devices, 1)]
    placed = [(device_config(table, at), at) for table, at in named]
    claims = _claims(config)
    for device, at in placed:
        with told_at(f'{at} "{device.label}"'):
            _claim(claims, device)
    paths = {key: getattr(config, key) for key in ("image", "kernel", "initrd", "payload", "cdrom")}
    config = msgspec.structs.replace(
        config,
        **{key: folder / path for key, path in paths.items() if path},
        firmware=find_firmware(config.firmware, folder) if config.firmware else None,
        disks=tuple(folder / path for path in config.disks),
        devices=tuple(device for device, _ in placed),
    )
    return with_devices(config, _platform(config, f"{where}: [machine]"))


def check_shape(tables: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError unless there is nothing but a table `machine` and a list of tables `device`."""
    refuse_unknown(tables, ("machine", "device"), where, "table")
    if not isinstance(tables.get("machine", {}), dict):
        raise ConfigError(where, '"machine" is no table', "write [machine] above its keys")
    devices = tables.get("device", [])
    if not isinstance(devices, list) or not all(isinstance(device, dict) for device in devices):
        raise ConfigError(where, '"device" is no list of tables', "write [[device]] above each one's keys")


def _check_guest(config: MachineConfig, where: str) -> None:
    """Raises ConfigError where two keys say what the guest is, or a kernel's keys lack the kernel."""
    named = [key for key in ("image", "firmware", "kernel", "payload") if getattr(config, key)]
    if len(named) > 1 and named != ["image", "firmware"]:
        raise ConfigError(where, f"{' and '.join(named)} in one machine", "keep the one that is to begin")
    for key in ("initrd", "command_line"):
        if getattr(config, key) and not config.kernel:
            raise ConfigError(f"{where} {key}", "there is no kernel that takes it", "name a kernel too")


def _platform(config: MachineConfig, where: str) -> list[dict[str, Any]]:
    """The tables of the devices that come with what the guest is."""
    drives = config.disks or config.cdrom or config.nets
    if not config.platform or not (config.firmware or config.kernel or config.payload):
        if drives:
            hint = "name a firmware, a kernel or a payload, or write [[device]] tables"
            raise ConfigError(where, "disks and networks come with the platform, and there is none", hint)
        return []
    choose = pc.firmware_devices if config.firmware else pc.kernel_devices
    tables = choose(config.memory, config.vcpus, config.irqchip)
    try:
        found = pc.functions(config.disks, config.cdrom, config.nets, ide=not config.kernel)
    except ValueError as error:
        raise ConfigError(where, str(error), "correct disks, cdrom or nets") from error
    return pc.with_functions(tables, found)


def with_devices(config: MachineConfig, tables: Iterable[Mapping[str, Any]]) -> MachineConfig:
    """The configuration with the devices of `tables` added, except where one is in their way already.

    Without an in-kernel irqchip there are no lines: they come without one, to be polled.
    """
    claims = _claims(config)
    for device in config.devices:
        _claim(claims, device)
    lines = {} if config.irqchip is True else {"irq": None}
    added: list[DeviceConfig] = []
    for table in tables:
        device = device_config({**table, **lines}, "platform")
        if device.name in claims.handles:
            device = msgspec.structs.replace(device, name=None)
        with told_at(f'platform "{device.label}"'):
            try:
                _claim(claims, device)
            except DeviceOverlap:
                continue
        added.append(device)
    return msgspec.structs.replace(config, devices=(*config.devices, *added))


def device_config(table: Mapping[str, Any], where: str) -> DeviceConfig:
    """Translates one device's table; what is no key of `[[device]]` is an option, as are those of `options`.

    Raises ConfigError for keys of the wrong type, and for options that the constructor does not take.
    """
    if "type" not in table:
        meant = [key for key in table if key not in DEVICE_KEYS and nearest(key, ["type"])]
        hint = f'"{meant[0]}": did you mean "type"?' if meant else 'add `type = "package.module:Class"`'
        raise ConfigError(where, "no type", hint)
    own = {key: value for key, value in table.items() if key in DEVICE_KEYS}
    device: DeviceConfig = convert(own, DeviceConfig, where)
    more = {key: value for key, value in table.items() if key not in DEVICE_KEYS}
    with told_at(f'{where} "{device.label}"'):
        options = own_arguments(device.label, device.options, more)
        check_options(resolve(device.type), options, DEVICE_KEYS)
    return msgspec.structs.replace(device, options=options)


def _claims(config: MachineConfig) -> Claims:
    """Room for the devices beside what the machine answers itself. "auto" may come to KVM, which answers more
    than the software CPU, where the controllers are devices at the same addresses.
    """
    irqchip, soft = config.irqchip, config.cpu == "soft"

    def reserved(span: Span) -> Reserved | None:
        return reserved_by_soft(span, bool(irqchip)) if soft else reserved_by_kvm(span, irqchip)

    claims = Claims(regions_of(config.memory), reserved, irqchip or None)
    for device, irq in BOARD if soft and irqchip is True else ():
        claims.claim(device_request(device, irq=irq), named=False)
    return claims


def _claim(claims: Claims, device: DeviceConfig) -> None:
    """What `Machine.add` does with its arguments before it makes anything."""
    request = device_request(device.type, **device.arguments)
    claims.claim(request, named=device.name is not None)


def find_firmware(name: str | Path, folder: Path = Path()) -> Path:
    """The firmware image: from `folder`, or by its bare file name where Debian's packages put firmware."""
    name = Path(name)
    here = folder / name
    if here.exists() or name.parent != Path():
        return here
    return next((place / name for place in FIRMWARE_FOLDERS if (place / name).exists()), here)
