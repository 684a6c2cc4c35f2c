"""The posted ring in every interleaving under store buffering: each message once, in order and whole, over
several laps with a lap number that wraps; and each mutant delivers a wrong one or stops.

The programs are native/posting.h's `post_at_once` with native/posted.h's `sio_posted_push`, against
native/drain.c's `sio_drain`. The ring has two slots, the lap number two bits, a message two words.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.native.explorer import Failure, Program, changed, explore

SLOTS = 2
LAPS = 4
MESSAGES = 6
FIRST = SLOTS * (LAPS - 2)
"""Where both cursors begin: the lap number wraps during the run."""

Registers = Mapping[str, int]


def lap(position: int) -> int:
    """The number in a slot that holds `position`: native/posted.h's `sio_posted_lap`."""
    return (position // SLOTS + 1) % LAPS


def slot(word: str, own: Registers) -> str:
    """The variable that is a word of the slot of the thread's position."""
    return f"{word}{own['position'] % SLOTS}"


def message(word: str) -> tuple[object, ...]:
    """A store of a word of the message, which is its position."""
    return ("store", lambda own: slot(word, own), lambda own: own["position"])


FULL = ("set", "room", lambda own: int(own["position"] - own["credit"] < SLOTS))
FIRST_WORD, SECOND_WORD = message("a"), message("b")
PUBLISH = ("store", lambda own: slot("lap", own), lambda own: lap(own["position"]))

PRODUCER: Program = [
    ("set", "position", FIRST),
    ("set", "credit", FIRST),
    ("label", "post"),
    FULL,
    ("if", "room", 1, "push"),
    ("load", "credit", "credit"),
    ("goto", "post"),
    ("label", "push"),
    FIRST_WORD,
    SECOND_WORD,
    PUBLISH,
    ("add", "position", 1),
    ("ifnot", "position", FIRST + MESSAGES, "post"),
]

FILLED = ("set", "there", lambda own: int(own["lap"] == lap(own["position"])))
SECOND_READ = ("load", "b", lambda own: slot("b", own))
CREDIT = ("store", "credit", lambda own: own["position"] + 1)

CONSUMER: Program = [
    ("set", "position", FIRST),
    ("label", "poll"),
    ("load", "lap", lambda own: slot("lap", own)),
    FILLED,
    ("if", "there", 0, "poll"),
    ("load", "a", lambda own: slot("a", own)),
    SECOND_READ,
    CREDIT,
    ("check", "a", lambda own: own["position"]),
    ("check", "b", lambda own: own["position"]),
    ("add", "position", 1),
    ("ifnot", "position", FIRST + MESSAGES, "poll"),
]

# The slots hold what the lap before left there.
MEMORY = {
    "credit": FIRST,
    **{f"lap{n}": lap(FIRST - SLOTS + n) for n in range(SLOTS)},
    **{f"{word}{n}": FIRST - SLOTS + n for n in range(SLOTS) for word in "ab"},
}


def test_each_message_arrives_once_in_order_and_whole() -> None:
    assert explore([PRODUCER, CONSUMER], MEMORY) > 1000


@pytest.mark.parametrize(
    ("producer", "consumer"),
    [
        (changed(PRODUCER, FULL, [("set", "room", 1)]), CONSUMER),
        (
            changed(
                PRODUCER, FULL, [("set", "room", lambda own: int(own["position"] - own["credit"] <= SLOTS))]
            ),
            CONSUMER,
        ),
        (changed(changed(PRODUCER, PUBLISH, []), FIRST_WORD, [PUBLISH, FIRST_WORD]), CONSUMER),
        (PRODUCER, changed(CONSUMER, FILLED, [("set", "there", 1)])),
        (PRODUCER, changed(CONSUMER, FILLED, [("set", "there", lambda own: int(own["lap"] != 0))])),
        (PRODUCER, changed(changed(CONSUMER, CREDIT, []), SECOND_READ, [CREDIT, SECOND_READ])),
        (PRODUCER, changed(CONSUMER, CREDIT, [])),
    ],
    ids=[
        "no-credit",
        "one-slot-too-many",
        "published-before-it-is-written",
        "lap-not-looked-at",
        "any-lap-will-do",
        "credit-before-the-copy",
        "credit-never-returned",
    ],
)
def test_a_ring_without_one_of_the_rules_fails(producer: Program, consumer: Program) -> None:
    with pytest.raises(Failure):
        explore([producer, consumer], MEMORY)
