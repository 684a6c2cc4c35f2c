"""Which shardio this is: its version, and the commit, from git or as the build wrote it down."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

from shardio import __version__
from shardio.version import commit, described, full_version

ROOT = Path(__file__).resolve().parent.parent
BAKED = "0123456789ab"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit."""
    (tmp_path / "file").write_text("text")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        git(tmp_path, *words)
    return tmp_path


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *name, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert __version__ == project["version"]


def test_a_checkout_is_told_by_its_commit(checkout: Path) -> None:
    assert commit(checkout) == git(checkout, "rev-parse", "HEAD")[:12]


def test_changed_files_are_told(checkout: Path) -> None:
    (checkout / "file").write_text("another text")

    assert commit(checkout).endswith("-dirty")


def test_elsewhere_it_is_what_the_build_wrote_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shardio._commit", SimpleNamespace(COMMIT=BAKED))

    assert commit(tmp_path) == BAKED


def test_where_nobody_knows_there_is_the_version_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shardio._commit", None)

    assert commit(tmp_path) == ""


def test_a_folder_that_git_refuses_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("nonsense")

    assert described(tmp_path) == commit(tmp_path) == ""


def test_the_full_version_names_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardio.version.commit", lambda: BAKED)
    known = full_version()
    monkeypatch.setattr("shardio.version.commit", lambda: "")

    assert (known, full_version()) == (f"{__version__} (commit {BAKED})", __version__)
