"""Threads that the host refuses."""

from __future__ import annotations

import threading

import pytest

from shardio import HostError
from shardio.fabric import Fabric
from shardio.routing import AddressMap
from shardio.supervisor import Supervisor
from shardio.supervisor.failover import Policy
from shardio.threads import start


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host at its limit on processes."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)


@pytest.mark.usefixtures("no_threads")
def test_a_refused_thread_is_an_error_of_the_host() -> None:
    with pytest.raises(HostError, match=r"no thread 'mine': can't start new thread; .*ulimit -u, -v"):
        start(threading.Thread(name="mine"))


@pytest.mark.usefixtures("no_threads")
def test_a_supervisor_without_a_thread_leaves_no_descriptor() -> None:
    with Fabric.create(vcpus=1, shards=1) as fabric, pytest.raises(HostError):
        Supervisor(fabric, AddressMap(fabric), lambda *_: Policy.FAIL, lambda *_: None)
