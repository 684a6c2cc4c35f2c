"""What a benchmark run leaves: frozen values, kept as JSON. Times are in nanoseconds unless a name says
otherwise.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from shardio.bench.blocks import Floor
from shardio.bench.errors import BenchError


class Unit(StrEnum):
    """What a figure's value is a multiple of, or its unit."""

    FLOOR = "x floor"
    EXPECTED = "x (1.2 floor + local)"
    LOCAL = "x local call"
    IN_LOOP = "x in-loop C"
    OWN_PROCESS = "x own process"
    ONE_RANGE = "x one range"
    UNTRACED = "x untraced"
    NO_TRACE = "x without a trace"
    UNSCRAPED = "x unscraped"
    BARE = "x bare"
    MICROSECONDS = "us"
    MILLISECONDS = "ms"
    KIB = "KiB"


FLOORS_IN = {Unit.FLOOR: 1.0, Unit.EXPECTED: 1.2}
"""How many floors a unit has in it. A Python handler's round trip costs 1.2: the caller's and the owner's
instructions beside the call itself.
"""


class Percentiles(msgspec.Struct, frozen=True):
    """Of single operations: nanoseconds."""

    p50: float
    p99: float
    p999: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Percentiles | None:
        """Of some samples, by nearest rank; None of none."""
        ordered = sorted(samples)
        at = [min(len(ordered) - 1, int(q * len(ordered))) for q in (0.5, 0.99, 0.999)]
        return cls(*(ordered[each] for each in at)) if ordered else None


class Figure(msgspec.Struct, frozen=True):
    """One row: `value` is the median over the pairs, `rounds` the median of each round, in `unit`; so are
    `reach` and `gate`, where the row has them; `gate_ns` is that for `beyond`.

    In nanoseconds: `reference`: median of what the value is a multiple of, and `operation` that of the work;
    `beyond`: beyond the floor and what else the value is a multiple of, the same on every host where it is
    instructions; `floor`: the regime, single pings of the quicker loop in the same run; `floors`: medians of
    the ping-pong with a `pause` a poll and without; `latency`: of single operations, where they can be told
    apart. `instructions`: how many more are executed than for a ping, on both sides together (`steps`).
    `set_aside`: the part of the blocks that were measured again because another program had a CPU.
    """

    name: str
    title: str
    unit: Unit
    value: float
    rounds: list[float]
    reach: float | None = None
    gate: float | None = None
    reference: float = 0.0
    operation: float = 0.0
    floor: Percentiles | None = None
    latency: Percentiles | None = None
    note: str = ""
    set_aside: float = 0.0
    floors: tuple[float, float] | None = None
    beyond: float = 0.0
    gate_ns: float | None = None
    instructions: float | None = None

    @property
    def verdict(self) -> str:
        """Against the reach and both gates: "reached", "in gate", "missed", or "" where there is no gate."""
        if self.gate is None or self.reach is None:
            return ""
        if self.value > self.gate or (self.gate_ns is not None and self.beyond > self.gate_ns):
            return "missed"
        return "reached" if self.value <= self.reach else "in gate"


class Host(msgspec.Struct, frozen=True):
    """Where a run was made. `pinned`: the CPUs of the near and the far process, None where there are no such
    two; `spread`: vCPUs and shards were pinned over all of them.
    """

    machine: str
    cpus: int
    usable_cpus: int
    pinned: tuple[int, int] | None
    kernel: str
    python: str
    shardio: str
    commit: str
    when: str
    load: float
    caution: list[str]
    spread: bool = False

    @property
    def place(self) -> str:
        """Where on the machine."""
        pinned = "each vCPU and shard pinned, over all of them" if self.spread else "not pinned"
        if self.pinned:
            pinned = f"pinned to CPUs {self.pinned[0]} and {self.pinned[1]}"
        return f"{self.usable_cpus} of {self.cpus} CPUs usable, {pinned}"


class Point(msgspec.Struct, frozen=True):
    """A measurement of scaling. `shards` 0: one process, vCPU threads under its GIL. `handler_ns`: what a
    handler computes; `rate`: accesses a second, all vCPUs together, median over rounds; `spread`: from the
    slowest to the quickest round, as a part of the median.
    """

    devices: int
    vcpus: int
    shards: int
    handler_ns: int
    rate: float
    spread: float
    latency: Percentiles
    oversubscribed: bool

    @property
    def title(self) -> str:
        """What was varied."""
        served = f"{self.shards} shards" if self.shards else "one process"
        what = f"{self.vcpus} vCPUs, {served}, {self.devices} devices"
        return f"{what}, {self.handler_ns / 1000:g} us: accesses/s"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one `shardio bench` measured. `interrupted`: the user stopped it; what is here was
    complete.
    """

    host: Host
    seconds: float = 0.0
    interrupted: bool = False
    rows: list[Figure] = []
    peers: list[Figure] = []
    kvm: list[Figure] = []
    scaling: list[Point] = []
    costs: list[Figure] = []
    skipped: dict[str, str] = {}

    @property
    def figures(self) -> list[Figure]:
        """All of them."""
        return [*self.rows, *self.kvm, *self.peers, *self.costs]


def save(run: Run, path: Path) -> None:
    """Write a run as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")


def load(path: Path) -> Run:
    """Read a run. Raises `BenchError` for a file that is none, `OSError` for one that cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except msgspec.DecodeError as error:
        hint = "give a file that `shardio bench --json` wrote"
        raise BenchError(f"{path} is no benchmark run: {error}", hint) from None


def merged(runs: Sequence[Run]) -> Run:
    """One run of several, of the same machine: the later one's figures where two have the same. The host
    is the last one's.
    """
    kept: dict[str, Any] = {
        name: next((found for run in reversed(runs) if (found := getattr(run, name))), [])
        for name in ("rows", "peers", "kvm", "scaling", "costs")
    }
    skipped = {name: why for run in runs for name, why in run.skipped.items()}
    seconds, interrupted = sum(run.seconds for run in runs), any(run.interrupted for run in runs)
    return Run(host=runs[-1].host, seconds=seconds, interrupted=interrupted, skipped=skipped, **kept)


class Rounds:
    """Collects the work and what it is a multiple of over some rounds, and makes the figure."""

    def __init__(self) -> None:
        self._rounds: list[list[tuple[float, Sequence[float], float]]] = []
        self._floor: tuple[list[float], ...] = ([], [])
        self._latency: list[float] = []

    def begin(self) -> None:
        """A new round."""
        self._rounds.append([])

    def add(
        self, took: float, floor: Floor | None = None, rest: float = 0.0, latency: Sequence[float] = ()
    ) -> None:
        """One pair: the mean operation of the work, the floor beside it, the time of whatever else it is a
        multiple of, and samples of single operations.
        """
        self._rounds[-1].append((took, floor.ns if floor else (0.0, 0.0), rest))
        for samples, block in zip(self._floor, floor or (), strict=False):
            samples.extend(block.samples)
        self._latency.extend(latency)

    def figure(self, name: str, title: str, unit: Unit, *, waits: bool = True, **more: Any) -> Figure:
        """The figure of what was collected: medians, so that a disturbed block counts as one. The floor is
        the loop that was the quicker one in the median. `more`: further fields of a `Figure`.
        """
        every = [pair for pairs in self._rounds for pair in pairs]
        floors: Any = tuple(statistics.median(pair[1][loop] for pair in every) for loop in (0, 1))
        loop, weight = floors.index(min(floors)), FLOORS_IN.get(unit, 0.0)

        def reference(floor: Sequence[float], rest: float) -> float:
            return 1000.0 if unit is Unit.MICROSECONDS else weight * floor[loop] + rest

        ratios = [[took / reference(floor, rest) for took, floor, rest in pairs] for pairs in self._rounds]
        ratios = [each for each in ratios if each]
        wires = 1.0 if waits and (weight or unit is Unit.MICROSECONDS) else 0.0
        return Figure(
            name,
            title,
            unit,
            statistics.median(itertools.chain(*ratios)),
            [statistics.median(each) for each in ratios],
            reference=statistics.median(reference(floor, rest) for _, floor, rest in every),
            operation=statistics.median(took for took, _, _ in every),
            beyond=statistics.median(took - wires * floor[loop] - rest for took, floor, rest in every),
            floor=Percentiles.of(self._floor[loop]),
            floors=floors if floors[loop] else None,
            latency=Percentiles.of(self._latency),
            **more,
        )
