"""`Observed`: what can be seen of a dispatcher: events, traces, recordings, profiles, figures, the screen."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

from shardio.dispatcher.events import EventStream, Subscribers
from shardio.dispatcher.life import Life, State
from shardio.dispatcher.statistics import MachineStatistics, ShardStatistics, device_statistics
from shardio.errors import MachineError
from shardio.supervisor.events import Event

if TYPE_CHECKING:
    from shardio.dispatcher.device import DeviceHandle
    from shardio.dispatcher.devices import Devices
    from shardio.dispatcher.metrics_server import MetricsServer
    from shardio.dispatcher.tracing import Trace
    from shardio.fabric import Fabric
    from shardio.supervisor import Supervisor

KEPT_RECORDS = 100_000


class Observed:
    """The part of `Dispatcher` that looks, and changes nothing."""

    life: Life
    _devices: Devices
    _fabric: Fabric
    _supervisor: Supervisor | None

    def __init__(self) -> None:
        self._subscribers = Subscribers()
        self._trace: Trace | None = None
        self._metrics: list[MetricsServer] = []

    @property
    def devices(self) -> tuple[DeviceHandle, ...]:
        """The devices that are there, in the order in which they were added."""
        return tuple(self._devices.handles.values())

    @property
    def fabric(self) -> Fabric:
        """The shared memory. Raises `MachineError` before the start."""
        self._started()
        return self._fabric

    @property
    def supervisor(self) -> Supervisor:
        """What mends it. Raises `MachineError` before the start."""
        return self._started()

    def events(self) -> EventStream:
        """What happens from now on, to be iterated over in an event loop: `async for event in d.events()`.

        Values of `shardio.supervisor.events`; the stream ends when the dispatcher is closed.
        """
        return self._subscribers.stream()

    def trace(
        self, *what: str, file: str | os.PathLike[str] | TextIO | None = None, kept: int = KEPT_RECORDS
    ) -> Trace:
        """Trace from now on, or from the start on: each access, interrupt and doorbell, and what becomes of
        workers and shards; until the trace, or this, is closed.

        `what`: names of devices, and "unclaimed" for what no device claims; nothing, or "all", is everything.
        `file`: where it goes: a path, which gets a file for Perfetto if it ends in ".json" and else lines of
        text, or a stream, for text. Without one, the last `kept` records can be asked for
        (`Trace.records`). Nobody waits for a trace: what is not collected in time is lost, and counted.

        Raises `MachineError` for a device that is not there (by the start), and where there is a trace
        already; `HostError` where the file cannot be written, `FabricError` where there is no memory.
        """
        from shardio.dispatcher.tracing import Trace

        with self.life.turn(State.NEW, State.RUNNING):
            if self._trace is not None:
                raise MachineError(f"the {self.life.noun} is traced already", "close() that trace first")
            trace = Trace(what, file, kept, self._forget_trace)
            if self._supervisor is not None:
                try:
                    trace.begin(self)
                except BaseException:
                    trace.finish()
                    raise
            self._trace = trace
            return trace

    def record(self, file: str | os.PathLike[str], *devices: str) -> None:
        """Record into `file`, from the start until this is stopped, what these devices (none named: all) are
        asked and answer, and what they read of guest memory where their class says `record_dma = True`.
        `shardio.testing.replay` and `shardio replay` feed it to a device. Recorded devices are slower.

        Raises `MachineError` where it is recorded already, and, at the start, for a device that is not there;
        `HostError` where the file cannot be written.
        """
        from shardio.dispatcher.recording import RecordingFile

        with self.life.turn(State.NEW):
            if self._devices.records.recording is not None:
                raise MachineError(f"the {self.life.noun} is recorded already", "record all devices at once")
            self._devices.records.recording = RecordingFile(file, devices)

    def profile(self, device: DeviceHandle | str, file: str | os.PathLike[str]) -> None:
        """Profile the device's handlers with cProfile: `file` is for pstats, and is written when the device
        goes or the dispatcher stops; a shard that is killed writes none. Before the start.

        Raises `MachineError` for a device that is not there, or that is replicated.
        """
        with self.life.turn(State.NEW):
            request = self._devices.find(device).request
            if request.replicas > 1:
                hint = "profile it with replicas=1"
                raise MachineError(f"device {request.name} is in several shards", hint)
            request.profile = os.path.abspath(file)

    def statistics(self) -> MachineStatistics:
        """What has been done so far; empty before `start` and after `close`."""
        with self.life.turn():
            if self._supervisor is None:
                return MachineStatistics((), (), ())
            fabric, supervisor = self.fabric, self._supervisor
            shards = tuple(
                ShardStatistics.read(shard.name, shard, fabric.shard_counters(shard.index))
                for shard in supervisor.shards
                if shard.spawns
            )
            devices = tuple(
                device_statistics(
                    fabric,
                    handle.name,
                    zip(handle.shard_numbers, handle.shards, strict=True),
                    (route.index for route in handle.routes),
                )
                for handle in self.devices
            )
            vcpus = tuple(vcpu.statistics(self.life.ran_ns) for vcpu in supervisor.vcpus)
            return MachineStatistics(vcpus, devices, shards)

    def metrics(self, address: str) -> MetricsServer:
        """Give Prometheus metrics to whoever asks at `address`, "unix:PATH" (this user alone) or "HOST:PORT",
        until the server or this is closed. See docs/reference/metrics.md.

        Raises `MachineError` for an address that cannot be or is taken, `HostError` without
        prometheus_client (`shardio[metrics]`).
        """
        from shardio.dispatcher.metrics_server import MetricsServer
        from shardio.version import __version__

        with self.life.turn(State.NEW, State.STARTING, State.RUNNING, State.STOPPED):
            server = MetricsServer(self.statistics, self.life, address, __version__)
            self._metrics.append(server)
            return server

    def screen(self, timeout: float | None = None) -> str:
        """The text on the screen of the first device that has a method `screen`, `shardio.devices:VgaText`
        say.

        Raises `MachineError` where no device has one, and when its shard does not answer within `timeout`
        seconds (None: as for any call of a device).
        """
        for handle in self.devices:
            if callable(getattr(handle.request.factory, "screen", None)):
                return str(self._devices.call(handle, "screen", (), {}, timeout))
        raise MachineError(
            f"the {self.life.noun} has no screen", "add shardio.devices:VgaText, or a device with screen()"
        )

    # ---- for the dispatcher ----

    def _check_recording(self) -> None:
        if self._devices.records.recording is not None:
            self._devices.records.recording.check(handle.name for handle in self.devices)

    def _begin_trace(self) -> None:
        if self._trace is not None:
            self._trace.begin(self)

    def _forget_trace(self, trace: Trace) -> None:
        if self._trace is trace:
            self._trace = None

    def _tell_trace(self, who: str, what: str) -> None:
        if self._trace is not None:
            self._trace.tell(who, what)

    def _tell(self, event: Event) -> None:
        """In the supervisor's thread, out of turn."""
        if self._trace is not None:
            self._trace.on_event(event)
        self._subscribers.put(event)

    def _finish(self) -> None:
        """Whatever is being written is whole then. Idempotent."""
        if self._trace is not None:
            self._trace.finish()
        if self._devices.records.recording is not None:
            self._devices.records.recording.finish()

    def _close_servers(self) -> None:
        for server in self._metrics:  # its thread may be waiting for a turn
            server.close()

    def _end_streams(self) -> None:
        self._subscribers.close()

    def _started(self) -> Supervisor:
        if self._supervisor is None:
            self.life.require(State.STARTING, State.RUNNING, State.STOPPED)
            raise MachineError(f"the {self.life.noun} has not started", "start() it first")
        return self._supervisor
