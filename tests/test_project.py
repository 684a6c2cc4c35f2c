"""The project's own guards: the leak checks of conftest.py, the `kvm` marker, and tools/prerequisites."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LEAKS = """
import os, subprocess, sys

kept = []

def test_name():
    open("/dev/shm/shardio-leak-check", "w").close()

def test_process():
    os.unlink("/dev/shm/shardio-leak-check")
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_descriptor():
    kept[0].communicate(b"\\n")
    kept.append(os.open("/etc/passwd", os.O_RDONLY))

def test_orphan():
    os.close(kept[1])
    spawn = "import subprocess; print(subprocess.Popen(['sleep', '20'], stdout=-3, stderr=-3).pid)"
    kept.append(subprocess.run([sys.executable, "-c", spawn], capture_output=True).stdout)

def test_clean():
    os.kill(int(kept[2]), 9)
"""

NO_KVM = """
import os
import pytest

real_open = os.open

def refusing(path, *rest, **more):
    if path == "/dev/kvm":
        raise FileNotFoundError(2, "No such file or directory", path)
    return real_open(path, *rest, **more)

os.open = refusing

@pytest.mark.kvm
def test_marked():
    raise AssertionError("ran without KVM")

def test_fixture(kvm):
    raise AssertionError("ran without KVM")
"""


def pytest_on(folder: Path, text: str, **environment: str) -> str:
    """Runs a test file under a copy of our conftest.py; returns pytest's output."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder)
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    kvm: needs KVM\n")
    command = [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "--tb=line", folder]
    ours = ("SHARDIO_REQUIRE_KVM", "PYTEST_ADDOPTS")
    inherited = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**inherited, **environment}
    )
    return done.stdout


def prerequisites(path: Path) -> subprocess.CompletedProcess[str]:
    """Runs tools/prerequisites where only what is in `path` is installed."""
    return subprocess.run(
        ["/bin/sh", ROOT / "tools" / "prerequisites"],
        env={"PATH": str(path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def put_program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.timeout(30)
def test_every_kind_of_leak_fails_its_test(tmp_path: Path) -> None:
    output = pytest_on(tmp_path, LEAKS, SHARDIO_TEST_GRACE_S="0.1")

    assert "ERROR test_it.py::test_name - AssertionError: left in /dev/shm" in output
    assert "ERROR test_it.py::test_process - AssertionError: left running" in output
    assert "ERROR test_it.py::test_descriptor - AssertionError: left open" in output
    assert "ERROR test_it.py::test_orphan - AssertionError: left running" in output
    assert "5 passed, 4 errors" in output


def test_without_kvm_tests_skip_with_the_reason(tmp_path: Path) -> None:
    output = pytest_on(tmp_path, NO_KVM)

    assert "/dev/kvm: No such file or directory" in output
    assert "2 skipped" in output


def test_a_node_that_is_not_kvm_s_is_no_kvm(tmp_path: Path) -> None:
    covered = NO_KVM.replace('raise FileNotFoundError(2, "No such file or directory", path)',
                             'return real_open("/dev/null", *rest, **more)')

    output = pytest_on(tmp_path, covered)

    assert "/dev/kvm: Inappropriate ioctl for device" in output
    assert "2 skipped" in output


def test_where_kvm_is_required_they_fail(tmp_path: Path) -> None:
    output = pytest_on(tmp_path, NO_KVM, SHARDIO_REQUIRE_KVM="1")

    assert "SHARDIO_REQUIRE_KVM=1, but /dev/kvm" in output
    assert "2 errors" in output
    assert "skipped" not in output


def test_prerequisites_of_this_machine_are_met() -> None:
    done = prerequisites(Path(os.environ["PATH"]))

    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()).exists()


def test_bare_machine_names_every_package(tmp_path: Path) -> None:
    done = prerequisites(tmp_path)

    assert done.returncode == 2
    assert "apt-get install python3 gcc libc6-dev binutils" in done.stderr


def test_old_python_is_named_with_its_version(tmp_path: Path) -> None:
    put_program(tmp_path, "python3", '[ "$1" = -V ] && echo Python 3.9.2; exit 1')

    done = prerequisites(tmp_path)

    assert "python3 is Python 3.9.2, and 3.11 or newer is needed" in done.stderr


def test_python_without_venv_and_headers(tmp_path: Path) -> None:
    put_program(tmp_path, "python3", 'case "$2" in *version_info*) exit 0;; *) exit 1;; esac')

    done = prerequisites(tmp_path)

    assert "apt-get install python3-venv python3-dev gcc" in done.stderr


def test_compiler_without_headers(tmp_path: Path) -> None:
    put_program(tmp_path, "gcc", "exit 1")

    done = prerequisites(tmp_path)

    assert "libc6-dev linux-libc-dev binutils" in done.stderr
