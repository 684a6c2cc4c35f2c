"""A trace as text: who, what, and how long."""

from __future__ import annotations

import io
from typing import Any, cast

import pytest

from shardio.trace import Access, Doorbell, Interrupt, Life, Lost, Record
from shardio.trace.sinks import TextSink
from shardio.trace.text import line
from shardio.trace.values import Outcome, Way

READ = Access(
    1_000_002_500, 1, "uart", "io", "pio", 0x3F8, 1, False, 0x41, Outcome.ANSWERED, Way.WAITED, 0, 1500,
    1_000_002_600, 250,
)  # fmt: skip
WRITE = Access(
    1_000_002_500, 1, "fb", "io", "mmio", 0xD000_0000, 8, True, 0x41, Outcome.ANSWERED, Way.POSTED, 0, 70,
)
STRING = Access(
    1_000_002_500, 0, "ide", "io", "pio", 0x1F0, 2, False, 0, Outcome.ANSWERED, Way.WAITED, 256, 9000,
)
NOWHERE = Access(
    1_000_002_500, 0, None, None, "mmio", 0x9000, 4, False, 0xFFFF_FFFF, Outcome.UNCLAIMED, Way.NOWHERE, 0, 90
)
LINES = [
    (READ, "vCPU 1     read  1 pio 0x3f8 -> 0x41 uart @io answered wait 1.500 us service 0.250 us"),
    (WRITE, "vCPU 1     write 8 mmio 0xd0000000 <- 0x41 fb @io answered posted wait 0.070 us"),
    (STRING, "vCPU 0     read  2x256 pio 0x1f0 ide @io answered wait 9.000 us"),
    (NOWHERE, "vCPU 0     read  4 mmio 0x9000 - unclaimed wait 0.090 us"),
    (Interrupt(1_000_002_500, "delivered", 0x20, vcpu=2, vector=True), "vCPU 2     delivered vector 32"),
    (Doorbell(1_000_002_500, "io", vcpu=2), "vCPU 2     wakes    shard io"),
    (Doorbell(1_000_002_500, "io", None, "net", 1, 3), "shard io   doorbell 1 of net 3 times"),
    (Life(1_000_002_500, "shard io", "died"), "shard io   died"),
    (Lost(1_000_002_500, "vCPU 0", 3), "vCPU 0     lost     3 records"),
]


@pytest.mark.parametrize(("record", "text"), LINES)
def test_a_record_is_a_line(record: Record, text: str) -> None:
    assert line(record, 1_000_000_000) == "    0.000002500 " + text


class Joined:
    """A `Join` that gives these records at the next look."""

    def __init__(self, *records: Record) -> None:
        self.records = list(records)

    def add(self, records: object) -> None:
        """Nothing comes of them."""

    def take(self, now_ns: int | None) -> list[Record]:
        """All, once."""
        taken, self.records = self.records, []
        return taken


def test_what_one_look_finds_is_in_the_order_of_time() -> None:
    stream = io.StringIO()
    sink = TextSink(stream, 1_000_000_000)
    sink.tell([Life(1_000_009_000, "machine", "ended"), Life(1_000_000_500, "shard io", "serves")])
    sink.add(cast(Any, Joined(READ)), b"", 1_000_010_000)
    sink.tell([Life(1_000_011_000, "machine", "closed")])
    sink.finish(None)

    told = [line.split(maxsplit=1)[1] for line in stream.getvalue().splitlines()]
    assert [line.split()[-1] for line in told] == ["serves", "us", "ended", "closed"]
