"""The examples that README.md and docs/reference/configuration.md show work as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shardio.config import load_config
from tests.guests.build import guest

ROOT = Path(__file__).resolve().parent.parent
MY_DEVICES = """
from shardio import MutDeviceMmio

class Counter(MutDeviceMmio):
    def read(self, offset, size): return 0
    def write(self, offset, size, value): pass
"""


def example(document: str, language: str) -> str:
    """The document's first example in that language."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.kvm
def test_first_example(tmp_path: Path) -> None:
    (tmp_path / "guest.bin").write_bytes(guest("triple_fault"))
    (tmp_path / "example.py").write_text(example("README.md", "python"))

    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert "counters" in done.stdout
    assert "Uart16550" in done.stdout


@pytest.mark.parametrize("document", ["README.md", "docs/reference/configuration.md"])
def test_configuration_example(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mydevices.py").write_text(MY_DEVICES)
    (tmp_path / "machine.toml").write_text(example(document, "toml"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mydevices", raising=False)

    config = load_config(tmp_path / "machine.toml")

    assert {device.label for device in config.devices} == {"Counter", "Uart16550"}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(document: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text())

    assert [link for link in links if not (ROOT / link).exists()] == []
