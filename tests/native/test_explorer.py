"""The explorer knows what x86 does and what it does not: the classic litmus tests."""

from __future__ import annotations

import pytest

from tests.native.explorer import Failure, Program, changed, explore


def store_buffering(middle: Program) -> list[Program]:
    """Each stores to its own variable, then looks at the other's; a third thread finds both zeros."""
    return [
        [("store", "x", 1), *middle, ("load", "r", "y"), ("xchg", "rx", lambda own: own["r"])],
        [("store", "y", 1), *middle, ("load", "r", "x"), ("xchg", "ry", lambda own: own["r"])],
        [
            ("load", "a", "rx"),
            ("load", "b", "ry"),
            ("if", "a", 1, "end"),
            ("if", "a", 2, "end"),
            ("check", "b", lambda own: own["b"] or 1),
            ("label", "end"),
        ],
    ]


BUFFERING = {"x": 0, "y": 0, "rx": 2, "ry": 2}


def test_a_load_passes_an_earlier_store() -> None:
    with pytest.raises(Failure):
        explore(store_buffering([]), BUFFERING)


def test_a_fence_keeps_a_load_behind_the_store() -> None:
    assert explore(store_buffering([("fence",)]), BUFFERING) > 10


def test_stores_are_seen_in_their_order() -> None:
    reader: Program = [
        ("load", "b", "flag"),
        ("if", "b", 0, "end"),
        ("load", "a", "data"),
        ("check", "a", 1),
        ("label", "end"),
    ]

    assert explore([[("store", "data", 1), ("store", "flag", 1)], reader], {"data": 0, "flag": 0}) > 5


def test_a_thread_that_nobody_wakes_is_found() -> None:
    with pytest.raises(Failure, match="stuck"):
        explore([[("wait", "futex", 0)], [("store", "other", 1)]], {"futex": 0, "other": 0})


def test_a_mutant_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the program"):
        changed([("fence",)], ("membarrier",), [])
