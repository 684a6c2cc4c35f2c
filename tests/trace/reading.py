"""Reads a file in the Trace Event Format as strictly as the format's description lets one.

What a viewer would silently leave out is an error here. Source: "Trace Event Format" (the Chrome project),
sections "JSON Object Format", "Complete Events", "Instant Events", "Flow Events", "Metadata Events".
"""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

KNOWN = {"X", "i", "s", "t", "f", "M"}


class Slice(NamedTuple):
    """A complete event on a track, (process, thread)."""

    track: tuple[int, int]
    name: str
    begin: Decimal
    end: Decimal
    arguments: dict[str, Any]


class Chart(NamedTuple):
    """What a viewer would show: names of tracks, slices in their order, and for each flow the slices that its
    arrows join.
    """

    tracks: dict[tuple[int, int], str]
    processes: dict[int, str]
    slices: list[Slice]
    flows: dict[int, list[Slice]]
    instants: list[tuple[tuple[int, int], str]]

    def on(self, name: str) -> list[Slice]:
        """The slices of the track of this name."""
        return [each for each in self.slices if self.tracks[each.track] == name]


def read(path: Path) -> Chart:
    """The file's contents. Raises AssertionError for what no writer of this format may write."""
    document = json.loads(path.read_text(), parse_float=Decimal)
    events = document["traceEvents"]
    assert document.get("displayTimeUnit", "ms") in ("ms", "ns")
    for event in events:
        _check(event)
    named = [event for event in events if event["ph"] == "M"]
    processes = {e["pid"]: e["args"]["name"] for e in named if e["name"] == "process_name"}
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in named if e["name"] == "thread_name"}
    shown = [event for event in events if event["ph"] != "M"]
    assert {(e["pid"], e["tid"]) for e in shown} <= set(tracks)
    assert {pid for pid, _ in tracks} <= set(processes)
    slices = sorted(map(_slice, (e for e in shown if e["ph"] == "X")), key=lambda s: (s.track, s.begin))
    _nested(slices)
    instants = [((e["pid"], e["tid"]), e["name"]) for e in shown if e["ph"] == "i"]
    return Chart(tracks, processes, slices, _flows(shown, slices), instants)


def _check(event: dict[str, Any]) -> None:
    assert event["ph"] in KNOWN
    assert isinstance(event["name"], str)
    assert isinstance(event["pid"], int)
    assert isinstance(event["tid"], int)
    assert event["ph"] == "M" or event["ts"] >= 0
    assert event["ph"] != "X" or event["dur"] > 0
    assert event["ph"] != "i" or event["s"] in ("g", "p", "t")
    assert event["ph"] not in "stf" or isinstance(event["id"], int)


def _slice(event: dict[str, Any]) -> Slice:
    begin = Decimal(event["ts"])
    track = event["pid"], event["tid"]
    return Slice(track, event["name"], begin, begin + Decimal(event["dur"]), event.get("args", {}))


def _nested(slices: list[Slice]) -> None:
    """One track's slices follow each other: a processor, and a device, does one thing at a time."""
    for before, after in pairwise(slices):
        assert before.track != after.track or before.end <= after.begin, (before, after)


def _flows(events: list[dict[str, Any]], slices: list[Slice]) -> dict[int, list[Slice]]:
    """Each flow begins once and ends once, later, and each of its points lies within a slice."""
    by_track: dict[tuple[int, int], list[Slice]] = defaultdict(list)
    for each in slices:
        by_track[each.track].append(each)
    points: dict[int, list[tuple[Decimal, str, Slice]]] = defaultdict(list)
    for event in events:
        if event["ph"] in "stf":
            assert event["ph"] != "f" or event["bp"] == "e"  # else it would bind to the slice that follows
            at, track = Decimal(event["ts"]), (event["pid"], event["tid"])
            [bound] = [each for each in by_track[track] if each.begin <= at < each.end]
            points[event["id"]].append((at, event["ph"], bound))
    for flow in points.values():
        flow.sort(key=lambda point: point[0])
        phases = "".join(phase for _, phase, _ in flow)
        assert phases in ("stf", "sf"), phases
    return {number: [bound for _, _, bound in flow] for number, flow in points.items()}
