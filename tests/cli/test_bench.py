"""`shardio bench` as a user types it: tiny runs of every suite, what they keep, their exit status."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from shardio.bench import start_up, suites
from shardio.bench.results import Figure, Percentiles, Point, Run, Unit, load, save
from shardio.cli import main
from tests.bench.support import start_what_multiprocessing_keeps
from tests.bench.test_results import FIGURE, HOST

PATIENCE_S = 20.0
TINY = ("--rounds", "1", "--time", "0.001")
TWO_CPUS = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU: nothing can be paired")
SOME = Percentiles(100.0, 200.0, 300.0)
RUN = Run(
    host=HOST,
    rows=[FIGURE],
    scaling=[Point(1, 1, shards, 0, 1e6, 0.1, SOME, False) for shards in (0, 1)],
    costs=[Figure("start", "a machine starts", Unit.MILLISECONDS, 200.0, [200.0])],
)


def kept(path: Path, run: Run) -> str:
    save(run, path)
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def what_libraries_keep() -> None:
    start_what_multiprocessing_keeps()


def bench(*words: str) -> int:
    return main(["bench", *words])


@TWO_CPUS
@pytest.mark.kvm
def test_quick_fills_the_table_and_its_status_is_the_gates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardio.cli.bench.WIDTH", 250)  # no title is folded, however wide the figures are
    status = bench("quick", *TINY, "--json", str(tmp_path / "run.json"))

    run, printed = load(tmp_path / "run.json"), capsys.readouterr()
    assert run.skipped == {}
    assert run.rows[0].name == "native"
    names = {row.name for row in run.rows}
    assert {"python", "posted", "routing", "trace-off", "traced", "scraped", "kvm", "soft"} <= names
    assert [row.title for row in run.rows if row.title not in printed.out] == []
    assert "pinned to CPUs" in printed.err
    assert status == any(row.verdict == "missed" for row in run.rows)


@TWO_CPUS
@pytest.mark.kvm
def test_kvm_measures_every_guest(tmp_path: Path) -> None:
    status = bench("kvm", *TINY, "--json", str(tmp_path / "run.json"))

    run = load(tmp_path / "run.json")
    assert status == 0
    names = {"kvm-pio-in-register", "kvm-mmio-write-native", "kvm-rep-outsb-register",
             "kvm-2-vcpus", "kvm-doorbell"}
    assert names <= {row.name for row in run.kvm}
    assert {name.partition(",")[0] for name in run.skipped} <= {"QEMU"}


@TWO_CPUS
@pytest.mark.kvm
def test_scaling_gives_every_point_and_the_single_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_up, "MANY", 100)
    monkeypatch.setattr(start_up, "TIMES", 1)
    grid = ("--devices", "1,3", "--vcpus", "1,2", "--shards", "1,2", "--handler", "0,500ns")

    status = bench("scaling", *TINY, *grid, "--json", str(tmp_path / "run.json"))

    run = load(tmp_path / "run.json")
    assert status == 0
    assert {(p.devices, p.vcpus, p.shards, p.handler_ns) for p in run.scaling} == {
        (devices, vcpus, shards, ns)
        for devices in (1, 3)
        for vcpus in (1, 2)
        for shards in (0, 1, 2)
        for ns in (0, 500)
    }
    assert "GIL" in capsys.readouterr().out


@TWO_CPUS
def test_peers_measures_those_that_are_asked_for(tmp_path: Path) -> None:
    status = bench("peers", *TINY, "--only", "pipe, shardio", "--json", str(tmp_path / "run.json"))

    assert status == 0
    assert [row.name for row in load(tmp_path / "run.json").peers] == ["pipe", "shardio"]


@pytest.mark.parametrize(("value", "status"), [(1.2, 0), (1.3, 1)])
def test_a_missed_gate_is_status_1(monkeypatch: pytest.MonkeyPatch, value: float, status: int) -> None:
    row = msgspec.structs.replace(FIGURE, value=value)
    step = suites.Step("native", "rows", lambda _effort: iter([row]))
    monkeypatch.setattr(suites, "plan", lambda _suite, effort, *_: suites.Plan(HOST, effort, [step]))

    assert bench("quick") == status


@TWO_CPUS
def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    grid = ("--devices", "1", "--vcpus", "1", "--shards", "1", "--handler", ",".join(["0"] * 50))
    with subprocess.Popen(
        [sys.executable, "-m", "shardio", "bench", "scaling", *TINY, *grid, "--json", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FORCE_COLOR": "1"},  # the progress is drawn into a pipe too
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        seen = b""
        while not re.search(rb"[1-9]%", seen) and select.select([process.stderr], [], [], PATIENCE_S)[0]:
            seen += os.read(process.stderr.fileno(), 4096)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)

    run = load(file)
    assert b"Traceback" not in seen + err
    assert process.returncode == 130
    assert b"interrupted: what was complete is above" in out
    assert run.interrupted
    assert 0 < len(run.scaling) < 100


@pytest.fixture
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object) -> Run:
        raise AssertionError("measured before what was asked for was checked")

    monkeypatch.setattr(suites.Plan, "run", run)


def test_report_shows_kept_runs_in_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_measuring: None
) -> None:
    pytest.importorskip("matplotlib")
    rows = kept(tmp_path / "rows.json", Run(host=HOST, rows=[FIGURE]))
    scaling = kept(tmp_path / "scaling.json", msgspec.structs.replace(RUN, rows=[]))
    page = tmp_path / "report.html"

    status = bench("report", "--from", rows, "--from", scaling, "--output", str(page))

    assert status == 0
    assert "<h2>The data path" in page.read_text()
    assert "<h2>Scaling" in page.read_text()
    assert f"report: {page}" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "verdict"), [(1.0, "within noise"), (1.5, "slower"), (0.5, "faster")])
def test_compare_gives_a_verdict_beyond_the_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: float, verdict: str
) -> None:
    first = Figure("native", "native", Unit.FLOOR, 1.0, [0.99, 1.0, 1.01])
    second = msgspec.structs.replace(first, value=change, rounds=[r * change for r in first.rounds])
    runs = [Run(host=HOST, rows=[figure]) for figure in (first, second)]

    status = bench("compare", *(kept(tmp_path / f"{i}.json", run) for i, run in enumerate(runs)))

    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("native"))
    assert status == 0
    assert line.endswith(verdict)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ["SUITE"]),
        (["qick"], ["qick", "quick"]),
        (["quick", "--rouds", "3"], ["--rouds", 'did you mean "--rounds"?']),
        (["quick", "--rounds", "0"], ["'0' is no whole number above 0"]),
        (["quick", "--time", "nan"], ["'nan' is no number of seconds above 0", "0.8"]),
        (["quick", "--json", "/nowhere/x.json"], ["/nowhere/x.json cannot be written", "folder"]),
        (["quick", "--json", "/"], ["/ cannot be written"]),
        (["scaling", "--vcpus", "1,0"], ["'1,0' is no list of numbers above 0", "1,2,4"]),
        (["scaling", "--handler", "3"], ["'3' is no list of times", "0,1us,250ns"]),
        (["scaling", "--handler=-1us"], ["'-1us' is no list of times"]),
        (["peers", "--only", "carrier-pigeon"], ["carrier-pigeon", "shardio, shardio-python"]),
        (["peers", "--python", "/nowhere/python"], ["/nowhere/python is no Python", "--python"]),
        (["report", "--from", "none.json"], ["none.json", "No such file"]),
        (["report", "--output", "/nowhere/r.html"], ["/nowhere/r.html cannot be written"]),
        (["report", "--validate", "none.json"], ["none.json", "No such file"]),
        (["compare", "none.json", "none.json"], ["none.json", "No such file"]),
    ],
)
def test_mistake_is_one_line_before_anything_is_measured(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str], no_measuring: None
) -> None:
    status = bench(*words)

    printed = capsys.readouterr()
    assert (status, printed.out) == (2, "")
    assert printed.err.startswith("shardio: error: ")
    assert printed.err.count("\n") == 1
    assert [part for part in parts if part not in printed.err] == []


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = kept(tmp_path / "rows.json", Run(host=HOST, rows=[FIGURE]))
    nothing = kept(tmp_path / "nothing.json", Run(host=HOST))

    status = bench("compare", rows, nothing)

    assert status == 2
    assert "no figure in common (compare runs of the same suite)" in capsys.readouterr().err


def test_a_file_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps([1, 2]))

    status = bench("compare", str(other), str(other))

    assert status == 2
    assert "other.json is no benchmark run" in capsys.readouterr().err


@pytest.mark.parametrize("suite", ["quick", "scaling", "peers", "kvm", "report", "compare"])
def test_every_suite_explains_each_of_its_options(suite: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(suite, "--help") == 0

    lines = capsys.readouterr().out.splitlines()
    bare = [
        line
        for number, line in enumerate(lines)
        if line.startswith("  -") and "  " not in line.strip() and not lines[number + 1].startswith("     ")
    ]
    assert bare == []
