"""Who has the terminal: shards whose devices are at breakpoint()."""

from __future__ import annotations

from typing import Any

from shardio.supervisor.prompts import Prompts


class Lender:
    """A terminal, descriptor 5; what it was asked."""

    def __init__(self, fd: int | None = 5) -> None:
        self.fd = fd
        self.calls: list[str] = []

    def lend(self, where: str) -> int | None:
        self.calls.append(where)
        return self.fd

    def take_back(self) -> None:
        self.calls.append("back")


class FakeShard:
    """A shard by name; what it was lent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lent: list[int | None] = []

    def lend_terminal(self, fd: int | None) -> None:
        self.lent.append(fd)


def shards() -> tuple[Any, Any]:
    return FakeShard("a"), FakeShard("b")


def test_one_shard_at_a_time_has_it_and_both_wait_for_their_user() -> None:
    lender, (a, b) = Lender(), shards()
    prompts = Prompts(lender)
    prompts.asked(a, "here")
    prompts.asked(b, "there")
    assert (a.lent, b.lent) == ([5], [])
    assert prompts.holds(a)
    assert prompts.holds(b)
    prompts.returned(a)
    assert (prompts.holds(a), b.lent) == (False, [5])
    prompts.returned(b)
    assert lender.calls == ["a: here", "back", "b: there", "back"]
    assert not prompts.holds(b)


def test_a_shard_that_dies_leaves_it_to_the_next_or_the_queue() -> None:
    lender, (a, b) = Lender(), shards()
    prompts = Prompts(lender)
    prompts.asked(a, "here")
    prompts.asked(b, "there")
    prompts.returned(b)  # dies while it waits
    prompts.returned(a)
    assert (b.lent, prompts.holds(b)) == ([], False)
    assert lender.calls == ["a: here", "back"]


def test_asking_twice_or_returning_what_was_not_lent_changes_nothing() -> None:
    lender, (a, b) = Lender(), shards()
    prompts = Prompts(lender)
    prompts.returned(a)
    prompts.asked(a, "here")
    prompts.asked(a, "here again")
    prompts.returned(b)
    assert (a.lent, lender.calls) == ([5], ["a: here"])


def test_without_a_terminal_each_hears_so_and_may_be_blamed() -> None:
    (a, b) = shards()
    nobody, none = Prompts(), Prompts(Lender(None))
    nobody.asked(a, "here")
    none.asked(b, "here")
    assert (a.lent, b.lent) == ([None], [None])
    assert not nobody.holds(a)
    assert not none.holds(b)
