"""A machine as a file: one `[machine]` table and a `[[device]]` table per device, checked before it starts.

`load_config` reads TOML, `machine_config` takes the same tables as a dict; both give a `MachineConfig`, and
`build` makes the `Machine` of it. What is wrong is a `ConfigError` of one line: file, table, key, cure.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from shardio import pc
from shardio.device import answers
from shardio.errors import ConfigError, InvalidRange
from shardio.options import check_options, listed, load_device_class, nearest
from shardio.options import parse_size as parse_size  # the configuration's own word for it
from shardio.range import MmioRange, PioRange
from shardio.reserved import reserved_by_kvm

if TYPE_CHECKING:
    from shardio.machine import Machine

GIB = 1 << 30
# Guest RAM fills the space below this address, and what is left over goes above 4 GiB.
LOW_MEMORY = 3 * GIB
# Where Debian's packages put firmware: `firmware = "bios.bin"` finds SeaBIOS.
FIRMWARE_FOLDERS = (Path("/usr/share/seabios"), Path("/usr/share/qemu"), Path("/usr/share/bochs"))

Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[device]]` table. `pio` or `mmio` is the base of its range, `size` the range's bytes; a class
    that declares both sizes may have both.

    `irq` is an ISA line (GSI), `irq_mode` how it is driven, `shard` the name of the owner, `replicas` how
    many shards answer for an immutable device, `policy` what becomes of the access in flight when its shard
    dies, `options` the constructor's arguments.
    """

    type: str
    pio: int | None = None
    mmio: int | None = None
    size: Count | None = None
    irq: Annotated[int, Meta(ge=0, le=4095)] | None = None
    shard: Name | None = None
    irq_mode: Literal["edge", "level", "followed"] | None = None
    posted: bool | Literal["coalesced"] = False
    policy: Literal["replay", "fail"] | None = None
    replicas: Count = 1
    name: Name | None = None
    options: dict[str, Any] = {}
    sizes: tuple[int, int] = (0, 0)

    @property
    def label(self) -> str:
        """What messages call it: its name, or its class."""
        return self.name or self.type.rpartition(":")[2]

    @property
    def ranges(self) -> tuple[PioRange | MmioRange, ...]:
        """The addresses that it answers. Raises InvalidRange when they leave their space."""
        pio, mmio = self.sizes
        found: list[PioRange | MmioRange] = []
        if self.pio is not None:
            found.append(PioRange(self.pio, self.size or pio))
        if self.mmio is not None:
            found.append(MmioRange(self.mmio, self.size or mmio))
        return tuple(found)

    def __str__(self) -> str:
        return f'"{self.label}" ({", ".join(map(_described, self.ranges))})'


class MachineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[machine]` table, defaults filled in, and its devices.

    `memory` is in bytes, `at` (where the flat image goes) and `entry` are guest-physical addresses,
    `hang_deadline` is in seconds, `tables` tells the guest's kernel of the devices. `firmware` brings the
    devices of a PC, except where a `[[device]]` has their range and unless `platform` is false.
    """

    vcpus: Annotated[int, Meta(ge=1, le=254)] = 1
    memory: Count = 64 << 20
    shards: Count | None = None
    irqchip: bool | Literal["split"] = True
    image: Path | None = None
    at: Annotated[int, Meta(ge=0)] = 0x1000
    entry: Annotated[int, Meta(ge=0)] | None = None
    mode: Literal["real", "protected", "long"] = "real"
    firmware: Path | None = None
    platform: bool = True
    pin: bool | None = None
    hang_deadline: Annotated[float, Meta(gt=0)] | None = None
    tables: Literal["acpi", "mp"] | None = None
    devices: tuple[DeviceConfig, ...] = ()


MACHINE_KEYS = tuple(key for key in MachineConfig.__struct_fields__ if key != "devices")
# `options` and `sizes` are what the other keys and the class come to.
DEVICE_KEYS = tuple(key for key in DeviceConfig.__struct_fields__ if key not in ("options", "sizes"))
# Keys whose value may be text: "0x3f8".
NUMBERS = {"pio", "mmio", "size", "irq", "at", "entry"}


def load_config(path: str | Path) -> MachineConfig:
    """Reads the TOML file at `path`; relative paths in it are from the file's own folder.

    Raises ConfigError naming the file, the table, the key and the cure.
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
    _check_shape(tables, str(path))
    return tables


def machine_config(tables: Mapping[str, Any], *, where: str, folder: Path = Path()) -> MachineConfig:
    """Checks the tables of a configuration; `where` begins each error, paths are relative to `folder`."""
    _check_shape(tables, where)
    machine, devices = tables.get("machine", {}), tables.get("device", [])
    _refuse_unknown(machine, MACHINE_KEYS, f"{where}: [machine]", "key")
    machine = dict(machine)
    if "memory" in machine:
        try:
            machine["memory"] = parse_size(machine["memory"])
        except ConfigError as error:
            raise ConfigError(f"{where}: [machine] memory", error.reason, error.cure) from error
    config: MachineConfig = _convert(machine, MachineConfig, f"{where}: [machine]")
    placed = tuple(device_config(table, f"{where}: [[device]] {i}") for i, table in enumerate(devices, 1))
    check_placement(placed, config, where)
    config = msgspec.structs.replace(
        config,
        image=folder / config.image if config.image else None,
        firmware=find_firmware(config.firmware, folder) if config.firmware else None,
        devices=placed,
    )
    if config.firmware and config.platform:
        return with_devices(config, pc.firmware_devices(config.memory, config.vcpus))
    return config


def with_devices(config: MachineConfig, tables: Iterable[Mapping[str, Any]]) -> MachineConfig:
    """The configuration with the devices of `tables` added, except where one is in their way already.

    Without an in-kernel irqchip there are no lines: they come without one, to be polled.
    """
    lines = {} if config.irqchip is True else {"irq": None}
    added = [device_config({**table, **lines}, "platform") for table in tables]
    free = [new for new in added if not any(_overlap(new, old) for old in config.devices)]
    names = {device.name for device in config.devices}
    renamed = [msgspec.structs.replace(new, name=None) if new.name in names else new for new in free]
    return msgspec.structs.replace(config, devices=(*config.devices, *renamed))


def device_config(table: Mapping[str, Any], where: str) -> DeviceConfig:
    """Checks one device's table, its class and its options; the size may come from the class."""
    if "type" not in table:
        meant = [key for key in table if key not in DEVICE_KEYS and nearest(key, ["type"])]
        cure = f'"{meant[0]}": did you mean "type"?' if meant else 'add `type = "package.module:Class"`'
        raise ConfigError(where, "no type", cure)
    own = {key: value for key, value in table.items() if key in DEVICE_KEYS}
    device: DeviceConfig = _convert(own, DeviceConfig, where)
    where = f'{where} "{device.label}"'
    device_class = load_device_class(device.type, where)
    options = {key: value for key, value in table.items() if key not in DEVICE_KEYS}
    check_options(device_class, options, where, DEVICE_KEYS)
    spaces = [space for space in ("pio", "mmio") if getattr(device, space) is not None]
    pio_size, mmio_size = (getattr(device_class, f"{space}_size", None) or 0 for space in ("pio", "mmio"))
    if not spaces or (len(spaces) == 2 and (device.size or not pio_size or not mmio_size)):
        raise ConfigError(where, "its range has no base, or two", "give one of pio and mmio")
    for space in spaces:
        if not (answers(device_class, space) or getattr(device_class, "native_handler", None)):
            cure = f"place it in the other space, or give it {space}_read and {space}_write"
            raise ConfigError(where, f"{device_class.__qualname__} has no handlers for {space}", cure)
    placed: DeviceConfig = msgspec.structs.replace(device, options=options, sizes=(pio_size, mmio_size))
    if len(spaces) == 1:
        size = device.size or (pio_size if device.mmio is None else mmio_size)
        if not size:
            raise ConfigError(where, "no size", "add `size = ...`, the bytes of its range")
        placed = msgspec.structs.replace(placed, size=size)
    try:
        _ = placed.ranges
    except InvalidRange as error:
        raise ConfigError(where, error.message, error.cure) from error
    return placed


def check_placement(devices: Iterable[DeviceConfig], machine: MachineConfig, where: str) -> None:
    """Raises ConfigError when two devices overlap or share a name, or when guest RAM or KVM would answer in
    the place of one; `machine` says which of these there are.
    """
    devices = list(devices)
    placed = [(span, device) for device in devices for span in device.ranges]
    placed.sort(key=lambda entry: (isinstance(entry[0], MmioRange), entry[0].base))
    for (lower, below), (upper, above) in itertools.pairwise(placed):
        if lower.overlaps(upper):  # type: ignore[arg-type]  # ranges of two spaces never overlap
            cure = "move one, or make its size smaller"
            raise ConfigError(where, f"device {above} overlaps {below}", cure)
    names = [device.name for device in devices if device.name is not None]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(where, f'two devices have the name "{name}"', "rename one")
    for span, device in placed:
        if any(region.overlaps(span) for region in _ram(machine.memory)):  # type: ignore[arg-type]
            cure = "move it above the memory and below 4 GiB, to 0xd0000000 say"
            raise ConfigError(where, f"device {device} lies in guest RAM, which would answer instead", cure)
        if (reserved := reserved_by_kvm(span, machine.irqchip)) is not None:
            reason = f"device {device} would see no access: {reserved.who} answers there"
            raise ConfigError(where, reason, reserved.cure)


def find_firmware(name: str | Path, folder: Path = Path()) -> Path:
    """The firmware image: from `folder`, or by its bare file name where Debian's packages put firmware."""
    name = Path(name)
    here = folder / name
    if here.exists() or name.parent != Path():
        return here
    return next((place / name for place in FIRMWARE_FOLDERS if (place / name).exists()), here)


def build(config: MachineConfig, *, stdin: int | None = None) -> Machine:
    """The machine that the configuration describes, loaded and not started.

    `stdin` is the descriptor that the shards get as standard input. Raises what Machine raises; then nothing
    of the machine is left.
    """
    from shardio.machine import Machine  # checking a file needs neither KVM nor the compiled core

    given = {key: getattr(config, key) for key in ("pin", "hang_deadline")}
    machine = Machine(
        memory=config.memory,
        vcpus=config.vcpus,
        shards=config.shards,
        irqchip=config.irqchip,
        stdin=stdin,
        **{key: value for key, value in given.items() if value is not None},
    )
    try:
        if config.firmware is not None:
            machine.load_firmware(config.firmware)
        if config.image is not None:
            machine.load(config.image, at=config.at, entry=config.entry, mode=config.mode)
        if config.tables is not None:
            machine.load_tables(config.tables)
        for device in config.devices:
            table = msgspec.structs.asdict(device)
            options = table.pop("options")
            del table["sizes"]
            machine.add(table.pop("type"), **table, **options)
    except BaseException:
        machine.__exit__(None, None, None)
        raise
    return machine


def _overlap(one: DeviceConfig, other: DeviceConfig) -> bool:
    return any(mine.overlaps(theirs) for mine in one.ranges for theirs in other.ranges)  # type: ignore[arg-type]


def _ram(memory: int) -> list[PioRange | MmioRange]:
    low: list[PioRange | MmioRange] = [MmioRange(0, min(memory, LOW_MEMORY))]
    return low if memory <= LOW_MEMORY else [*low, MmioRange(4 * GIB, memory - LOW_MEMORY)]


def _described(span: PioRange | MmioRange) -> str:
    space = "pio" if isinstance(span, PioRange) else "mmio"
    return f"{space} {int(span.base):#x} to {int(span.last):#x}"


def _check_shape(tables: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError unless there is nothing but a table `machine` and a list of tables `device`."""
    _refuse_unknown(tables, ("machine", "device"), where, "table")
    if not isinstance(tables.get("machine", {}), dict):
        raise ConfigError(where, '"machine" is no table', "write [machine] above its keys")
    devices = tables.get("device", [])
    if not isinstance(devices, list) or not all(isinstance(device, dict) for device in devices):
        raise ConfigError(where, '"device" is no list of tables', "write [[device]] above each one's keys")


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str, what: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(where, f'unknown {what} "{key}"', nearest(key, known) or listed(known))


def _convert(table: Mapping[str, Any], kind: Any, where: str) -> Any:
    """The table as a Struct; hexadecimal text counts as a number where a number is wanted."""
    numbers = {key: _number(value, f"{where} {key}") for key, value in table.items() if key in NUMBERS}
    try:
        return msgspec.convert({**table, **numbers}, kind, dec_hook=lambda wanted, value: wanted(value))
    except msgspec.ValidationError as error:
        problem, _, at = str(error).partition(" - at `$.")
        problem = problem[:1].lower() + problem[1:]
        key = at.rstrip("`")
        raise ConfigError(f"{where} {key}", problem, _choices(kind, key)) from error


def _choices(kind: Any, key: str) -> str:
    """The cure for a wrong value: the words that the key takes, where it takes but some."""
    words: list[str] = []
    for part in _parts(get_type_hints(kind).get(key)):
        words += [f'"{word}"' for word in get_args(part)] if get_origin(part) is Literal else []
        words += ["true", "false"] if part is bool else []
    return f"use {', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "correct the value"


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)


def _number(value: object, where: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return int(value, 0)
    except ValueError as error:
        raise ConfigError(where, f'"{value}" is no number', 'write 0x3f8 or "0x3f8"') from error
