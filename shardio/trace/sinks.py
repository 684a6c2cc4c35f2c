"""Where a trace goes: kept in memory, written as text while it runs, or a file for Perfetto.

Facts. Making values of records takes some microseconds of an interpreter that the machine's owner needs for
other things, and of a CPU that a vCPU may be waiting for.

Consequences. What is kept, and what becomes a file for Perfetto, stays as it was in the rings until somebody
asks for it, or until the end. Text alone is written at once, since somebody may be reading along.
"""

from __future__ import annotations

import tempfile
from collections import deque
from typing import Protocol, TextIO

from shardio.trace.chrome import ChromeWriter
from shardio.trace.join import Join
from shardio.trace.rings import RECORD_BYTES, decode
from shardio.trace.text import line
from shardio.trace.values import Record


class Sink(Protocol):
    """Takes a trace. Methods raise OSError or ValueError where it can take no more."""

    def add(self, join: Join, frame: bytes, now_ns: int) -> None:
        """All that the rings had at one look."""

    def tell(self, records: list[Record]) -> None:
        """Records that come from no ring."""

    def finish(self, join: Join | None) -> None:
        """There are no more; without a join, there were none."""


class Kept:
    """Keeps the last `most` records of the rings, an access having two of them. `dropped`: how many others
    there were.
    """

    def __init__(self, most: int) -> None:
        self.dropped = 0
        self._most = most
        self._held = 0
        self._frames: deque[bytes] = deque()
        self._told: deque[Record] = deque(maxlen=most)

    def add(self, join: Join, frame: bytes, now_ns: int) -> None:
        """See `Sink.add`."""
        if frame:
            self._frames.append(frame)
            self._held += len(frame) // RECORD_BYTES
        while (extra := self._held - self._most) > 0:
            first = self._frames.popleft()
            gone = min(extra, len(first) // RECORD_BYTES)
            if len(first) > gone * RECORD_BYTES:
                self._frames.appendleft(first[gone * RECORD_BYTES :])
            self._held -= gone
            self.dropped += gone

    def tell(self, records: list[Record]) -> None:
        """See `Sink.tell`."""
        self._told += records

    def finish(self, join: Join | None) -> None:
        """See `Sink.finish`."""

    def records(self, join: Join | None) -> list[Record]:
        """What is kept, as values, in the order of their times. `join`: as for `add`; it is not changed."""
        found = list(self._told)
        if join is not None:
            join = join.anew()
            for frame in self._frames:
                join.add(decode(frame))
            found += join.take(None)
        return sorted(found, key=lambda record: record.time_ns)


class TextSink:
    """Lines of text, those of one look in the order of time. `origin_ns`: the time that counts as 0."""

    def __init__(self, stream: TextIO, origin_ns: int) -> None:
        self._stream = stream
        self._told: list[Record] = []
        self._origin_ns = origin_ns
        self._end = "\r\n" if stream.isatty() else "\n"

    def add(self, join: Join, frame: bytes, now_ns: int) -> None:
        """See `Sink.add`."""
        join.add(decode(frame))
        self._write(join.take(now_ns))

    def tell(self, records: list[Record]) -> None:
        """See `Sink.tell`: they are written with the next look's."""
        self._told += records

    def finish(self, join: Join | None) -> None:
        """See `Sink.finish`."""
        self._write([] if join is None else join.take(None))

    def _write(self, records: list[Record]) -> None:
        found = sorted([*self._told, *records], key=lambda record: record.time_ns)
        self._told.clear()
        if found:
            self._stream.write("".join(line(record, self._origin_ns) + self._end for record in found))
            self._stream.flush()


class ChromeSink:
    """The file for Perfetto, written at the end. Until then the records are in a file without a name."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: list[Record] = []
        self._frames: list[tuple[int, int]] = []
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `finish`)

    def add(self, join: Join, frame: bytes, now_ns: int) -> None:
        """See `Sink.add`."""
        if frame:
            self._spool.write(frame)
            self._frames.append((len(frame), now_ns))

    def tell(self, records: list[Record]) -> None:
        """See `Sink.tell`."""
        self._told += records

    def finish(self, join: Join | None) -> None:
        """See `Sink.finish`."""
        with self._spool:
            writer = ChromeWriter(self._stream)
            writer.write(self._told)
            if join is not None:
                self._spool.seek(0)
                for length, now_ns in self._frames:
                    join.add(decode(self._spool.read(length)))
                    writer.write(join.take(now_ns))
                writer.write(join.take(None))
            writer.finish()
