"""What `shardio top` shows, as lines of text: pure functions of a sample, of what the user has chosen, and of
the terminal's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import zip_longest
from typing import Any, NamedTuple

import msgspec

from shardio.cli.top.format import percent, printable, short_number, short_time
from shardio.cli.top.sample import DeviceSample, Sample, VcpuSample
from shardio.cli.top.tables import (
    TABLES,
    Table,
    exits_text,
    head,
    line,
    name_of,
    ordered,
    unclaimed_line,
)
from shardio.fabric.statistics import Histogram, bucket_bounds

KEYS = (
    ("1 2 3", "only the vCPUs, the devices, the shards; 0: all of them"),
    ("Up Down", "choose a row of a table that is shown alone (also k and j)"),
    ("Enter", "a vCPU's exits, and registers while it is paused; a device's times"),
    ("s", "sort by the next column, whose title is in capitals"),
    ("r", "turn the order round"),
    ("p Space", "freeze what is shown, and go on"),
    ("v", "the machine's screen, where it has a VGA"),
    ("+ -", "look more often, less often"),
    ("h ?", "this help"),
    ("Esc", "back"),
    ("q Ctrl-C", "leave; the machine runs on"),
)
MEANINGS = (
    "guest, exit, wait, idle: shares of the time: in guest code, handling exits (a",
    "  dash: the kernel does not tell, and guest has it), waiting for devices, none",
    "uncl/s: accesses that nobody claims   exits by reason: each second",
    "w.p50 w.p99: how long vCPUs wait   s.p50 s.p99: how long handlers take",
    "time: share of the vCPUs' time that goes into waiting for the device",
    "refusd: accesses refused ever   irq/s: interrupts raised",
    "yields/s: polls that found nothing   recov: successors of shards that died",
    "lost: wake-ups found late",
)
SHORT = "q quit  h help  1 2 3 0 tables  s sort  r turn  p freeze  Enter more  v screen"


class Style(StrEnum):
    """How a line looks."""

    PLAIN = "plain"
    TITLE = "title"
    HEAD = "head"
    CHOSEN = "chosen"
    NOTE = "note"


class Line(NamedTuple):
    """A line of the view."""

    text: str
    style: Style = Style.PLAIN


class Choice(msgspec.Struct):
    """What the user has chosen. `table`: "vcpus", "devices" or "shards" alone, "" for all. `page`: what is
    shown instead of tables: "row" (the chosen one in full), "screen" or "help", "" for none.
    """

    table: str = ""
    page: str = ""
    row: str | int | None = None
    """What the chosen row is called."""
    columns: dict[str, int] = {}
    turned: bool = False
    frozen: bool = False
    top: int = 0
    """The first row that is shown."""

    def column(self, table: str) -> int:
        """The column by which a table is sorted."""
        return self.columns.get(table, TABLES[table].first)


class More(msgspec.Struct, frozen=True):
    """What is shown of a chosen row beside its sample: lines about the machine, and a device's times."""

    lines: tuple[str, ...] = ()
    waits: Histogram = Histogram()
    service: Histogram = Histogram()


def render(found: Sample, choice: Choice, width: int, height: int, more: More | None = None) -> list[Line]:
    """At most `height` lines of at most `width` characters."""
    lines = list(_summary(found, choice, width))
    room = height - len(lines) - 1
    match choice.page:
        case "help":
            lines += _help()
        case "screen":
            lines += [Line(text) for text in (more or More()).lines[-room:]]
        case "row":
            lines += _row(found, choice, more or More(), width)
        case _ if choice.table:
            lines += _one(found, choice, width, room)
        case _:
            lines += _all(found, choice, width, room)
    lines = lines[: height - 1]
    lines += [Line("")] * (height - 1 - len(lines))
    lines.append(Line(SHORT, Style.NOTE))
    return [Line(text[:width], style) for text, style in lines]


def once(found: Sample, width: int) -> list[str]:
    """All of it, for a file or a pipe."""
    choice = Choice()
    lines = [*_summary(found, choice, width)]
    for name, table in TABLES.items():
        rows = ordered(table, found, choice.column(name))
        lines += [Line(""), Line(head(table, width)), *(Line(line(table, row, width)) for row in rows)]
        lines += _unclaimed(name, found, width)
    return [each.text.rstrip() for each in lines]


def rows(found: Sample, choice: Choice) -> list[Any]:
    """The rows of the table that is shown alone, in its order."""
    return ordered(TABLES[choice.table], found, choice.column(choice.table), turned=choice.turned)


def choose(found: Sample, choice: Choice, step: int) -> None:
    """The next row, or that before."""
    if not choice.table:
        return
    names = [name_of(row) for row in rows(found, choice)]
    at = names.index(choice.row) + step if choice.row in names else 0
    choice.row = names[max(0, min(len(names) - 1, at))] if names else None


def _summary(found: Sample, choice: Choice, width: int) -> Iterator[Line]:
    state = f"ended: {found.ended}" if found.ended else found.state
    text = f"shardio top - {printable(found.name)} (pid {found.pid})  {state}  over {found.seconds:.1f} s"
    yield Line(text + ("   FROZEN" if choice.frozen else ""), Style.TITLE)
    exits = sum(vcpu.exits_per_s for vcpu in found.vcpus)
    accesses = sum(device.accesses_per_s for device in found.devices)
    interrupts = sum(device.interrupts_per_s for device in found.devices)
    cpu = sum(shard.cpu for shard in found.shards)
    yield Line(
        f"{len(found.vcpus)} vCPUs {short_number(exits)} exits/s   {len(found.devices)} devices "
        f"{short_number(accesses)} accesses/s {short_number(interrupts)} irq/s   {len(found.shards)} shards "
        f"{percent(cpu)} CPU"
    )


def _all(found: Sample, choice: Choice, width: int, room: int) -> Iterator[Line]:
    """The three tables, each with as many rows as there is room for: few rows leave theirs to the others."""
    counts = {name: len(table.rows(found)) for name, table in TABLES.items()}
    shares = _shares(counts, room - 2 * len(TABLES))
    for name, table in TABLES.items():
        yield Line("")
        yield Line(head(table, width), Style.HEAD)
        sorted_rows = ordered(table, found, choice.column(name))
        shown, hidden = sorted_rows[: shares[name]], counts[name] - shares[name]
        if hidden > 0:
            shown = shown[:-1]
        for row in shown:
            yield Line(line(table, row, width))
        if hidden > 0:
            yield Line(f"... {hidden + 1} more: press {list(TABLES).index(name) + 1}", Style.NOTE)
        yield from _unclaimed(name, found, width)


def _shares(counts: dict[str, int], room: int) -> dict[str, int]:
    """How many rows each table gets."""
    room = max(len(counts), room)
    given = dict.fromkeys(counts, 0)
    while room and any(given[name] < counts[name] for name in counts):
        for name in counts:
            if room and given[name] < counts[name]:
                given[name] += 1
                room -= 1
    return given


def _one(found: Sample, choice: Choice, width: int, room: int) -> Iterator[Line]:
    """One table, whose rows can be chosen and scrolled."""
    table: Table = TABLES[choice.table]
    yield Line("")
    yield Line(head(table, width, choice.column(choice.table)), Style.HEAD)
    last = list(_unclaimed(choice.table, found, width))
    room = max(1, room - 2 - len(last))
    all_rows = rows(found, choice)
    at = next((n for n, row in enumerate(all_rows) if name_of(row) == choice.row), None)
    if at is not None:
        choice.top = min(choice.top, at) if at < choice.top + room else at - room + 1
    choice.top = max(0, min(choice.top, len(all_rows) - room))
    for n, row in enumerate(all_rows[choice.top : choice.top + room], choice.top):
        yield Line(line(table, row, width), Style.CHOSEN if n == at else Style.PLAIN)
    yield from last


def _unclaimed(table: str, found: Sample, width: int) -> Iterator[Line]:
    if table == "devices" and (text := unclaimed_line(found, width)) is not None:
        yield Line(text, Style.NOTE)


def _row(found: Sample, choice: Choice, more: More, width: int) -> Iterator[Line]:
    """The chosen row in full."""
    row = next((row for row in rows(found, choice) if name_of(row) == choice.row), None)
    yield Line("")
    if row is None:
        yield Line("it is gone", Style.NOTE)
        return
    table = TABLES[choice.table]
    yield Line(head(table, width), Style.HEAD)
    yield Line(line(table, row, width))
    yield Line("")
    match row:
        case VcpuSample():
            yield from _vcpu(row)
        case DeviceSample():
            yield from _device(row, more, width)
        case _:
            yield Line(f"lost wake-ups {row.lost_wakeups}   malformed requests {row.malformed}")
    for text in more.lines:
        yield Line(text)


def _vcpu(row: VcpuSample) -> Iterator[Line]:
    yield Line(f"exits /s: {exits_text(row) or 'none'}")
    yield Line(f"unclaimed {row.unclaimed}   past a range's end {row.crossing}")
    if row.last_unclaimed:
        yield Line(f"the last unclaimed: {row.last_unclaimed}")
    yield Line("")


def _device(row: DeviceSample, more: More, width: int) -> Iterator[Line]:
    yield Line(
        f"reads/s {short_number(row.reads_per_s)}   writes/s {short_number(row.writes_per_s)}   "
        f"of them posted/s {short_number(row.posted_per_s)}"
    )
    last = f"; the last: {row.last_refused}" if row.last_refused else ""
    yield Line(f"refused {row.refused}{last}")
    yield Line(f"interrupts {row.interrupts}   dropped {row.interrupts_dropped}")
    half = width // 2 - 1
    yield Line("")
    waits, service = f"waits: {more.waits.samples} timed", f"service: {more.service.samples} timed"
    yield Line(f"{waits:<{half}}  {service}", Style.HEAD)
    for left, right in zip_longest(_bars(more.waits, half), _bars(more.service, half), fillvalue=""):
        yield Line(f"{left:<{half}}  {right}")


def _bars(found: Histogram, width: int) -> Iterable[str]:
    """A bar for each octave of time."""
    octaves = [sum(found.buckets[n : n + 4]) for n in range(0, len(found.buckets), 4)]
    most = max(octaves, default=0)
    used = [n for n, count in enumerate(octaves) if count]
    for n in range(used[0], used[-1] + 1) if used else ():
        low = short_time(bucket_bounds(4 * n)[0]) or "0ns"
        bar = "#" * round((width - 15) * octaves[n] / most)
        yield f"{low:>6} {short_number(octaves[n]):>7} {bar}"


def _help() -> Sequence[Line]:
    keys = [Line(f"{key:>9}  {text}") for key, text in KEYS]
    return [Line(""), *keys, Line(""), *map(Line, MEANINGS)]
