"""Devices by dotted path, class or function; what cannot be found or sent is an error that names it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shardio import MachineError
from shardio.shard.loading import make, pack, resolve
from tests.supervisor.devices import Journal

PATH = "tests.supervisor.devices:Journal"


def test_a_dotted_path_names_a_class() -> None:
    assert resolve(PATH) is Journal


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("tests.supervisor.devices.Journal", "names no device"),
        (":Journal", "names no device"),
        ("tests.supervisor.devices:", "names no device"),
        ("tests.nowhere:Journal", "cannot import 'tests.nowhere'"),
        ("tests.supervisor.devices:Jurnal", "has no 'Jurnal'"),
        ("tests.supervisor.devices:annotations", "is not callable"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(path: str, why: str) -> None:
    with pytest.raises(MachineError, match=why):
        resolve(path)


@pytest.mark.parametrize("factory", [PATH, Journal, lambda: Journal()], ids=["path", "class", "function"])
def test_a_packed_device_is_made(factory: object) -> None:
    device = make(pack(factory, {}))  # type: ignore[arg-type]

    assert type(device) is Journal


def test_options_go_with_the_device() -> None:
    device = make(pack("tests.supervisor.devices:Filed", {"path": "/tmp/file"}))

    assert str(device.path) == "/tmp/file"


def test_a_class_of_a_function_goes_by_value() -> None:
    class Local(Journal):
        """Cannot be imported."""

    assert type(make(pack(Local, {}))).__name__ == "Local"


def test_options_that_cannot_leave_the_process_are_refused() -> None:
    with pytest.raises(MachineError, match="cannot go to another process"):
        pack(PATH, {"lock": threading.Lock()})


def test_module_that_raises_is_reported_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_device_module.py").write_text("raise RuntimeError('no lamp here')")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(MachineError, match="RuntimeError: no lamp here; correct the module"):
        resolve("broken_device_module:Lamp")


def test_a_mistyped_class_is_named() -> None:
    with pytest.raises(MachineError, match='did you mean "Journal"'):
        resolve("tests.supervisor.devices:Jurnal")
