"""The supervisor's thread: starts workers and shards, watches them, respawns what dies, kills what hangs.

Facts. A worker or shard dies with the thread that spawned it (PR_SET_PDEATHSIG), so that a killed VMM leaves
nothing; hence every spawn is made here, by a thread that lives as long as the machine. A process's death is a
readable pidfd.

Consequences. All state is this thread's: other threads hand it functions (`call`) and wait. A worker that
died is started again at once and takes up its access. A shard that died gets a successor (`shard_keeper`);
one that hangs is killed (`hang`), which is the same as dying.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from shardio._core import lib
from shardio.errors import MachineError, ShardioError
from shardio.fabric import Fabric
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.doorbell import DoorbellBackend
from shardio.routing import AddressMap
from shardio.shard import protocol
from shardio.supervisor.context import Context, Event
from shardio.supervisor.hang import HangWatch
from shardio.supervisor.haste import WATCH_S, Haste
from shardio.supervisor.recovery import Policy
from shardio.supervisor.shard_keeper import ShardKeeper
from shardio.supervisor.shard_process import ShardProcess
from shardio.supervisor.spare import SpareKeeper
from shardio.supervisor.succession import Succession
from shardio.supervisor.unclaimed import UnclaimedLog
from shardio.threads import start
from shardio.vcpu import VcpuState, VcpuWorker

TICK_S = 0.05
QUIT_S = 2.0
"""How long workers and shards may take to end by themselves before they are killed."""

log = logging.getLogger("shardio.supervisor")
T = TypeVar("T")


class Supervisor:
    """One machine's supervisor. `shards` and `workers` may be used by other threads only through `call`."""

    def __init__(
        self,
        fabric: Fabric,
        routes: AddressMap,
        policy: Callable[[int, bool], Policy],
        on_event: Event,
        *,
        hang_deadline: float = 1.0,
        backend: InterruptBackend | None = None,
        doorbells: DoorbellBackend | None = None,
        stdin: int | None = None,
    ) -> None:
        """`stdin`: the descriptor that becomes every shard's standard input (None: /dev/null)."""
        self._context = context = Context(fabric, routes, on_event)
        self.shards, self.workers = context.shards, context.workers
        self._selector = context.selector
        self._eventfds: list[int] = []
        self._spares = SpareKeeper(context, stdin)
        self._succession = Succession(context, policy)
        self._haste = Haste()
        self._keeper = ShardKeeper(context, self._spares, self._succession, self._haste, backend, doorbells)
        self._hangs = HangWatch(context, hang_deadline)
        self._unclaimed = UnclaimedLog(context)
        self._calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._calls_lock = threading.Lock()
        self._closing = False
        self._round = 0
        self._workers_stopping = False
        self._reported: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="shardio-supervisor", daemon=True)
        try:
            self.state_event = self._eventfd(self._on_state)
            """Rung by every worker whose state changes."""
            self._wake = self._eventfd(self._on_wake)
            start(self._thread)
        except BaseException:
            self._close_descriptors()
            raise

    # ---- from other threads ----

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run `function` in the supervisor's thread."""
        future: Future[T] = Future()
        with self._calls_lock:
            if self._closing:
                future.set_exception(MachineError("the machine is closed", "make a new Machine"))
                return future
            self._calls.append((future, function))
        os.eventfd_write(self._wake, 1)
        return future

    def call(self, function: Callable[[], T]) -> T:
        """The same, and wait for its result."""
        if threading.current_thread() is self._thread:
            return function()
        return self.submit(function).result()

    def close(self) -> None:
        """End the thread. Workers and shards must be gone: see `stop_workers`, `stop_shards`. Idempotent."""
        with self._calls_lock:
            if self._closing:
                return
            self._closing = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._close_descriptors()

    def _eventfd(self, then: Callable[[], None]) -> int:
        fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._eventfds.append(fd)
        self._context.watch(fd, then)
        return fd

    def _close_descriptors(self) -> None:
        self._spares.close()
        self._selector.close()
        for fd in self._eventfds:
            os.close(fd)

    # ---- in the supervisor's thread ----

    def start_worker(self, worker: VcpuWorker) -> None:
        """Spawn and watch a worker."""
        worker.spawn()
        self._context.watch(worker.pidfd, lambda: self._on_worker_death(worker))

    def start_shard(self, shard: ShardProcess) -> None:
        """Start and watch a shard, and give it the devices on its record; it serves when it holds them."""
        self._keeper.start(shard)

    def keep_spare(self) -> None:
        """From now on, have an interpreter warm for the next shard that starts."""
        self._keeper.keep_spare()

    def renew_spare(self) -> None:
        """Have the spare, if one is kept, load what devices have come."""
        self._keeper.renew_spare()

    @property
    def spare_pid(self) -> int:
        """The warm interpreter's process id, 0 while there is none that has loaded all that it should."""
        return self._spares.pid if self._spares.warm else 0

    def stop_workers(self) -> None:
        """Command every worker to stop and reap it; kill one that does not within 2 s."""
        self._workers_stopping = True
        for worker in self.workers:
            worker.command(lib.SIO_STOP)
        self._drain(
            lambda: [worker for worker in self.workers if worker.pidfd >= 0],
            VcpuWorker.kick_again,
            VcpuWorker.kill,
        )

    def stop_shards(self) -> None:
        """Ask every shard to quit and reap it; kill one that does not within 2 s."""
        for shard in self.shards:
            shard.quit()
        self._spares.end()
        self._drain(
            lambda: [shard for shard in self.shards if shard.alive], lambda _shard: None, ShardProcess.kill
        )
        while self._spares.pid:
            self._poll(0.01)

    def _drain(
        self, alive: Callable[[], Sequence[Any]], remind: Callable[[Any], None], kill: Callable[[Any], None]
    ) -> None:
        deadline = time.monotonic() + QUIT_S
        while left := alive():
            late = time.monotonic() > deadline
            for process in left:
                (kill if late else remind)(process)
            self._poll(0.01)

    def _run(self) -> None:
        # For the main thread to act on; an interpreter that still starts inherits the mask; it outlives them.
        signal.pthread_sigmask(signal.SIG_BLOCK, protocol.STOP_SIGNALS)
        lib.sio_quiesce_register()
        lib.sio_membarrier_register()
        self._haste.begin("watch", WATCH_S)
        next_tick = time.monotonic() + TICK_S
        while not self._closing:
            self._poll(max(0.0, next_tick - time.monotonic()))
            if time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + TICK_S
        self._run_calls()
        self._haste.end_all()

    def _poll(self, timeout: float) -> None:
        self._round += 1
        this = self._round
        self._haste.end("round")
        events = self._selector.select(timeout)
        self._haste.begin("round")
        for key, _ in events:
            # Stopping polls too, within one of these: it may have read what the rest of this round tells of.
            if self._round != this:
                return
            # An earlier one of this round may have ended it, and its number may be another's by now.
            if self._selector.get_map().get(key.fd) is not key:
                continue
            try:
                key.data()
            except Exception as error:  # the machine ends with it; the thread must live to take it down
                log.exception("the supervisor failed")
                self._context.on_event("failure", error)

    def _on_wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        self._run_calls()

    def _run_calls(self) -> None:
        with self._calls_lock:
            calls, self._calls = self._calls, []
        for future, function in calls:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

    # ---- workers ----

    def _on_state(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.state_event)
        for worker in self.workers:
            if worker.state > VcpuState.STOPPED and worker.index not in self._reported:
                self._reported.add(worker.index)
                self._context.on_event("vcpu", worker.index)

    def _on_worker_death(self, worker: VcpuWorker) -> None:
        self._context.forget(worker.pidfd)  # reaping closes it
        cause = worker.reap()
        if self._workers_stopping or worker.ended:
            return
        try:
            self.start_worker(worker)
        except (ShardioError, OSError) as error:
            self._context.on_event("failure", error)
        log.info("vCPU %d: its worker died (signal %s); another was started", worker.index, cause)

    # ---- now and then ----

    def _tick(self) -> None:
        now = time.monotonic()
        for shard in self.shards:
            if shard.quarantined:
                self._succession.refuse(shard)  # what was on its way when the map changed
        self._hangs.look(now)
        self._unclaimed.look(now)
        self._on_state()
