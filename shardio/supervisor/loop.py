"""The supervisor's thread: starts workers and shards, watches them, respawns what dies, kills what hangs.

Facts. A worker or shard dies with the thread that spawned it (PR_SET_PDEATHSIG), so that a killed VMM leaves
nothing; hence every spawn is made here, by a thread that lives as long as the machine. A process's death is a
readable pidfd.

Consequences. All state is this thread's: other threads hand it functions (`call`) and wait. A worker that
died is started again at once and takes up its access. A shard that died is reaped first, then what it had in
flight is settled (`recovery`), then a successor gets its devices and serves. A shard that answers nothing for
`hang_deadline` seconds while a vCPU waits for it is killed, which is the same as dying.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import socket
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
from shardio.interrupt.server import InterruptServer
from shardio.routing import AddressMap
from shardio.shard import protocol
from shardio.supervisor.interpreter import Interpreter
from shardio.supervisor.recovery import Policy, Recovery
from shardio.supervisor.shard_process import ShardProcess
from shardio.vcpu import VcpuState, VcpuWorker

TICK_S = 0.05
LOG_EVERY_S = 1.0
START_S = 30.0
"""How long a shard may take to make its devices before that counts as hanging."""
QUIT_S = 2.0
"""How long workers and shards may take to end by themselves before they are killed."""

log = logging.getLogger("shardio.supervisor")
T = TypeVar("T")

Event = Callable[[str, Any], None]
"""Called with ("exit", status), ("reset", None), ("vcpu", index), ("failure", ShardioError)."""


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
        self.fabric = fabric
        self.routes = routes
        self.shards: list[ShardProcess] = []
        self.workers: list[VcpuWorker] = []
        self.state_event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        """Rung by every worker whose state changes."""
        self._backend, self._doorbells = backend, doorbells
        self._stdin = stdin
        self._spare: Interpreter | None = None
        self._recovery = Recovery(fabric, policy)
        self._on_event = on_event
        self._hang_deadline = hang_deadline
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._calls_lock = threading.Lock()
        self._closing = False
        self._workers_stopping = False
        self._stalled: dict[int, tuple[tuple[int, int], int, float, float]] = {}
        self._reported: set[int] = set()
        self._unclaimed: dict[int, int] = {}
        self._logged_at = 0.0
        self._thread = threading.Thread(target=self._run, name="shardio-supervisor", daemon=True)
        self._selector.register(self._wake, selectors.EVENT_READ, self._on_wake)
        self._selector.register(self.state_event, selectors.EVENT_READ, self._on_state)
        self._thread.start()

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
        self._selector.close()
        for fd in (self._wake, self.state_event):
            os.close(fd)

    # ---- in the supervisor's thread ----

    def start_worker(self, worker: VcpuWorker) -> None:
        """Spawn and watch a worker."""
        worker.spawn()
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._on_worker_death(worker))

    def start_shard(self, shard: ShardProcess) -> None:
        """Start and watch a shard, and give it the devices on its record; it serves when it holds them."""
        interpreter, self._spare = self._spare or Interpreter(self._stdin), None
        shard.start(interpreter, self._interrupt_server(shard))
        self._selector.register(interpreter.pidfd, selectors.EVENT_READ, lambda: self._on_shard_death(shard))
        self._selector.register(
            interpreter.control, selectors.EVENT_READ, lambda: self._on_shard_message(shard)
        )
        self._selector.register(
            interpreter.interrupts, selectors.EVENT_READ, lambda: self._on_interrupt_request(shard)
        )
        shard.restored = not shard.records
        if shard.records:
            shard.add(list(shard.records.values())).add_done_callback(
                lambda done: self._restored(shard, done)
            )
        else:
            shard.serve()

    def _interrupt_server(self, shard: ShardProcess) -> InterruptServer | None:
        if self._backend is None and self._doorbells is None:
            return None

        def owns(address: int, pio: bool) -> bool:
            route = self.routes.find(address, pio=pio)
            return route is not None and shard.index in route.shards

        def grant(lines: int) -> None:
            for worker in self.workers:
                worker.grant_lines(shard.index, lines)

        return InterruptServer(self._backend, doorbells=self._doorbells, owns=owns, grant=grant)

    def keep_spare(self) -> None:
        """Have an interpreter warm for the next shard that starts."""
        if self._spare is None:
            with contextlib.suppress(ShardioError):  # without one, a shard starts cold
                self._spare = Interpreter(self._stdin)

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
        if self._spare is not None:
            self._spare.kill()
        self._drain(
            lambda: [shard for shard in self.shards if shard.alive], lambda _shard: None, ShardProcess.kill
        )
        while self._spare is not None and self._spare.reap() is None:
            self._poll(0.001)
        self._spare = None

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
        # Ctrl-C is for the main thread; an interpreter that still starts inherits this mask and outlives it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        lib.sio_quiesce_register()
        lib.sio_membarrier_register()
        next_tick = time.monotonic() + TICK_S
        while not self._closing:
            self._poll(max(0.0, next_tick - time.monotonic()))
            if time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + TICK_S
        self._run_calls()

    def _poll(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            # An earlier one of this round may have ended it, and its number may be another's by now.
            if self._selector.get_map().get(key.fd) is not key:
                continue
            try:
                key.data()
            except Exception as error:  # the machine ends with it; the thread must live to take it down
                log.exception("the supervisor failed")
                self._on_event("failure", error)

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
                self._on_event("vcpu", worker.index)

    def _on_worker_death(self, worker: VcpuWorker) -> None:
        self._selector.unregister(worker.pidfd)
        cause = worker.reap()
        if self._workers_stopping or worker.ended:
            return
        log.info("vCPU %d: its worker died (signal %s); starting another", worker.index, cause)
        self._guard(lambda: self.start_worker(worker))

    # ---- shards ----

    def _on_shard_message(self, shard: ShardProcess) -> None:
        assert shard.interpreter is not None
        control = shard.interpreter.control
        try:
            message = protocol.receive_in_vmm(control, shard.name)
        except ShardioError as error:
            log.error("%s", error)
            shard.kill()
            return
        match message:
            case None:
                self._selector.unregister(control)  # its pidfd tells of its death
            case protocol.Done():
                shard.answered(message)
            case protocol.ExitRequest(status):
                self._on_event("exit", status & 0xFF)
            case protocol.ResetRequest():
                self._on_event("reset", None)
            case protocol.HandlerFailed(device, text):
                log.debug("device %s: %s", device, text)
            case protocol.Ready():
                pass

    def _on_interrupt_request(self, shard: ShardProcess) -> None:
        assert shard.interpreter is not None
        sock, server = shard.interpreter.interrupts, shard.interrupt_server
        if server is None:
            # Without an in-kernel irqchip nobody can answer: the shard's request fails at once.
            self._selector.unregister(sock)
            sock.shutdown(socket.SHUT_RDWR)
        elif not server.serve(sock):
            self._selector.unregister(sock)

    def _on_shard_death(self, shard: ShardProcess) -> None:
        if (interpreter := shard.interpreter) is None:
            return
        for watched in (interpreter.pidfd, interpreter.control, interpreter.interrupts):
            if watched in self._selector.get_map():
                self._selector.unregister(watched)
        code = shard.reap()
        if shard.quitting:
            return
        log.warning("shard %s died (%s); starting another", shard.name, code)
        self._recovery.settle(shard.index, lambda ranges: self._quarantine(shard, ranges))
        if shard.dies_too_often:
            self._quarantine_shard(shard)
            return
        for worker in self.workers:
            posted = self._posted(worker.index, shard.index)
            lib.sio_recover_taken(self.fabric.view, shard.index, worker.index, posted)
        self._guard(lambda: self.start_shard(shard))
        self.keep_spare()

    def _restored(self, shard: ShardProcess, done: Future[Any]) -> None:
        shard.restored = True
        if (error := done.exception()) is None:
            shard.serve()
        elif not shard.quitting and shard.alive:
            log.error("shard %s cannot hold its devices again: %s", shard.name, error)
            shard.kill()  # dying again and again ends in quarantine

    def _quarantine(self, shard: ShardProcess, ranges: set[int]) -> None:
        log.error("shard %s: a request killed two owners; its range is quarantined", shard.name)
        self.routes.quarantine(ranges)
        self.routes.publish()

    def _quarantine_shard(self, shard: ShardProcess) -> None:
        log.error("shard %s died %d times; its ranges are quarantined", shard.name, len(shard.deaths))
        shard.quarantined = True
        self.routes.drop_shard(shard.index)
        self.routes.publish()
        self._refuse(shard)

    def _refuse(self, shard: ShardProcess) -> None:
        self._recovery.refuse_all(shard.index, lambda vcpu: self._posted(vcpu, shard.index))

    def _posted(self, vcpu: int, shard: int) -> int:
        worker = next((worker for worker in self.workers if worker.index == vcpu), None)
        if worker is not None:
            return int(worker.client.shard[shard].posted)
        return int(lib.sio_credit(self.fabric.view, shard, vcpu).taken)

    def _guard(self, start: Callable[[], None]) -> None:
        try:
            start()
        except (ShardioError, OSError) as error:
            self._on_event("failure", error)

    def _log_unclaimed(self) -> None:
        """What nobody answers is counted by the vCPUs; here it is told, at a limited rate."""
        for worker in self.workers:
            control = self.fabric.view.vcpu[worker.index]
            total = control.unclaimed_reads + control.unclaimed_writes + control.crossing
            new = total - self._unclaimed.get(worker.index, 0)
            if new:
                space = "mmio" if control.unclaimed_space else "pio"
                log.info(
                    "vCPU %d: %d accesses unclaimed, or past their range's end; the last at %s %#x",
                    worker.index,
                    new,
                    space,
                    control.unclaimed_address,
                )
            self._unclaimed[worker.index] = total

    # ---- hangs ----

    def _tick(self) -> None:
        now = time.monotonic()
        for shard in self.shards:
            if shard.quarantined:
                self._refuse(shard)  # what was on its way when the map changed
        for worker in self.workers:
            self._watch_wait(worker, now)
        if now - self._logged_at > LOG_EVERY_S:
            self._logged_at = now
            self._log_unclaimed()
        self._on_state()

    def _watch_wait(self, worker: VcpuWorker, now: float) -> None:
        """Kill the shard that a vCPU has waited for longer than the deadline, and that has not moved since.
        """
        access, target = int(lib.sio_client_pending(worker.client)), int(worker.client.target)
        if not access or worker.ended or target >= len(self.shards):
            self._stalled.pop(worker.index, None)
            return
        shard = self.shards[target]
        progress = self.fabric.progress(target)
        before, progress_before, moved, began = self._stalled.get(worker.index, ((-1, -1), -1, now, now))
        if before != (access, target) or (not shard.restored and now - shard.spawned_at < START_S):
            moved = began = now
        elif progress != progress_before:
            moved = now
        self._stalled[worker.index] = ((access, target), progress, moved, began)
        patience = self._hang_deadline * (len(self.workers) + 1)
        if shard.alive and (now - moved > self._hang_deadline or now - began > patience):
            log.error(
                "shard %s has not answered vCPU %d for %.1f s; killing it",
                shard.name,
                worker.index,
                now - began,
            )
            del self._stalled[worker.index]
            shard.kill()
