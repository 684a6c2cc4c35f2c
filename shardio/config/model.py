"""What a configuration says: the keys of `[machine]` and of `[[device]]`, their types and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shardio._core import lib

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
