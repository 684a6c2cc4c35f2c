"""`Trace`: what a dispatcher's vCPUs and shards do, collected while it runs.

Facts. The rings are in the fabric, which is there from the start of the dispatcher on; whoever traces wants
the first access too. Collecting must not hold up the supervisor, nor anybody who asks for it.

Consequences. A trace that is asked for before the start begins with it. A thread of its own looks at the
rings every 5 ms. What it cannot write any more (a full disk, a pipe that nobody reads) ends the writing, not
the machine.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from shardio.closing import Closing
from shardio.errors import HostError, MachineError
from shardio.spelling import listed, nearest
from shardio.supervisor.events import Event
from shardio.threads import start
from shardio.trace.join import Join
from shardio.trace.rings import NO_RANGE, Rings
from shardio.trace.sinks import ChromeSink, Kept, Sink, TextSink
from shardio.trace.values import Life, Lost, Record

if TYPE_CHECKING:
    from shardio.dispatcher.device import DeviceHandle
    from shardio.fabric import Fabric
    from shardio.supervisor import Supervisor

LOOK_S = 0.005
"""How often the rings are looked at: at 3 million records a second one of them is full by then."""
ALL, UNCLAIMED = "all", "unclaimed"
TOLD = 10_000
"""Life events that wait to be collected."""

log = logging.getLogger("shardio.trace")


class Traced(Protocol):
    """What is traced: a dispatcher that has started."""

    @property
    def fabric(self) -> Fabric: ...
    @property
    def supervisor(self) -> Supervisor: ...
    @property
    def devices(self) -> Sequence[DeviceHandle]: ...


class Trace(Closing):
    """A trace in progress, until it or the machine is closed: see `Dispatcher.trace`.

    `error`: why nothing is written any more, None while all is well.
    """

    def __init__(
        self,
        what: Sequence[str],
        file: str | os.PathLike[str] | TextIO | None,
        kept: int,
        on_close: Callable[[Trace], None],
    ) -> None:
        if kept < 1:
            raise MachineError(f"a trace of {kept} records", "keep 1 or more")
        self.error: str | None = None
        self._what = tuple(what) or (ALL,)
        self._on_close = on_close
        self._told: deque[Record] = deque(maxlen=TOLD)
        self._told_lost: dict[int, int] = {}
        self._lock = threading.RLock()
        self._quit = threading.Event()
        self._thread: threading.Thread | None = None
        self._dispatcher: Traced | None = None
        self._rings: Rings | None = None
        self._join: Join | None = None
        self._names: dict[int, str] = {}
        self._closed = False
        self._file = ExitStack()
        self._sink = self._open(file, kept)

    def _open(self, file: str | os.PathLike[str] | TextIO | None, kept: int) -> Sink:
        if file is None:
            return Kept(kept)
        if not isinstance(file, str | os.PathLike):
            return TextSink(file, time.monotonic_ns())
        try:
            stream = Path(file).open("w", encoding="utf-8")  # noqa: SIM115 (closed by `finish`)
            self._file.enter_context(stream)
            if Path(file).suffix == ".json":
                return ChromeSink(stream)
            return TextSink(stream, time.monotonic_ns())
        except OSError as error:
            raise HostError(
                f"no trace in {os.fspath(file)}: {error.strerror}", "name a file that can be written"
            ) from None

    # ---- for whoever reads it ----

    def records(self) -> list[Record]:
        """What has happened by now, as far as it is kept, in the order of time: the values of
        `shardio.trace`. Nothing is kept of what goes to a file.
        """
        with self._lock:
            self._look()
            return self._sink.records(self._join) if isinstance(self._sink, Kept) else []

    @property
    def lost(self) -> int:
        """How many records there were that nobody will see: written over before they were collected, or not
        kept any more. An access has two, its vCPU's and its shard's.
        """
        with self._lock:
            dropped = self._sink.dropped if isinstance(self._sink, Kept) else 0
            return dropped + sum(self._told_lost.values())

    def close(self) -> None:
        """Trace no more, and complete the file. Idempotent."""
        self.finish()
        self._on_close(self)

    # ---- for the dispatcher ----

    def check(self, names: Iterable[str]) -> None:
        """Raises `MachineError` where what is to be traced is none of the devices of these names."""
        known = [ALL, UNCLAIMED, *names]
        for name in self._what:
            if name not in known:
                hint = nearest(name, set(known)) or listed(known)
                raise MachineError(f"there is no device {name!r} to trace", hint)

    def begin(self, dispatcher: Traced) -> None:
        """The fabric and the vCPUs are there. Raises `MachineError`, `FabricError`, `HostError`."""
        self.check(handle.name for handle in dispatcher.devices)
        with self._lock:
            if self._closed:
                return
            self._dispatcher = dispatcher
            self._rings = Rings(dispatcher.fabric)
            shards = dispatcher.supervisor.shards
            self._join = Join(
                self._rings.clock, self._names.get, lambda number: _name(shards, number), self._rings.began
            )
            self._choose()
            self._rings.switch(True, [vcpu.client for vcpu in dispatcher.supervisor.vcpus])
            for shard in shards:
                if shard.pid:
                    self.tell(f"shard {shard.name}", f"serves, process {shard.pid}")
            self._thread = threading.Thread(target=self._run, name="shardio-trace", daemon=True)
            start(self._thread)

    def finish(self) -> None:
        """Nothing is written to the rings any more, or nothing of it matters. Idempotent."""
        self._quit.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._rings is not None and self._dispatcher is not None:
                self._rings.switch(False, [vcpu.client for vcpu in self._dispatcher.supervisor.vcpus])
                self._look()
                time.sleep(LOOK_S)  # a shard records what it has done after its reply
                self._look()
            self._rings = self._dispatcher = None
            self._write(lambda: self._sink.finish(self._join))
            self._write(self._file.close)

    def tell(self, subject: str, event: str) -> None:
        """A life event, now; from any thread, which does not wait."""
        self._told.append(Life(time.monotonic_ns(), subject, event))

    def on_event(self, event: Event) -> None:
        """What the supervisor tells."""
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        subject = "machine"
        if "shard" in fields:
            subject = f"shard {fields.pop('shard')}"
        elif "vcpu" in fields:
            subject = f"vCPU {fields.pop('vcpu')}"
        details = ", ".join(f"{name} {value}" for name, value in fields.items() if name != "stacks")
        self.tell(subject, f"{type(event).__name__}: {details}" if details else type(event).__name__)

    # ---- in its thread ----

    def _run(self) -> None:
        while not self._quit.wait(LOOK_S):
            with self._lock:
                self._look()

    def _look(self) -> None:
        if self._rings is None or self._join is None:
            return
        self._choose()
        frame = self._rings.collect()
        told = [*self._losses()]
        while self._told:
            told.append(self._told.popleft())
        self._write(lambda: self._sink.tell(told))
        self._write(lambda: self._sink.add(self._join, frame, time.monotonic_ns()))  # type: ignore[arg-type]

    def _choose(self) -> None:
        """Devices may have come, moved and gone; of those that have gone, records may still come."""
        assert self._rings is not None
        assert self._dispatcher is not None
        now = {route.index: handle.name for handle in self._dispatcher.devices for route in handle.routes}
        self._names.update(now)
        if ALL in self._what:
            self._rings.want(None)
        else:
            wanted = {index for index, name in now.items() if name in self._what}
            self._rings.want(wanted | ({NO_RANGE} if UNCLAIMED in self._what else set()))

    def _losses(self) -> Iterable[Record]:
        assert self._rings is not None
        assert self._dispatcher is not None
        shards, vcpus = self._dispatcher.supervisor.shards, len(self._dispatcher.supervisor.vcpus)
        for row, count in enumerate(self._rings.lost):
            if more := count - self._told_lost.get(row, 0):
                self._told_lost[row] = count
                producer = f"vCPU {row}" if row < vcpus else f"shard {_name(shards, row - vcpus)}"
                yield Lost(time.monotonic_ns(), producer, more)

    def _write(self, action: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            action()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.error = str(error)
            log.warning("the trace cannot be written any more: %s", error)


def _name(shards: Sequence[object], number: int) -> str:
    shard = shards[number] if 0 <= number < len(shards) else None
    return str(getattr(shard, "name", number))
