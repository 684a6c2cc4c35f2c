"""Devices that the tests' configurations name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shardio.config import MachineConfig, machine_config
from shardio.device import DevicePio, MutDeviceMmio, MutDevicePio


class Lamp(MutDevicePio, MutDeviceMmio):
    """A device with options of several types, and a size of its own on the port bus only."""

    pio_size = 4

    def __init__(
        self,
        colour: str = "white",
        level: int = 0,
        ratio: float = 1.0,
        steps: list[int] | None = None,
        blink: bool = False,
        when: Callable[[], float] | None = None,
        lens: Path | range | None = None,
    ) -> None:
        self.options = (colour, level, ratio, steps, blink, when, lens)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        return


class Needy:
    """A device that cannot be made without its file."""

    def __init__(self, file: str) -> None:
        self.file = file


class Named(MutDevicePio):
    """A device with options whose names the configuration has too."""

    pio_size = 4

    def __init__(self, size: int, name: str = "") -> None:
        self.size, self.name = size, name

    def read(self, offset: int, size: int) -> int:
        return self.size


class Shared(DevicePio):
    """A device that any shard may answer for."""

    pio_size = 4

    def read(self, offset: int, size: int) -> int:
        return 0


class AnyOptions:
    """A device that takes whatever it is given."""

    def __init__(self, **options: object) -> None:
        self.options = options


DEVICES = __name__
LAMP = f"{DEVICES}:Lamp"


def lamp(**table: object) -> dict[str, object]:
    return {"type": LAMP, "pio": 0x300, **table}


def config_of(*devices: dict[str, object], **machine: object) -> MachineConfig:
    return machine_config({"machine": machine, "device": list(devices)}, where="m.toml")
