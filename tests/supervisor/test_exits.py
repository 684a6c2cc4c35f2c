"""What becomes of exits that no worker serves, without a guest: repairs first, then the hook."""

from __future__ import annotations

import queue
from types import SimpleNamespace
from typing import Any

import pytest

from shardio._core import lib
from shardio.errors import ExitHookFailed
from shardio.supervisor.events import HookFailed
from shardio.supervisor.exits import UnservedExits

PATIENCE_S = 30.0


class StandsStill:
    """A vCPU that asks about an exit until it gets an answer."""

    def __init__(self, *repairs: str) -> None:
        self.index = 0
        self.asked = True
        self.inspected = False
        self.exit = "KVM_EXIT_HLT"
        self.values = {"rip": 0x1000}
        self.registers = SimpleNamespace(all=lambda: dict(self.values))
        self.repairs = list(repairs)
        self.answers: queue.Queue[int] = queue.Queue()

    def repair(self) -> str | None:
        return self.repairs.pop() if self.repairs else None

    def answer(self, verdict: int) -> None:
        self.answers.put(verdict)


@pytest.fixture
def exits() -> Any:
    made = UnservedExits()
    yield made
    made.close()


def answer_to(exits: UnservedExits, vcpu: StandsStill) -> int:
    exits.look(vcpu)  # type: ignore[arg-type]
    return vcpu.answers.get(timeout=PATIENCE_S)


def test_without_a_hook_an_exit_ends_its_vcpu(exits: UnservedExits) -> None:
    assert answer_to(exits, StandsStill()) == lib.SIO_GIVE_UP


def test_a_repair_comes_before_the_hook(exits: UnservedExits) -> None:
    exits.hook = lambda *_: "end"
    assert answer_to(exits, StandsStill("FWAIT")) == lib.SIO_GO_ON


def test_each_repair_is_logged_once(exits: UnservedExits, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="shardio.supervisor")
    vcpu = StandsStill("FWAIT", "INT3", "FWAIT")
    answers = [answer_to(exits, vcpu) for _ in range(3)]
    told = [record.getMessage() for record in caplog.records]
    assert answers == [lib.SIO_GO_ON] * 3
    assert [text.split()[5] for text in told] == ["FWAIT", "INT3"]


def test_an_exit_that_is_resumed_where_it_was_is_a_retry_which_is_bounded(exits: UnservedExits) -> None:
    exits.hook = lambda *_: "resume"
    vcpu = StandsStill()
    answers = [answer_to(exits, vcpu) for _ in range(3)]
    vcpu.values["rip"] += 1
    moved = answer_to(exits, vcpu)
    assert answers == [lib.SIO_GO_ON, lib.SIO_TRY_AGAIN, lib.SIO_TRY_AGAIN]
    assert moved == lib.SIO_GO_ON


def test_a_vcpu_that_asks_nothing_gets_no_answer(exits: UnservedExits) -> None:
    vcpu = StandsStill()
    vcpu.asked = False
    exits.look(vcpu)  # type: ignore[arg-type]
    assert vcpu.answers.empty()


def test_a_vcpu_that_was_only_looked_at_goes_on_without_the_hook(exits: UnservedExits) -> None:
    exits.hook = lambda *_: "end"
    vcpu = StandsStill()
    vcpu.inspected = True
    assert answer_to(exits, vcpu) == lib.SIO_GO_ON


def test_a_failed_hook_is_told_before_the_vcpu_ends(exits: UnservedExits) -> None:
    told: list[tuple[object, bool]] = []
    vcpu = StandsStill()
    exits.on_event = lambda event: told.append((event, vcpu.answers.empty()))

    def hook(*_: Any) -> str:
        raise KeyError("register")

    exits.hook = hook
    assert answer_to(exits, vcpu) == lib.SIO_GIVE_UP
    ((event, before),) = told
    assert isinstance(event, HookFailed)
    assert before
    assert isinstance(exits.failure, ExitHookFailed)
    assert isinstance(exits.failure.__cause__, KeyError)
