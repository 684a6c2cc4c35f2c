"""Instructions of an access, counted: more for what does more, the same every time."""

from __future__ import annotations

import platform

import pytest

from shardio.bench import steps
from shardio.bench.steps import beyond, instructions

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has the trap flag")


def test_a_python_handler_takes_more_than_a_native_one_and_the_client_the_same() -> None:
    native, python = instructions("native"), instructions("register")

    assert native is not None
    assert python is not None
    assert 20 < native[0] < 1000
    assert 20 < native[1] < python[1]
    assert python[0] == pytest.approx(native[0], rel=0.5)


def test_a_posted_write_takes_the_client_less_than_a_round_trip() -> None:
    posted, waited = instructions("native", posted=True), instructions("native")

    assert posted is not None
    assert waited is not None
    assert 5 < posted[0] < waited[0]
    assert beyond("native", posted=True) == pytest.approx(sum(posted), rel=0.2)


def test_the_first_accesses_which_a_client_times_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = steps._client.__wrapped__(False)

    monkeypatch.setattr(steps, "WARM_UP", 2 * steps.WARM_UP)

    assert steps._client.__wrapped__(False) == pytest.approx(counted, rel=0.1)
