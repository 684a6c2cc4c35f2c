"""Finding another Python, and the session with it, in both kinds of sharing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from shardio.bench.errors import BenchError
from shardio.bench.peers.free_threaded import FreeThreaded
from shardio.bench.peers.interpreter import VARIABLE, Interpreter, find, probed
from shardio.bench.peers.measure import check
from shardio.bench.peers.pipe import BesideIdle
from shardio.bench.peers.subinterpreters import Subinterpreters

OURS = Interpreter(sys.executable, "cpython", (3, 11, 0), gil=True)


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_threads_that_share_an_io_manager_serve_the_device_under_any_python() -> None:
    session = FreeThreaded(max(os.sched_getaffinity(0)), OURS)
    try:
        check(session)
        times = session.calls(50, lambda: 0)
    finally:
        session.close()

    assert len(times) == 50
    assert min(times) > 0


def test_an_interpreter_that_ends_is_named() -> None:
    session = FreeThreaded(max(os.sched_getaffinity(0)), OURS)
    try:
        session.process.kill()
        session.process.wait()
        with pytest.raises(BenchError, match="other interpreter ended"):
            session.call(0, 0, 4, 0)
    finally:
        session.close()


def test_a_subinterpreter_that_fails_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    if Subinterpreters.missing():
        pytest.skip(Subinterpreters.missing())
    begin = BesideIdle.__init__
    monkeypatch.setattr(BesideIdle, "__init__", lambda self, _: begin(self, max(os.sched_getaffinity(0))))
    session = Subinterpreters(1 << 20)  # there is no such CPU
    try:
        with pytest.raises(BenchError, match="other interpreter ended"):
            session.call(0, 0, 4, 0)
    finally:
        session.close()


def test_what_is_no_python_is_refused_with_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))

    with pytest.raises(BenchError, match=r"none is no Python.*--python"):
        find(lambda _: True)


def test_the_variable_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = program(tmp_path / "python-x", """echo '["cpython", [3, 99, 1], false]'""")
    monkeypatch.setenv(VARIABLE, python)

    found = find(FreeThreaded.fits)

    assert found == Interpreter(python, "cpython", (3, 99, 1), gil=False)
    assert found.title == "cpython 3.99.1, free-threaded"


def test_one_that_does_not_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "python3.13t", "exit 127")
    good = program(tmp_path / "python3.13", """echo '["cpython", [3, 13, 7], false]'""")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find(lambda each: each.version == (3, 13, 7)) == probed(good)


def test_none_that_fits_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeThreaded, "fits", lambda _: False)

    assert FreeThreaded.missing() == "no free-threaded Python (3.13t or later) was found"
    assert "--python" in FreeThreaded.hint


@pytest.mark.parametrize(
    ("version", "implementation", "fits"),
    [((3, 11, 9), "cpython", False), ((3, 12, 0), "cpython", True), ((3, 12, 0), "pypy", False)],
)
def test_a_gil_for_each_subinterpreter_needs_3_12(
    version: tuple[int, int, int], implementation: str, fits: bool
) -> None:
    assert Subinterpreters.fits(Interpreter("x", implementation, version, gil=True)) is fits
