"""What `shardio top` shows: every line fits, tables share the room, rows are sorted, chosen and scrolled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.cli.top.sample import Sample, sample
from shardio.cli.top.view import KEYS, MEANINGS, Choice, More, Style, choose, once, render, rows
from shardio.fabric.statistics import Histogram
from tests.cli.top.looks import LAST, device, shard, status, times, vcpu


def machine(devices: int = 3, vcpus: int = 2, shards: int = 2) -> Sample:
    now = status(
        1,
        tuple(vcpu({"IO": 10 * n}, unclaimed_reads=n, last_unclaimed=LAST) for n in range(vcpus)),
        tuple(device(f"dev{n}", reads=n, waits=times(ns1000=n)) for n in range(devices)),
        tuple(shard(f"shard{n}") for n in range(shards)),
    )
    return sample(status(0), now)


def texts(
    found: Sample, choice: Choice, width: int = 80, height: int = 24, more: More | None = None
) -> list[str]:
    return [line.text for line in render(found, choice, width, height, more)]


@given(
    st.integers(0, 40), st.integers(0, 70), st.integers(1, 30), st.integers(20, 200), st.integers(8, 60),
    st.sampled_from(["", "vcpus", "devices", "shards"]), st.sampled_from(["", "help", "screen"]),
)  # fmt: skip
def test_it_fits_the_terminal(
    devices: int, vcpus: int, shards: int, width: int, height: int, table: str, page: str
) -> None:
    more = More(("x" * 300,) * 100)

    lines = texts(machine(devices, vcpus, shards), Choice(table=table, page=page), width, height, more)

    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_all_tables_are_there_and_the_last_line_tells_the_keys() -> None:
    lines = texts(machine(), Choice())

    assert lines[0] == "shardio top - lamp (pid 17)  running  over 1.0 s"
    assert lines[1].startswith("2 vCPUs 10 exits/s   3 devices 3 accesses/s 0 irq/s   2 shards")
    names = ("dev0", "dev1", "dev2", "shard1")
    assert [name for name in names if not any(name in row for row in lines)] == []
    assert "(unclaimed: 1 /s, 1 in all; the last: read of 1 byte at pio 0x80)" in lines
    assert lines[-1].startswith("q quit  h help")


def test_what_there_is_no_room_for_is_told() -> None:
    lines = texts(machine(devices=100), Choice())

    assert any(line.startswith("... ") and line.endswith("more: press 2") for line in lines)


def test_the_busiest_come_first_and_turned_last() -> None:
    found = machine()
    choice = Choice(table="devices")
    first = [row.name for row in rows(found, choice)]
    choice.turned = True

    assert first == ["dev2", "dev1", "dev0"]
    assert [row.name for row in rows(found, choice)] == ["dev0", "dev1", "dev2"]


def test_the_column_that_is_sorted_by_is_in_capitals() -> None:
    choice = Choice(table="devices", columns={"devices": 0})

    assert "DEVICE" in texts(machine(), choice)[3]
    assert [row.name for row in rows(machine(), choice)] == ["dev0", "dev1", "dev2"]


def test_a_choice_walks_along_the_rows_and_stays_within() -> None:
    found, choice = machine(), Choice(table="devices")
    chosen = []
    for step in (1, 1, 1, 1, -1):
        choose(found, choice, step)
        chosen.append(choice.row)

    assert chosen == ["dev2", "dev1", "dev0", "dev0", "dev1"]


def test_the_chosen_row_is_scrolled_into_view() -> None:
    found = machine(devices=50)
    choice = Choice(table="devices", row="dev0")

    (chosen,) = [line for line in render(found, choice, 80, 24) if line.style is Style.CHOSEN]

    assert chosen.text.startswith("dev0 ")


def test_a_vcpu_in_full() -> None:
    choice = Choice(table="vcpus", page="row", row=1)

    lines = texts(machine(), choice, more=More(("rax=1",)))

    assert "exits /s: IO 10" in lines
    assert "unclaimed 1   past a range's end 0" in lines
    assert "the last unclaimed: read of 1 byte at pio 0x80" in lines
    assert "rax=1" in lines


def test_a_device_in_full_has_bars() -> None:
    choice = Choice(table="devices", page="row", row="dev2")

    lines = texts(machine(), choice, more=More((), times(ns1000=30), times(ns300=10, ns1000=20)))

    at = next(n for n, line in enumerate(lines) if line.startswith("waits: 30 timed"))
    assert "service: 30 timed" in lines[at]
    assert lines[at + 1].split() == ["512ns", "30", "#" * 24, "256ns", "10", "#" * 12]
    assert lines[at + 2].split() == ["512ns", "20", "#" * 24]


def test_a_device_without_times_has_no_bars() -> None:
    choice = Choice(table="devices", page="row", row="dev0")

    lines = texts(machine(), choice, more=More((), Histogram(), Histogram()))

    at = next(n for n, line in enumerate(lines) if line.startswith("waits: 0 timed"))
    assert "service: 0 timed" in lines[at]
    assert lines[at + 1] == ""


@pytest.mark.parametrize("table", ["vcpus", "devices", "shards"])
def test_a_row_that_is_gone_is_told(table: str) -> None:
    assert "it is gone" in texts(machine(), Choice(table=table, page="row", row="nobody"))


def test_a_shard_in_full() -> None:
    choice = Choice(table="shards", page="row", row="shard1")

    assert "lost wake-ups 0   malformed requests 0" in texts(machine(), choice)


def test_the_help_fits_80_columns_by_24_lines() -> None:
    lines = texts(machine(), Choice(page="help"))

    assert [key for key, text in KEYS if not any(line.endswith(text) for line in lines)] == []
    assert [text for text in MEANINGS if text not in lines] == []


def test_a_screen_that_is_higher_than_the_terminal_ends_with_its_last_row() -> None:
    lines = texts(machine(), Choice(page="screen"), more=More(tuple(f"row {n}" for n in range(25))))

    assert lines[-2] == "row 24"


def test_frozen_is_told() -> None:
    assert texts(machine(), Choice(frozen=True))[0].endswith("FROZEN")


def test_a_name_that_a_terminal_would_obey_is_shown_harmlessly() -> None:
    found = sample(status(0), status(1, devices=(device("x\x1b[2J"),)))

    assert not any("\x1b" in line for line in [*texts(found, Choice()), *once(found, 80)])


def test_once_has_every_row() -> None:
    lines = once(machine(devices=60, shards=20), 120)

    assert sum(line.startswith("dev") for line in lines) == 60 + 1  # the head, too
    assert sum(line.startswith("shard") for line in lines) == 20 + 2  # the summary, too
