"""The tables at the end of a run: exits per vCPU; per device its accesses, latencies and share of waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.table import Table

if TYPE_CHECKING:
    from shardio.dispatcher import MachineStatistics
    from shardio.fabric import LastAccess

UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"))


def summary(statistics: MachineStatistics) -> Group:
    """The tables of a machine's frozen statistics; that of accesses without an answer only where there were
    any.
    """
    tables = [_vcpus(statistics), _devices(statistics)]
    if (unanswered := _not_answered(statistics)).row_count:
        tables.append(unanswered)
    return Group(*tables)


class _Console(Console):
    """One that leaves it to the command what becomes of a reader that is gone."""

    def on_broken_pipe(self) -> None:
        """Called while the BrokenPipeError is handled."""
        raise


def console(stream: TextIO) -> Console:
    """Where tables are printed: as wide as the terminal, or 120 columns into a file or pipe. Printing raises
    OSError where the stream takes no more.
    """
    width = None if stream.isatty() else 120
    return _Console(file=stream, highlight=False, markup=False, emoji=False, width=width)


def duration(ns: float) -> str:
    """A time of three digits with its unit.

    >>> duration(250), duration(1500), duration(12_345_678), duration(2e9), duration(123_456)
    ('250 ns', '1.50 us', '12.3 ms', '2.00 s', '123 us')
    """
    for scale, unit in UNITS:
        if ns >= scale:
            return f"{ns / scale:#.3g}".rstrip(".") + f" {unit}"
    return f"{ns:.0f} ns"


def share(part: float, whole: float) -> str:
    """A part in percent of a whole; a dash where there is no whole.

    >>> share(1, 8), share(0, 0)
    ('12.5%', '-')
    """
    return f"{part / whole:.1%}" if whole else "-"


def _table(*left: str, right: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _vcpus(statistics: MachineStatistics) -> Table:
    table = _table("vCPU", "exits", right=("total", "running", "waiting", "waiting %"))
    for i, vcpu in enumerate(statistics.vcpus):
        counted = sorted(((count, name) for name, count in vcpu.exits.items() if count), reverse=True)
        total = sum(vcpu.exits.values())
        time = vcpu.running_ns + vcpu.waiting_ns
        told = ", ".join(f"{name} {count}" for count, name in counted) or "none"
        if vcpu.repairs:
            repairs = ", ".join(f"{name} {count}" for name, count in sorted(vcpu.repairs.items()))
            told += f"; repaired: {repairs}"
        table.add_row(
            str(i),
            told,
            str(total),
            duration(vcpu.running_ns),
            duration(vcpu.waiting_ns),
            share(vcpu.waiting_ns, time),
        )
    return table


def _not_answered(statistics: MachineStatistics) -> Table:
    table = _table("not answered", "where", right=("accesses",))
    table.add_column("the last", overflow="fold")

    def row(kind: str, where: str, count: int, last: LastAccess | None) -> None:
        if count:
            table.add_row(kind, where, str(count), str(last or "-"))

    for i, vcpu in enumerate(statistics.vcpus):
        row("unclaimed", f"vCPU {i}", vcpu.unclaimed_reads + vcpu.unclaimed_writes, vcpu.last_unclaimed)
        row("past a range's end", f"vCPU {i}", vcpu.crossing, vcpu.last_crossing)
    for device in statistics.devices:
        row("refused", device.name, device.refused, device.last_refused)
    return table


def _devices(statistics: MachineStatistics) -> Table:
    times = ("wait\np50", "wait\np99", "service\np50", "service\np99")  # 80 columns hold no wider ones
    columns = ("reads", "writes", *times, "waiting\n%")
    table = _table("device", "shard", right=columns)
    waited = sum(device.wait_ns for device in statistics.devices)
    for device in statistics.devices:
        table.add_row(
            device.name,
            device.shard,
            str(device.reads),
            str(device.writes),
            duration(device.wait_p50_ns),
            duration(device.wait_p99_ns),
            duration(device.service_p50_ns),
            duration(device.service_p99_ns),
            share(device.wait_ns, waited),
        )
    return table
