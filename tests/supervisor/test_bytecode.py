"""The bytecode that a VMM makes for its shards: Python takes it for missing files, or not at all."""

from __future__ import annotations

import importlib.util
import marshal
import os
import py_compile
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shardio
from shardio.fabric import Outcome
from shardio.shard import protocol
from shardio.supervisor import bytecode
from tests.supervisor.devices import Imported, Journal
from tests.supervisor.support import BASE, MMIO, cluster

PACKAGE = Path(shardio.__file__).parent
IMPORT = """
import sys, importlib.machinery
sys.path.insert(0, {path!r})
compiled = []
real = importlib.machinery.SourceFileLoader.source_to_code
def source_to_code(loader, data, path, **options):
    if path.startswith({path!r}):
        compiled.append(path.rpartition("/")[2])
    return real(loader, data, path, **options)
importlib.machinery.SourceFileLoader.source_to_code = source_to_code
{read}
import shardio.shard.process
print(sorted(compiled))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of shardio without bytecode, which the functions here are asked about."""
    copy = tmp_path / "shardio"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(bytecode, "_ROOT", str(copy))
    monkeypatch.setattr(bytecode, "_DEVICES", "no.devices")
    return copy


def _files(fd: int) -> dict[str, bytes]:
    found: dict[str, bytes] = marshal.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    os.close(fd)
    return found


def _compiled(package: Path, fd: int) -> str:
    """What an interpreter that has taken `fd` over compiles of shardio all the same."""
    code = IMPORT.format(path=str(package.parent), read=bytecode.READ.format(fd=fd))
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], pass_fds=[fd], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    os.close(fd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_interpreter_compiles_nothing_of_shardio(package: Path) -> None:
    assert _compiled(package, bytecode.missing()) == "[]\n"


def test_a_source_that_has_changed_since_is_compiled(package: Path) -> None:
    fd = bytecode.missing()
    with (package / "errors.py").open("a") as file:
        file.write("\nCHANGED = True\n")

    assert _compiled(package, fd) == "['errors.py']\n"


def test_what_python_has_kept_is_left_to_it(package: Path) -> None:
    source = package / "errors.py"
    py_compile.compile(str(source), doraise=True)

    files = _files(bytecode.missing())

    assert str(package / "address.py") in map(importlib.util.source_from_cache, files)
    assert importlib.util.cache_from_source(str(source)) not in files


def test_what_python_has_kept_of_an_older_source_is_made_again(package: Path) -> None:
    source = package / "errors.py"
    py_compile.compile(str(source), doraise=True)
    with source.open("a") as file:
        file.write("\nCHANGED = True\n")

    assert importlib.util.cache_from_source(str(source)) in _files(bytecode.missing())


def test_nothing_is_made_where_all_is_kept(package: Path) -> None:
    for source in package.rglob("*.py"):
        py_compile.compile(str(source), doraise=True)

    assert bytecode.missing() == -1


def test_a_source_that_cannot_be_compiled_is_left_out(package: Path) -> None:
    (package / "errors.py").write_text("this is no Python")

    files = _files(bytecode.missing())

    assert importlib.util.cache_from_source(str(package / "errors.py")) not in files
    assert importlib.util.cache_from_source(str(package / "address.py")) in files


def test_the_devices_that_the_program_has_imported_are_made_too(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = package / "platform" / "aml.py"
    module = type(sys)("no.devices.own")
    module.__file__ = str(source)
    monkeypatch.setitem(sys.modules, "no.devices.own", module)

    assert importlib.util.cache_from_source(str(source)) in _files(bytecode.missing())


def test_nobody_can_change_it(package: Path) -> None:
    fd = bytecode.missing()

    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    os.close(fd)


def test_a_successor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytecode, "_head", lambda _cached, _size: b"")
    with cluster() as c:
        c.add(Imported)
        client, first = c.client(), c.shards[0].pid

        before = client.read(MMIO, BASE, 1)
        os.kill(first, signal.SIGKILL)
        after = client.read(MMIO, BASE, 1)

        assert (before, after) == ((Outcome.ANSWERED, 0), (Outcome.ANSWERED, 1))


def test_shards_start_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_data: bytes) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(protocol, "in_memfd", full)
    monkeypatch.setattr(bytecode, "_head", lambda _cached, _size: b"")
    with cluster() as c:
        c.add(Journal)

        assert c.shards[0].alive
