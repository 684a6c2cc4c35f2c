"""QEMU's devices, asked by the guests that ask ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.exits import CASES
from shardio.bench.peers import qemu

TINY = Effort(rounds=1, seconds=0.001)
INSTALLED = pytest.mark.skipif(shutil.which(qemu.PROGRAM) is None, reason="QEMU is not installed")


@INSTALLED
@pytest.mark.kvm
@pytest.mark.parametrize("guest", ["pio-in", "mmio-read", "mmio-write"])
def test_an_access_is_held_against_the_loop(guest: str) -> None:
    (figure,) = qemu.measure(guest, TINY)

    assert figure.name == f"qemu-{guest}"
    assert figure.operation > 0 < figure.reference


@INSTALLED
@pytest.mark.kvm
def test_what_qemu_says_when_it_ends_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "COMMAND", f"{qemu.PROGRAM} -machine none-such")

    with pytest.raises(BenchError, match=r"QEMU: .*"):
        list(qemu.measure("pio-in", TINY))


def test_without_qemu_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BenchError, match="apt-get install qemu-system-x86"):
        list(qemu.measure("pio-in", TINY))


def test_each_of_its_accesses_has_rows_of_ours_beside_it() -> None:
    ours = {(case.guest, case.device) for case in CASES if case.vcpus == 1 and not case.unwaited}

    assert {(guest, device) for guest in qemu.GUESTS for device in ("native", "register")} <= ours
