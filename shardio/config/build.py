"""The machine that a configuration describes, and which tables tell its guest of its devices."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from shardio.config.model import DeviceConfig, MachineConfig
from shardio.options import takes_option
from shardio.platform import TABLE_KINDS, acpi_files
from shardio.shard.loading import resolve

if TYPE_CHECKING:
    from shardio.machine import Machine
    from shardio.supervisor.prompts import TerminalLender


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
        for kind in kinds_of_tables(config):
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


def kinds_of_tables(config: MachineConfig) -> tuple[str, ...]:
    """The kinds of tables: a kernel finds both unless the configuration says otherwise."""
    chosen = config.tables
    if chosen is None:
        chosen = "both" if config.kernel and config.platform and config.irqchip is True else "none"
    return TABLE_KINDS if chosen == "both" else () if chosen == "none" else (chosen,)
