"""What is logged of accesses that nobody answers: what is new, at a limited rate."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from shardio.supervisor.context import Context
from shardio.supervisor.unclaimed import UnclaimedLog
from tests.fabric.support import bench


def test_each_is_told_of_once_and_of_every_kind(caplog: pytest.LogCaptureFixture) -> None:
    with bench() as b, caplog.at_level(logging.INFO):
        context = Context(b.fabric, b.map, lambda *_: None)
        context.vcpus.append(SimpleNamespace(index=0))  # type: ignore[arg-type]
        told, control = UnclaimedLog(context), b.fabric.view.vcpu[0]
        control.unclaimed_reads, control.unclaimed_writes, control.crossing = 1, 2, 4
        for now in (10.0, 10.5, 12.0):
            told.look(now)
        control.unclaimed_reads = 9
        for now in (12.5, 14.0):
            told.look(now)
        context.selector.close()

    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [7, 8]
