"""SP-WAKEUP, the sleep/wake hand-shake, in every interleaving under store buffering: no wake-up is lost; and
each mutant that lacks a fence or the second look loses one. Stress tests do not show that.

The programs are native/owner.c's `need_wakeup` and `wake_up` against doorbell.h's `ring_if_asleep`, and
native/wait.h's `sio_wait_slow` against `sio_wake_client`, without their time-outs.
"""

from __future__ import annotations

import pytest

from tests.native.explorer import Failure, Program, changed, explore

ROUNDS = 2

# ---- the owner sleeps in epoll: doorbell ----

RING = [
    ("load", "need_wakeup", "need_wakeup"),
    ("if", "need_wakeup", 0, "awake"),
    ("xchg", "doorbell", 1),
    ("label", "awake"),
]


def client(publish: Program) -> Program:
    """Publishes `ROUNDS` requests, each once the last one is answered, and rings when the owner sleeps."""
    steps: list[tuple[object, ...]] = []
    for n in range(ROUNDS):
        steps += [
            step if step[0] not in ("if", "label") else (*step[:-1], f"{step[-1]}{n}")
            for step in [*publish, *RING]
        ]
        steps += [("label", f"wait{n}"), ("load", "reply", "request"), ("if", "reply", 1, f"wait{n}")]
    return steps


SYNCHRONOUS = client([("xchg", "request", 1)])
POSTED = client([("store", "request", 1)])  # no fence of its own: the owner's membarrier supplies it
POSTED_FENCED = client([("store", "request", 1), ("fence",)])

ANNOUNCE = ("xchg", "need_wakeup", 1)
SECOND_LOOK = ("load", "again", "request")

OWNER: Program = [
    ("set", "served", 0),
    ("label", "scan"),
    ("load", "found", "request"),
    ("if", "found", 1, "serve"),
    ANNOUNCE,
    SECOND_LOOK,
    ("if", "again", 1, "up"),
    ("take", "doorbell"),
    ("label", "up"),
    ("store", "need_wakeup", 0),
    ("goto", "scan"),
    ("label", "serve"),
    ("xchg", "request", 0),
    ("add", "served", 1),
    ("ifnot", "served", ROUNDS, "scan"),
]
OWNER_MEMBARRIER = changed(OWNER, ANNOUNCE, [ANNOUNCE, ("membarrier",)])
DOORBELL = {"request": 0, "need_wakeup": 0, "doorbell": 0}


@pytest.mark.parametrize(
    "programs",
    [(SYNCHRONOUS, OWNER), (POSTED, OWNER_MEMBARRIER), (POSTED_FENCED, OWNER)],
    ids=["synchronous", "posted-membarrier", "posted-fence"],
)
def test_an_owner_never_sleeps_over_a_request(programs: tuple[Program, Program]) -> None:
    assert explore(programs, DOORBELL) > 100


@pytest.mark.parametrize(
    "programs",
    [
        (client([("store", "request", 1)]), OWNER),
        (SYNCHRONOUS, changed(OWNER, ANNOUNCE, [("store", "need_wakeup", 1)])),
        (POSTED_FENCED, changed(OWNER, ANNOUNCE, [("store", "need_wakeup", 1)])),
        (SYNCHRONOUS, changed(OWNER, SECOND_LOOK, [("set", "again", 0)])),
        (POSTED, changed(OWNER_MEMBARRIER, SECOND_LOOK, [("set", "again", 0)])),
        (POSTED, changed(OWNER_MEMBARRIER, ANNOUNCE, [])),
    ],
    ids=[
        "client-without-fence",
        "owner-without-fence",
        "owner-without-fence-posted",
        "no-second-look",
        "no-second-look-posted",
        "never-announced",
    ],
)
def test_an_owner_without_one_of_the_rules_sleeps_for_ever(programs: tuple[Program, Program]) -> None:
    with pytest.raises(Failure, match="stuck"):
        explore(programs, DOORBELL)


# ---- the client sleeps on its futex ----

CLIENT_ANNOUNCE = ("xchg", "need_wakeup", 1)
CLIENT_LOOK = ("load", "now", "reply")
REPLY = ("xchg", "reply", 1)

SLEEPER: Program = [
    ("label", "again"),
    CLIENT_ANNOUNCE,
    CLIENT_LOOK,
    ("if", "now", 1, "end"),
    ("wait", "need_wakeup", 1),
    ("load", "now", "reply"),
    ("if", "now", 0, "again"),
    ("label", "end"),
    ("store", "need_wakeup", 0),
]
WAKER: Program = [
    REPLY,
    ("load", "asleep", "need_wakeup"),
    ("if", "asleep", 0, "end"),
    ("cas", "swapped", "need_wakeup", 1, 0),
    ("if", "swapped", 0, "end"),
    ("wake", "need_wakeup"),
    ("label", "end"),
]
CREDITOR = changed(WAKER, REPLY, [("store", "reply", 1)])  # returns credits without a fence of its own
CREDITED = changed(SLEEPER, CLIENT_ANNOUNCE, [CLIENT_ANNOUNCE, ("membarrier",)])
FUTEX = {"reply": 0, "need_wakeup": 0}


@pytest.mark.parametrize("programs", [(SLEEPER, WAKER), (CREDITED, CREDITOR)], ids=["reply", "credit"])
def test_a_client_never_sleeps_over_its_answer(programs: tuple[Program, Program]) -> None:
    assert explore(programs, FUTEX) > 20


@pytest.mark.parametrize(
    "programs",
    [
        (SLEEPER, CREDITOR),
        (changed(SLEEPER, CLIENT_ANNOUNCE, [("store", "need_wakeup", 1)]), WAKER),
        (changed(SLEEPER, CLIENT_LOOK, [("set", "now", 0)]), WAKER),
        (SLEEPER, changed(WAKER, ("wake", "need_wakeup"), [])),
    ],
    ids=["owner-without-fence", "client-without-fence", "no-second-look", "no-wake"],
)
def test_a_client_without_one_of_the_rules_sleeps_for_ever(programs: tuple[Program, Program]) -> None:
    with pytest.raises(Failure, match="stuck"):
        explore(programs, FUTEX)
