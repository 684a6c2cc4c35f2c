"""A trace as a JSON file that Perfetto's web UI and chrome://tracing open.

The format is the Trace Event Format in its JSON object form ("Trace Event Format", the Chrome project's
document of that name). There is a track for each vCPU and one for each device of each shard. An access is a
complete event ("X") on both; flow events lead from the vCPU ("s") to the device ("t") and back ("f"), and
from a posted write, for which nobody waits, to the device only. Interrupts, doorbells and life events are
instant events ("i"). Times are microseconds with three digits behind the point, of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from typing import Any, TextIO

import msgspec

from shardio.trace.values import Access, Doorbell, Interrupt, Life, Lost, Record, Way

VCPUS, DEVICES, MACHINE = 1, 2, 3
"""The "processes" that tracks belong to."""
_PROCESSES = {VCPUS: "vCPUs", DEVICES: "devices", MACHINE: "machine"}


class ChromeWriter:
    """Writes the file as records come. `finish` completes it; without that, it is cut off, and Perfetto opens
    it all the same.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encode = msgspec.json.Encoder().encode
        self._tracks: dict[tuple[int, str], int] = {}
        self._flows = 0
        self._first = True
        stream.write('{"displayTimeUnit":"ns","traceEvents":[')
        for number, name in _PROCESSES.items():
            self._meta("process_name", number, 0, name)

    def write(self, records: list[Record]) -> None:
        """Add records, the times of which may be in any order."""
        for record in records:
            match record:
                case Access():
                    self._access(record)
                case Interrupt(vcpu=None):
                    track = DEVICES, f"interrupts @{record.shard}"
                    self._instant(record, *track, f"{record.what} {record.number}")
                case Interrupt():
                    what = f"{'vector' if record.vector else 'line'} {record.number} {record.what}"
                    self._instant(record, VCPUS, f"vCPU {record.vcpu}", what)
                case Doorbell(index=None):
                    self._instant(record, VCPUS, f"vCPU {record.vcpu}", f"wakes {record.shard}")
                case Doorbell():
                    name = f"doorbell {record.index}"
                    self._instant(record, DEVICES, f"{record.device} @{record.shard}", name)
                case Life():
                    self._instant(record, MACHINE, record.subject, record.event)
                case Lost():
                    self._instant(record, MACHINE, record.producer, f"{record.count} records lost")

    def finish(self) -> None:
        """Complete the file."""
        self._stream.write("\n]}\n")

    def _access(self, access: Access) -> None:
        name = f"{'write' if access.write else 'read'} {access.address:#x}"
        arguments: dict[str, Any] = {
            "device": access.device, "address": f"{access.address:#x}", "width": access.width,
            "value": f"{access.value:#x}", "outcome": str(access.outcome), "way": str(access.way),
        }  # fmt: skip
        if access.count:
            arguments["count"] = access.count
        begin, end = access.time_ns, access.time_ns + max(access.wait_ns or 0, 1)
        if access.wait_ns is not None:
            track = VCPUS, f"vCPU {access.vcpu}"
            self._slice(track, f"{access.device or access.outcome} {name}", begin, end, arguments)
        if access.service_time_ns is None:
            return
        device = DEVICES, f"{access.device or '?'} @{access.shard}"
        served = access.service_time_ns
        served_end = served + max(access.service_ns or 0, 1)
        self._slice(device, name, served, served_end, arguments)
        if access.wait_ns is None:
            return
        self._flows += 1
        self._flow("s", track, begin)
        if access.way is Way.POSTED:
            self._flow("f", device, served)
        else:
            self._flow("t", device, served)
            self._flow("f", track, end - 1)

    def _track(self, process: int, name: str) -> int:
        if (number := self._tracks.get((process, name))) is None:
            number = self._tracks[process, name] = len(self._tracks) + 1
            self._meta("thread_name", process, number, name)
        return number

    def _slice(
        self, track: tuple[int, str], name: str, begin: int, end: int, arguments: dict[str, Any]
    ) -> None:
        self._event(
            ph="X", pid=track[0], tid=self._track(*track), cat="access", name=name, ts=_us(begin),
            dur=_us(end - begin), args=arguments,
        )  # fmt: skip

    def _flow(self, phase: str, track: tuple[int, str], time_ns: int) -> None:
        bound = {"bp": "e"} if phase == "f" else {}
        self._event(
            ph=phase, pid=track[0], tid=self._track(*track), cat="access", name="access", id=self._flows,
            ts=_us(time_ns), **bound,
        )  # fmt: skip

    def _instant(self, record: Record, process: int, track: str, name: str) -> None:
        number = self._track(process, track)
        self._event(ph="i", s="t", pid=process, tid=number, cat="event", name=name, ts=_us(record.time_ns))

    def _meta(self, what: str, process: int, thread: int, name: str) -> None:
        self._event(ph="M", name=what, pid=process, tid=thread, args={"name": name})

    def _event(self, **event: Any) -> None:
        self._stream.write("\n" if self._first else ",\n")
        self._first = False
        self._stream.write(self._encode(event).decode())


def _us(time_ns: int) -> msgspec.Raw:
    """Microseconds, to the nanosecond: a float has not the digits for a long uptime."""
    return msgspec.Raw(f"{time_ns // 1000}.{time_ns % 1000:03}".encode())
