"""shardio.cli.doctor and its checks: what they find on a host that lacks something."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from shardio.cli import checks, main
from shardio.cli.checks import CHECKS, Finding, State
from shardio.cli.doctor import Report, report


def findings(*states: State) -> list[Finding]:
    return [Finding("check", state, "detail") for state in states]


@pytest.mark.parametrize(
    ("states", "status", "exit_status"),
    [
        ([], State.OK, 0),
        ([State.OK, State.NOTE], State.OK, 0),
        ([State.OK, State.DEGRADED, State.NOTE], State.DEGRADED, 1),
        ([State.UNUSABLE, State.DEGRADED], State.UNUSABLE, 2),
    ],
)
def test_worst_finding_decides(states: list[State], status: State, exit_status: int) -> None:
    found = report(findings(*states))

    assert (found.status, found.exit_status) == (status, exit_status)


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_names_itself_and_a_hint_for_what_is_wrong(
    check: Callable[[], Finding | tuple[Finding, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CHECKS", (check,))

    for finding in checks.findings():
        assert finding.name
        assert finding.detail
        assert bool(finding.hint) == (finding.state is not State.OK)


def found(name: str, state: State) -> Callable[[], Finding]:
    return lambda: Finding(name, state, "detail", "hint")


@pytest.mark.parametrize(
    ("kvm", "software", "told", "exit_status"),
    [
        (State.OK, State.OK, (State.OK, State.OK), 0),
        (State.OK, State.UNUSABLE, (State.OK, State.NOTE), 0),
        (State.UNUSABLE, State.OK, (State.DEGRADED, State.OK), 1),
        (State.UNUSABLE, State.UNUSABLE, (State.UNUSABLE, State.UNUSABLE), 2),
    ],
)
def test_a_host_is_unusable_only_without_both_cpus(
    kvm: State, software: State, told: tuple[State, State], exit_status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "kvm", found("KVM", kvm))
    monkeypatch.setattr(checks, "software_cpu", found("software CPU", software))

    outcome = checks.vcpus()

    assert tuple(finding.state for finding in outcome) == told
    assert report(outcome).exit_status == exit_status


def test_a_missing_software_cpu_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardio.soft.library.find_spec", lambda name: None)

    finding = checks.software_cpu()

    assert finding.state is State.UNUSABLE
    assert finding.hint.startswith("pip install 'shardio[soft]'")


def test_a_library_that_is_no_unicorn_is_not_the_software_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libunicorn.so").write_bytes(b"no library")
    monkeypatch.setattr("shardio.soft.library.library", lambda: tmp_path / "libunicorn.so")

    finding = checks.software_cpu()

    assert finding.state is State.UNUSABLE
    assert "cannot be loaded" in finding.detail


def test_memory_that_cannot_be_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(fd: int, command: int, seals: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(checks.fcntl, "fcntl", refused)

    finding = checks.shared_memory()

    assert finding.state is State.UNUSABLE
    assert "F_ADD_SEALS" in finding.hint


def test_json_is_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])

    found = msgspec.json.decode(capsys.readouterr().out, type=Report)
    assert found.exit_status == status
    assert [finding.name for finding in found.checks][:3] == ["core", "KVM", "software CPU"]


def test_text_has_a_line_for_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])

    assert len(capsys.readouterr().out.splitlines()) > len(CHECKS)


def test_refused_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, flags: int) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", refused)

    finding = checks.shared_memory()

    assert finding.state is State.UNUSABLE
    assert "memfd_create" in finding.hint


def test_one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})

    assert checks.cpus().state is State.DEGRADED


@pytest.mark.parametrize(
    ("text", "state"),
    [("max 100000", State.OK), ("1000 100000", State.DEGRADED), ("9000000 1000", State.OK), ("", State.OK)],
)
def test_cpu_quota(tmp_path: Path, text: str, state: State) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)

    assert checks.cpu_quota(str(file)).state is state


@pytest.mark.parametrize(("limits", "hint"), [((64, 4096), "ulimit -n"), ((64, 64), "limits.conf")])
def test_few_file_descriptors(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], hint: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)

    finding = checks.file_descriptors()

    assert (finding.state, hint in finding.hint) == (State.DEGRADED, True)


@pytest.mark.parametrize(
    ("release", "state"),
    [("5.2.0", State.UNUSABLE), ("4.19.0-25", State.UNUSABLE), ("5.3", State.OK), ("6.1.0-rc3", State.OK)],
)
def test_kernel_version(release: str, state: State) -> None:
    assert checks.kernel(release).state is state


def test_missing_tools_name_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.shutil, "which", lambda tool: None)

    assert checks.toolchain().hint == "apt-get install binutils gcc"


def test_unknown_machine_has_no_membarrier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.platform, "machine", lambda: "pdp11")

    assert checks.membarrier().state is State.DEGRADED
