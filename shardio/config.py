"""A machine as a file: one `[machine]` table and a `[[device]]` table per device, checked before it starts.

`load_config` reads TOML, `machine_config` takes the same tables as a dict; both give a `MachineConfig`, and
`build` makes the `Machine` of it. What is wrong is a `ConfigError` of one line: file, table, key, hint.
"""

from __future__ import annotations

import os
import tomllib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from shardio import pc
from shardio._core import lib
from shardio.dispatcher.claims import Claims
from shardio.dispatcher.device import Span, device_request, own_arguments
from shardio.errors import ConfigError, DeviceOverlap, ShardioError
from shardio.memory import check_size, parse_size, regions_of
from shardio.options import check_options, takes_option
from shardio.platform import TABLE_KINDS, acpi_files
from shardio.reserved import Reserved, reserved_by_kvm, reserved_by_soft
from shardio.shard.loading import resolve
from shardio.soft.machine import BOARD
from shardio.spelling import listed, nearest

if TYPE_CHECKING:
    from shardio.machine import Machine
    from shardio.supervisor.prompts import TerminalLender

# Where Debian's packages put firmware: `firmware = "bios.bin"` finds SeaBIOS.
FIRMWARE_FOLDERS = (Path("/usr/share/seabios"), Path("/usr/share/qemu"), Path("/usr/share/bochs"))

Count = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[device]]` table: the arguments of `Machine.add`. `pio` or `mmio` is the base of its range and
    `size` the bytes, `irq` a line (GSI), `pass_fds` descriptors of this process; `options` are the
    constructor's arguments.
    """

    type: str
    pio: int | None = None
    mmio: int | None = None
    size: int | None = None
    irq: int | None = None
    irq_mode: str | None = None
    shard: Name | None = None
    posted: bool | Literal["coalesced"] = False
    policy: str | None = None
    replicas: int = 1
    name: Name | None = None
    pass_fds: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    options: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """What messages call it: its name, or its class."""
        return self.name or self.type.rpartition(":")[2]

    @property
    def arguments(self) -> dict[str, Any]:
        """What `Machine.add` is given, besides the type."""
        table = msgspec.structs.asdict(self)
        del table["type"]
        return table


class MachineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[machine]` table, defaults filled in, and its devices.

    `memory` is in bytes, `cpu` is what runs the vCPUs ("auto": KVM where it works, else software), `at`
    (where the flat image goes) and `entry` are guest-physical addresses, `hang_deadline` is in seconds,
    `tables` tells the guest's kernel of the devices. `firmware`, `kernel` and `payload` bring the devices of
    a PC, except where a `[[device]]` has their range and unless `platform` is false: `disks` (raw images), a
    `cdrom` and `nets` among them, behind an IDE controller or, for a kernel, as virtio devices on PCI.
    """

    vcpus: Annotated[int, Meta(ge=1, le=lib.SIO_MAX_VCPUS)] = 1
    memory: Count = 64 << 20
    shards: Count | None = None
    cpu: Literal["auto", "kvm", "soft"] = "auto"
    irqchip: bool | Literal["split"] = True
    repairs: bool | Literal["auto"] = "auto"
    image: Path | None = None
    at: Annotated[int, Meta(ge=0)] = 0x1000
    entry: Annotated[int, Meta(ge=0)] | None = None
    mode: Literal["real", "protected", "long"] = "real"
    firmware: Path | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    command_line: str = ""
    payload: Path | None = None
    disks: tuple[Path, ...] = ()
    cdrom: Path | None = None
    nets: tuple[str, ...] = ()
    platform: bool = True
    pin: bool | None = None
    hang_deadline: Annotated[float, Meta(gt=0)] | None = None
    max_deaths: Annotated[int, Meta(ge=0)] | None = None
    tables: Literal["acpi", "mp", "both", "none"] | None = None
    devices: tuple[DeviceConfig, ...] = ()


MACHINE_KEYS = tuple(key for key in MachineConfig.__struct_fields__ if key != "devices")
DEVICE_KEYS = DeviceConfig.__struct_fields__
# Keys whose value may be text: "0x3f8".
NUMBERS = {"pio", "mmio", "size", "irq", "at", "entry"}


def as_toml(config: MachineConfig) -> str:
    """The configuration as a file, without what is a default already: `load_config` of it is the same
    machine. Its platform's devices are among the `[[device]]` tables, its paths are absolute.
    """
    import tomli_w  # only where it is asked for

    machine = _told(config, MachineConfig(), MACHINE_KEYS) | {"platform": False}
    if config.tables is None and (kinds := _tables(config)):  # those that come with the platform
        machine["tables"] = "both" if kinds == TABLE_KINDS else kinds[0]
    kept = machine.keys() - {"disks", "cdrom", "nets"}  # which are devices by now
    machine = {key: machine[key] for key in MACHINE_KEYS if key in kept}
    devices = []
    for device in config.devices:
        table = _told(device, DeviceConfig(type=""), DEVICE_KEYS)
        options = table.pop("options", {})
        own = {key: value for key, value in options.items() if key in DEVICE_KEYS}
        devices.append(table | {key: value for key, value in options.items() if key not in own})
        devices[-1] |= {"options": own} if own else {}
    return tomli_w.dumps({"machine": machine, "device": devices})


def _told(struct: msgspec.Struct, default: msgspec.Struct, keys: Iterable[str]) -> dict[str, Any]:
    """The fields that differ from `default`, paths as text."""
    found = {key: getattr(struct, key) for key in keys if getattr(struct, key) != getattr(default, key)}
    texts = {key: os.path.abspath(value) for key, value in found.items() if isinstance(value, Path)}
    return {**found, **texts}


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
    _check_shape(tables, str(path))
    return tables


def machine_config(tables: Mapping[str, Any], *, where: str, folder: Path = Path()) -> MachineConfig:
    """Checks the tables of a configuration; `where` begins each error, paths are relative to `folder`.

    Every device claims its name, line and addresses as `build` will have it do, in a machine that is not
    made: what the library refuses is refused here, with the file and the table in front.
    """
    _check_shape(tables, where)
    machine, devices = tables.get("machine", {}), tables.get("device", [])
    _refuse_unknown(machine, MACHINE_KEYS, f"{where}: [machine]", "key")
    machine = dict(machine)
    if "memory" in machine:
        with _told_at(f"{where}: [machine] memory"):
            machine["memory"] = parse_size(machine["memory"])
            check_size(machine["memory"])
    config: MachineConfig = _convert(machine, MachineConfig, f"{where}: [machine]")
    _check_guest(config, f"{where}: [machine]")
    named = [(table, f"{where}: [[device]] {i}") for i, table in enumerate(devices, 1)]
    placed = [(device_config(table, at), at) for table, at in named]
    claims = _claims(config)
    for device, at in placed:
        with _told_at(f'{at} "{device.label}"'):
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
        with _told_at(f'platform "{device.label}"'):
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
    device: DeviceConfig = _convert(own, DeviceConfig, where)
    more = {key: value for key, value in table.items() if key not in DEVICE_KEYS}
    with _told_at(f'{where} "{device.label}"'):
        options = own_arguments(device.label, device.options, more)
        check_options(resolve(device.type), options, DEVICE_KEYS)
    return msgspec.structs.replace(device, options=options)


def find_firmware(name: str | Path, folder: Path = Path()) -> Path:
    """The firmware image: from `folder`, or by its bare file name where Debian's packages put firmware."""
    name = Path(name)
    here = folder / name
    if here.exists() or name.parent != Path():
        return here
    return next((place / name for place in FIRMWARE_FOLDERS if (place / name).exists()), here)


def build(
    config: MachineConfig, *, stdin: int | None = None, terminal: TerminalLender | None = None
) -> Machine:
    """The machine that the configuration describes, loaded and not started.

    `stdin` is the descriptor that the shards get as standard input; `terminal` lends one to devices at
    `breakpoint()`. Raises what Machine raises; then nothing of the machine is left.
    """
    from shardio.machine import Machine  # only for a machine that is made

    given = {key: getattr(config, key) for key in ("pin", "hang_deadline", "max_deaths")}
    machine = Machine(
        memory=config.memory,
        vcpus=config.vcpus,
        shards=config.shards,
        cpu=config.cpu,
        irqchip=config.irqchip,
        repairs=config.repairs,
        stdin=stdin,
        terminal=terminal,
        **{key: value for key, value in given.items() if value is not None},
    )
    try:
        if config.firmware is not None:
            machine.load_firmware(config.firmware)
        if config.image is not None:
            machine.load(config.image, at=config.at, entry=config.entry, mode=config.mode)
        if config.kernel is not None:
            machine.load_kernel(config.kernel, initrd=config.initrd, command_line=config.command_line)
        if config.payload is not None:
            machine.load_payload(config.payload)
        for kind in _tables(config):
            machine.load_tables(kind)
        tell = [device for device in config.devices if _tells_of_tables(config, device)]
        for device in config.devices:
            if device not in tell:
                machine.add(device.type, **device.arguments)
        for device in tell:  # last, as it tells of the others
            tables = acpi_files(machine.hardware).items()
            files = [f"{name}={b64encode(content).decode()}" for name, content in tables]
            machine.add(device.type, **_with_options(device, acpi_files=files))
    except BaseException:
        machine.__exit__(None, None, None)
        raise
    return machine


def _tells_of_tables(config: MachineConfig, device: DeviceConfig) -> bool:
    """Whether that is where firmware finds the machine's ACPI tables."""
    wanted = config.firmware and config.platform and config.irqchip is True and config.tables != "none"
    return bool(
        wanted and "acpi_files" not in device.options and takes_option(resolve(device.type), "acpi_files")
    )


def _with_options(device: DeviceConfig, **options: Any) -> dict[str, Any]:
    return msgspec.structs.replace(device, options={**device.options, **options}).arguments


def _tables(config: MachineConfig) -> tuple[str, ...]:
    """The kinds of tables: a kernel finds both unless the configuration says otherwise."""
    chosen = config.tables
    if chosen is None:
        chosen = "both" if config.kernel and config.platform and config.irqchip is True else "none"
    return TABLE_KINDS if chosen == "both" else () if chosen == "none" else (chosen,)


def _check_guest(config: MachineConfig, where: str) -> None:
    """Raises ConfigError where two keys say what the guest is, or a kernel's keys lack the kernel."""
    named = [key for key in ("image", "firmware", "kernel", "payload") if getattr(config, key)]
    if len(named) > 1 and named != ["image", "firmware"]:
        raise ConfigError(where, f"{' and '.join(named)} in one machine", "keep the one that is to begin")
    for key in ("initrd", "command_line"):
        if getattr(config, key) and not config.kernel:
            raise ConfigError(f"{where} {key}", "there is no kernel that takes it", "name a kernel too")


@contextmanager
def _told_at(where: str) -> Iterator[None]:
    """What the library refuses, with the place in the configuration in front."""
    try:
        yield
    except ShardioError as error:
        raise ConfigError(where, error.message, error.hint) from error


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
    """The hint for a wrong value: the words that the key takes, where it takes but some."""
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
