"""Options of every device that are no value of their kind, or too large: a typed error, never another one."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from shardio import devices
from shardio.devices import PciBus, virtio
from shardio.devices.ide import PiixIde
from shardio.errors import DeviceOptionError, ShardioError

VIRTIO = [name for name in virtio.__all__ if name.startswith(("VirtioMmio", "VirtioPci"))]
CLASSES = {
    **{name: getattr(devices, name) for name in devices.__all__ if name != "DeviceOptionError"},
    **{name: getattr(virtio, name) for name in VIRTIO if name not in ("VirtioMmio", "VirtioPci")},
    "PiixIde": PiixIde,
}
WRONG: dict[str, list[object]] = {
    "int": [-1, 0, 1 << 70],
    "float": [-1.0, float("nan"), float("inf")],
    "str": ["", "x", "\0", "a\0b", "é" * 300, "file:\0", "fd:\0", "file:", "fd:99999999999999999999"],
    "list": [5, "x", b"x", [None], [{}], [5], ["\0"], {}],
}


def needed(name: str, image: Path) -> dict[str, Any]:
    """What the class cannot be made without."""
    if name.endswith("Block"):
        return {"path": str(image)}
    return {"local": "@shardio-kinds", "peer": "@nobody"} if name.endswith("Net") else {}


def close(made: Any) -> None:
    """Give back what it has opened before it was attached."""
    inner = getattr(made, "virtio", made)
    if hasattr(inner, "detach"):
        inner.detach()


@pytest.mark.parametrize("name", CLASSES)
def test_whatever_an_option_is_the_error_is_typed(name: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(512))
    make = CLASSES[name]
    for parameter in inspect.signature(make).parameters.values():
        kinds = [kind for kind in WRONG if kind in str(parameter.annotation).replace("dict[str, Any]", "")]
        for value in [value for kind in kinds for value in WRONG[kind]]:
            options = {**needed(name, image), parameter.name: value}
            with contextlib.suppress(ShardioError):
                made = make(**options)
                close(made)


@pytest.mark.parametrize(
    "table",
    [
        {"type": "shardio.devices.virtio:VirtioPciRng", "bogus": 1},
        {"type": "shardio.devices.virtio:VirtioPciBlock"},
        {"type": "shardio.devices:Counter"},
        {"type": "os:path"},
        {"type": "os:getpid"},
        {"type": "nowhere:Nothing"},
        {"type": 5},
        {},
        {"type": "shardio.devices.virtio:VirtioPciRng", "slot": "3"},
        {"type": "shardio.devices.virtio:VirtioPciRng", "slot": None},
        {"type": "shardio.devices.virtio:VirtioPciRng", "slot": 32},
    ],
)
def test_a_function_that_cannot_be_is_refused_by_its_bridge(table: dict[str, object]) -> None:
    with pytest.raises(DeviceOptionError, match="PciBus"):
        PciBus(functions=[table])


@pytest.mark.parametrize(
    "second",
    [
        {"type": "shardio.devices.virtio:VirtioPciRng", "slot": 3},
        {"type": "shardio.devices.virtio:VirtioPciRng", "slot": 32},
        {"type": "shardio.devices.virtio:VirtioPciRng", "line": -1},
        {"type": "shardio.devices.virtio:VirtioPciRng", "bogus": 1},
        {"type": "shardio.devices.ide:PiixIde", "hda": "/nowhere"},
    ],
)
def test_a_bridge_that_cannot_be_made_closes_what_its_functions_had_opened(
    tmp_path: Path, second: dict[str, object]
) -> None:
    """The descriptor of the first one's image, and the path that the second one has bound."""
    image = tmp_path / "image"
    image.write_bytes(bytes(512))
    disk = {"type": "shardio.devices.virtio:VirtioPciBlock", "slot": 3, "path": str(image)}
    cable = {"local": str(tmp_path / "a"), "peer": "@b"}
    net = {"type": "shardio.devices.virtio:VirtioPciNet", "slot": 4, **cable}

    with pytest.raises(ShardioError):
        PciBus(functions=[disk, net, second])

    assert [path.name for path in tmp_path.iterdir()] == ["image"]
