"""Every peer that is installed serves the device, answers pings, and leaves nothing behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardio.bench.errors import BenchError
from shardio.bench.peers import PEERS
from shardio.bench.peers.iceoryx import Iceoryx
from shardio.bench.peers.measure import check
from shardio.bench.peers.peer import READ, WRITE, Session
from shardio.bench.peers.pipe import Pipe


@pytest.fixture(params=PEERS, ids=lambda peer: peer.name)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    peer: type[Session] = request.param
    reason = peer.missing()
    if reason:
        pytest.skip(reason)
    opened = peer(max(os.sched_getaffinity(0)))
    yield opened
    opened.close()


def test_it_serves_a_device(session: Session) -> None:
    check(session)

    session.call(WRITE, 0, 4, 77)

    assert session.call(READ, 0, 4, 0) == 77


def test_a_package_that_is_not_installed_is_the_reason() -> None:
    class Absent(Pipe):
        name, title, package = "absent", "absent", "no_such_package_anywhere"

    assert Absent.missing() == "no_such_package_anywhere is not installed"


def test_each_peer_has_a_file_of_its_own_of_less_than_60_lines() -> None:
    files = {Path(__import__(peer.__module__, fromlist=["x"]).__file__) for peer in PEERS}

    assert len(files) == len(PEERS) - 1, "shardio's two clients share one"
    assert {path.name: lines for path in files if (lines := len(path.read_text().splitlines())) >= 60} == {}


def test_iceoryx2_leaves_no_name_and_no_file() -> None:
    peer = Iceoryx
    if peer.missing():
        pytest.skip(peer.missing())
    before = set(os.listdir("/dev/shm"))

    opened = peer(max(os.sched_getaffinity(0)))
    ours = sorted(name for name in os.listdir("/dev/shm") if name.startswith(f"shardio-bench-{os.getpid()}-"))
    opened.close()

    assert ours, "the session's names are its own"
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("iox2_")}
    assert not {name for name in os.listdir("/dev/shm") if name in ours}
    assert not list(Path(tempfile.gettempdir()).glob(f"shardio-bench-{os.getpid()}-*"))


def test_a_server_that_does_not_start_is_told_of() -> None:
    with pytest.raises(BenchError, match=r"the server of multiprocessing\.Pipe does not start"):
        Pipe(1 << 20)  # there is no such CPU
