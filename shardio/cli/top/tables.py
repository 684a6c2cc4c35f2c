"""The three tables of `shardio top`: their columns, what each is sorted by, and their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from shardio.cli.top.format import percent, printable, short_number, short_time
from shardio.cli.top.sample import DeviceSample, Sample, ShardSample, VcpuSample

WIDEST_NAME = 32


class Column(NamedTuple):
    """A column: its title, its width (0: what is left), the text, and what rows are sorted by."""

    title: str
    width: int
    text: Callable[[Any], str]
    key: Callable[[Any], Any]
    falling: bool = True


class Table(NamedTuple):
    """A table: its columns, the rows of a sample, and the column that these are sorted by at `first`."""

    columns: tuple[Column, ...]
    rows: Callable[[Sample], Sequence[Any]]
    first: int


def _number(title: str, name: str, width: int = 6) -> Column:
    return Column(
        title, width, lambda row: short_number(getattr(row, name)), lambda row: getattr(row, name)
    )


def _time(title: str, name: str) -> Column:
    return Column(title, 6, lambda row: short_time(getattr(row, name)), lambda row: getattr(row, name))


def _share(title: str, name: str) -> Column:
    return Column(title, 6, lambda row: percent(getattr(row, name)), lambda row: getattr(row, name) or 0.0)


def _text(title: str, name: str, width: int) -> Column:
    return Column(
        title, width, lambda row: printable(str(getattr(row, name))), lambda row: getattr(row, name), False
    )


def exits_text(vcpu: VcpuSample) -> str:
    """The reasons of its exits, the most frequent first."""
    ordered = sorted(vcpu.exits.items(), key=lambda item: -item[1])
    return "  ".join(f"{reason} {short_number(rate)}" for reason, rate in ordered)


def shard_state(shard: ShardSample) -> str:
    """What there is to say of it, if anything."""
    return "quarantined" if shard.quarantined else "" if shard.pid else "none"


VCPUS = Table(
    (
        _text("vCPU", "index", 4),
        _text("state", "state", 8),
        _number("exits/s", "exits_per_s", 7),
        _share("guest", "guest"),
        _share("exit", "exit"),
        _share("wait", "wait"),
        _share("idle", "idle"),
        _number("uncl/s", "unclaimed_per_s"),
        Column("exits by reason /s", 0, exits_text, exits_text, False),
    ),
    lambda found: found.vcpus,
    0,
)
DEVICES = Table(
    (
        _text("device", "name", 0),
        _text("shard", "shard", 8),
        _number("acc/s", "accesses_per_s"),
        _time("w.p50", "wait_p50_ns"),
        _time("w.p99", "wait_p99_ns"),
        _time("s.p50", "service_p50_ns"),
        _time("s.p99", "service_p99_ns"),
        _share("time", "wait_share"),
        _number("refusd", "refused"),
        _number("irq/s", "interrupts_per_s"),
    ),
    lambda found: found.devices,
    2,
)
SHARDS = Table(
    (
        _text("shard", "name", 0),
        _text("pid", "pid", 7),
        _share("CPU", "cpu"),
        _number("served/s", "served_per_s", 8),
        _number("yields/s", "yields_per_s", 8),
        _number("sleeps/s", "sleeps_per_s", 8),
        _number("recov", "recoveries", 5),
        _number("lost", "lost_wakeups", 5),
        Column("", 11, shard_state, shard_state, False),
    ),
    lambda found: found.shards,
    2,
)
TABLES = {"vcpus": VCPUS, "devices": DEVICES, "shards": SHARDS}


def ordered(table: Table, found: Sample, column: int, *, turned: bool = False) -> list[Any]:
    """The rows by a column: numbers falling and texts rising, or, `turned`, the other way round."""
    chosen = table.columns[column]
    return sorted(table.rows(found), key=chosen.key, reverse=chosen.falling is not turned)


def head(table: Table, width: int, column: int | None = None) -> str:
    """The titles of the columns, that which rows are sorted by in capitals."""
    titles = [each.title.upper() if n == column else each.title for n, each in enumerate(table.columns)]
    return _line(table, titles, width)


def line(table: Table, row: Any, width: int) -> str:
    """A row."""
    return _line(table, [column.text(row) for column in table.columns], width)


def unclaimed_line(found: Sample, width: int) -> str | None:
    """What nobody has claimed, as a row of the devices; None where there was none ever."""
    vcpus = [vcpu for vcpu in found.vcpus if vcpu.unclaimed]
    if not vcpus:
        return None
    rate = short_number(sum(vcpu.unclaimed_per_s for vcpu in vcpus))
    total = short_number(sum(vcpu.unclaimed for vcpu in vcpus))
    last = max(vcpus, key=lambda vcpu: vcpu.unclaimed_per_s).last_unclaimed
    return f"(unclaimed: {rate} /s, {total} in all; the last: {last})"[:width]


def name_of(row: VcpuSample | DeviceSample | ShardSample) -> str | int:
    """What a row is called: it is found again by that."""
    return row.index if isinstance(row, VcpuSample) else row.name


def _line(table: Table, texts: Sequence[str], width: int) -> str:
    fixed = sum(column.width + 1 for column in table.columns if column.width) - 1
    left = max(8, width - fixed - 1)
    cells = []
    for column, text in zip(table.columns, texts, strict=True):
        wide = column.width or (left if column is table.columns[-1] else min(left, WIDEST_NAME))
        cut = text if len(text) <= wide else text[: wide - 1] + "~"
        cells.append(cut.ljust(wide) if not column.falling else cut.rjust(wide))
    return " ".join(cells)[:width].rstrip()
