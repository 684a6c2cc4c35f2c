"""What a benchmark run leaves: frozen values, kept as JSON. Times are in nanoseconds unless a name says
otherwise.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from shardio.bench.errors import BenchError


class Unit(StrEnum):
    """What a figure's value is a multiple of."""

    FLOOR = "x floor"
    EXPECTED = "x (1.2 floor + local call)"
    LOCAL = "x local call"
    MICROSECONDS = "us"
    IN_LOOP = "x in-loop C"
    ONE_RANGE = "x one range"


class Percentiles(msgspec.Struct, frozen=True):
    """Of single operations: nanoseconds."""

    p50: float
    p99: float
    p999: float

    @classmethod
    def of(cls, samples: Iterable[float]) -> Percentiles:
        """Of some samples, by nearest rank."""
        ordered = sorted(samples)
        return cls(*(ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.99, 0.999)))


class Figure(msgspec.Struct, frozen=True):
    """One row: `value` is the median over the pairs, `rounds` the median of each round, in `unit`.

    `reach` and `gate` in the same unit (None: the row has none). `floor`: the regime, percentiles of the
    bare ping-pong in the same run; `latency`: of single operations, None where they cannot be told
    apart. `reference`: the median of what the value is a multiple of, in nanoseconds.
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
    """The part of the blocks that were measured again because another program had a CPU."""

    @property
    def verdict(self) -> str:
        """Against the reach and the gate: "reached", "in gate", "missed", or "" where there is no gate."""
        if self.gate is None or self.reach is None:
            return ""
        if self.value <= self.reach:
            return "reached"
        return "in gate" if self.value <= self.gate else "missed"


class Host(msgspec.Struct, frozen=True):
    """Where a run was made. `pinned`: the CPUs of the near and the far process, None where there
    are no such two; `spread`: vCPUs and shards were pinned over all of them."""

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


class Point(msgspec.Struct, frozen=True):
    """One measurement of scaling. `shards` 0: one process, vCPU threads under its GIL. `handler_ns`:
    what a handler computes; `rate`: accesses a second, all vCPUs together, median over rounds; `spread`:
    from the slowest to the quickest round, as a part of the median.
    """

    devices: int
    vcpus: int
    shards: int
    handler_ns: int
    rate: float
    spread: float
    latency: Percentiles
    oversubscribed: bool


class Cost(msgspec.Struct, frozen=True):
    """What starting or holding something takes, in the unit of its name: "ms" or "KiB"."""

    title: str
    value: float
    unit: str
    note: str = ""


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
    costs: list[Cost] = []
    skipped: dict[str, str] = {}


def save(run: Run, path: Path) -> None:
    """Write a run as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run)) + b"\n")


def load(path: Path) -> Run:
    """Read a run. Raises `BenchError` for a file that is none, `OSError` for one that cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except msgspec.DecodeError as error:
        raise BenchError(
            f"{path} is no benchmark run: {error}", "give a file that `shardio bench --json` wrote"
        ) from None


def merged(runs: Sequence[Run]) -> Run:
    """One run of several, of the same machine: the later one's figures where two have the same. The host
    is the last one's.
    """
    whole = runs[-1]
    for run in reversed(runs[:-1]):
        whole = msgspec.structs.replace(
            whole,
            seconds=whole.seconds + run.seconds,
            interrupted=whole.interrupted or run.interrupted,
            skipped={**run.skipped, **whole.skipped},
            rows=whole.rows or run.rows,
            peers=whole.peers or run.peers,
            kvm=whole.kvm or run.kvm,
            scaling=whole.scaling or run.scaling,
            costs=whole.costs or run.costs,
        )
    return whole


class Rounds:
    """Collects pairs of (work, reference) blocks over some rounds, and makes the figure."""

    def __init__(self) -> None:
        self._ratios: list[list[float]] = []
        self._references: list[float] = []
        self._operations: list[float] = []
        self._floor: list[float] = []
        self._latency: list[float] = []

    def begin(self) -> None:
        """A new round."""
        self._ratios.append([])

    def add(
        self,
        operation_ns: float,
        reference_ns: float,
        *,
        floor: Sequence[float] = (),
        latency: Sequence[float] = (),
    ) -> None:
        """A pair: the mean operation of the work, what it is a multiple of, and samples of single
        operations.
        """
        self._ratios[-1].append(operation_ns / reference_ns)
        self._references.append(reference_ns)
        self._operations.append(operation_ns)
        self._floor.extend(floor)
        self._latency.extend(latency)

    def figure(
        self,
        name: str,
        title: str,
        unit: Unit,
        *,
        reach: float | None = None,
        gate: float | None = None,
        note: str = "",
        set_aside: float = 0.0,
    ) -> Figure:
        """The figure of what was collected: medians, so that a disturbed block counts as one."""
        rounds = [statistics.median(ratios) for ratios in self._ratios if ratios]
        return Figure(
            name,
            title,
            unit,
            statistics.median(ratio for ratios in self._ratios for ratio in ratios),
            rounds,
            reach,
            gate,
            statistics.median(self._references),
            statistics.median(self._operations),
            Percentiles.of(self._floor) if self._floor else None,
            Percentiles.of(self._latency) if self._latency else None,
            note,
            set_aside,
        )
