"""The supervisor's thread: starts vCPUs and shards, watches them, respawns what dies, kills what hangs.

Facts. A worker or shard dies with the thread that spawned it (PR_SET_PDEATHSIG), so that a killed VMM leaves
nothing; hence every spawn is made here, by a thread that lives as long as the machine. A process's death is a
readable pidfd.

Consequences. All state is this thread's: other threads hand it functions (`call`) and wait. A worker that
died is started again at once and resumes its access; what a user's own process had in flight when it died is
settled. A shard that died gets a successor (`failover`); one that hangs is killed (`hang`), which is the same
as dying.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from shardio._core import lib
from shardio.aside import aside_logger, wait_for_nobody
from shardio.errors import MachineError, ShardioError
from shardio.fabric import Fabric
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.doorbell import DoorbellBackend
from shardio.routing import AddressMap
from shardio.shard import protocol
from shardio.supervisor import events
from shardio.supervisor.context import Context
from shardio.supervisor.exits import UnservedExits
from shardio.supervisor.failover import Failover, Policy
from shardio.supervisor.gil_switch_interval import WATCH_S, GilSwitchInterval
from shardio.supervisor.hang import HangWatch
from shardio.supervisor.prompts import Prompts, TerminalLender
from shardio.supervisor.shard_process import ShardProcess
from shardio.supervisor.spare import SpareKeeper
from shardio.supervisor.spinning import SpinWatch
from shardio.supervisor.unclaimed import UnclaimedLog
from shardio.threads import start
from shardio.vcpu import Vcpu, VcpuState

TICK_S = 0.05
QUIT_S = 2.0
"""How long vCPUs and shards may take to end by themselves before they are killed."""

log = aside_logger("shardio.supervisor")
aside_logger("shardio.fabric")
T = TypeVar("T")


class Supervisor:
    """One dispatcher's supervisor. `shards` and `vcpus` may be used by other threads only through `call`."""

    def __init__(
        self,
        fabric: Fabric,
        routes: AddressMap,
        policy: Callable[[int, bool], Policy],
        on_event: Callable[[events.Event], None],
        *,
        hang_deadline: float = 1.0,
        backend: InterruptBackend | None = None,
        doorbells: DoorbellBackend | None = None,
        stdin: int | None = None,
        exits: UnservedExits | None = None,
        terminal: TerminalLender | None = None,
    ) -> None:
        """`stdin`: the descriptor that becomes every shard's standard input (None: /dev/null). `exits`: what
        becomes of exits that no worker serves (None: they end their vCPU). `terminal`: who lends one to
        devices at `breakpoint()`.
        """
        self._context = context = Context(fabric, routes, on_event, prompts=Prompts(terminal))
        self.shards, self.vcpus = context.shards, context.vcpus
        self._selector = context.selector
        self._eventfds: list[int] = []
        self._spares = SpareKeeper(context, stdin)
        self._switch_interval = GilSwitchInterval()
        self._failover = Failover(
            context, self._spares, policy, self._switch_interval, backend, doorbells
        )
        self._hangs = HangWatch(context, hang_deadline)
        self._unclaimed = UnclaimedLog(context)
        self._exits = exits
        self._spinning = SpinWatch(context.vcpus)
        self._calls: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._calls_lock = threading.Lock()
        self._closing = False
        self._round = 0
        self._vcpus_stopping = False
        self._unsettled: list[Vcpu] = []
        self._reported: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="shardio-supervisor", daemon=True)
        try:
            self.state_event = self._eventfd(self._on_state)
            """Rung by every vCPU whose state changes."""
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
                future.set_exception(MachineError("it is closed", "make a new Machine or Dispatcher"))
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
        """End the thread. vCPUs and shards must be gone: see `stop_vcpus`, `stop_shards`. Idempotent."""
        with self._calls_lock:
            if self._closing:
                return
            self._closing = True
        if self._exits is not None:
            self._exits.close()
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

    def watch(self, readable: int, then: Callable[[], None]) -> None:
        """Call `then` whenever this descriptor is readable."""
        self._context.watch(readable, then)

    def forget(self, readable: int) -> None:
        """Watch it no more."""
        self._context.forget(readable)

    def start_vcpu(self, vcpu: Vcpu) -> None:
        """Spawn and watch a vCPU's process."""
        if self._exits is not None:
            vcpu.ask_about_exits()
            if self._exits.debugger is not None:
                self._exits.debugger.begins(vcpu)
        vcpu.spawn()
        self.watch_vcpu(vcpu)

    def watch_vcpu(self, vcpu: Vcpu) -> None:
        """Watch the process that a vCPU has."""
        self._context.watch(vcpu.pidfd, lambda: self._on_vcpu_death(vcpu))

    def expect_shards(self, count: int) -> None:
        """So many are about to be started."""
        self._spares.expect(count)

    def start_shard(self, shard: ShardProcess) -> None:
        """Start and watch a shard, and give it the devices on its record; it serves when it holds them."""
        self._failover.start(shard)

    def keep_spare(self) -> None:
        """From now on, have an interpreter warm for the next shard that starts."""
        self._failover.keep_spare()

    def fresh_spare(self) -> Future[str]:
        """Have one that loads the devices' modules anew: see `SpareKeeper.renew`."""
        return self._spares.renew()

    def renew_spare(self) -> None:
        """Have the spare, if one is kept, load what devices have come."""
        self._failover.renew_spare()

    @property
    def spare_pid(self) -> int:
        """The warm interpreter's process id, 0 while there is none that has loaded all that it should."""
        return self._spares.pid if self._spares.warm else 0

    def forget_vcpu(self, vcpu: Vcpu) -> None:
        """Watch the process that a vCPU has no more."""
        self._context.forget(vcpu.pidfd)

    def stop_vcpus(self) -> None:
        """Command every vCPU to stop and reap it; kill one that does not within 2 s. A process of the user's
        is let go: its port ends.
        """
        self._vcpus_stopping = True
        for vcpu in self.vcpus:
            vcpu.command(lib.SIO_STOP)
            if not vcpu.resumable():
                self._context.forget(vcpu.pidfd)
                vcpu.kill()
        self._drain(lambda: [vcpu for vcpu in self.vcpus if vcpu.pidfd >= 0], Vcpu.kick_again, Vcpu.kill)
        self._unclaimed.look(math.inf)  # what the last look was too early for

    def stop_shards(self) -> None:
        """Ask every shard to quit and reap it; kill one that does not within 2 s."""
        for shard in self.shards:
            shard.quit()
        self._spares.end()
        self._drain(
            lambda: [shard for shard in self.shards if shard.alive], ShardProcess.flush, ShardProcess.kill
        )
        while not self._spares.gone:
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
        wait_for_nobody()
        lib.sio_membarrier_register()
        self._switch_interval.begin("watch", WATCH_S)
        next_tick = time.monotonic() + TICK_S
        while not self._closing:
            self._poll(max(0.0, next_tick - time.monotonic()))
            if time.monotonic() >= next_tick:
                self._guarded(self._tick)
                next_tick = time.monotonic() + TICK_S
        self._run_calls()
        self._switch_interval.end_all()

    def _poll(self, timeout: float) -> None:
        self._round += 1
        this = self._round
        self._switch_interval.end("round")
        events = self._selector.select(timeout)
        self._switch_interval.begin("round")
        for key, _ in events:
            # Stopping polls too, within one of these: it may have read what the rest of this round tells of.
            if self._round != this:
                return
            # An earlier one of this round may have ended it, and its number may be another's by now.
            if self._selector.get_map().get(key.fd) is not key:
                continue
            self._guarded(key.data)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # the machine ends with it; the thread must live to take it down
            log.exception("the supervisor failed")
            self._context.on_event(events.Failed(f"{type(error).__name__}: {error}"))

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

    # ---- vCPUs ----

    def _on_state(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.state_event)
        for vcpu in self.vcpus:
            if vcpu.state is VcpuState.ASKING and self._exits is not None:
                self._exits.look(vcpu)
            if vcpu.state > VcpuState.STOPPED and vcpu.index not in self._reported:
                self._reported.add(vcpu.index)
                self._context.on_event(events.VcpuEnded(vcpu.index, vcpu.pid, vcpu.describe_end()))

    def _on_vcpu_death(self, vcpu: Vcpu) -> None:
        self._context.forget(vcpu.pidfd)  # reaping closes it
        pid, cause = vcpu.pid, vcpu.reap()
        if self._vcpus_stopping or vcpu.ended:
            return
        if not vcpu.resumable():
            self._unsettled.append(vcpu)
            self._settle()
            self._context.on_event(events.VcpuEnded(vcpu.index, pid, vcpu.describe_end()))
            return
        try:
            self.start_vcpu(vcpu)
        except (ShardioError, OSError) as error:
            self._context.on_event(events.Failed(str(error)))
        log.info("vCPU %d: its worker died (signal %s); another was started", vcpu.index, cause)
        self._context.on_event(events.WorkerReplaced(vcpu.index, cause or 0))

    def _settle(self) -> None:
        """Finish what dead processes of users had in flight, as far as their shards have answered."""
        self._unsettled = [vcpu for vcpu in self._unsettled if not vcpu.settle()]

    # ---- now and then ----

    def _tick(self) -> None:
        now = time.monotonic()
        for shard in self.shards:
            shard.flush()
            if shard.quarantined:
                self._failover.refuse(shard)  # what was on its way when the map changed
        for vcpu in self.vcpus:
            old = vcpu.pidfd
            if vcpu.adopt():
                self._context.forget(old)
                self.watch_vcpu(vcpu)
        self._settle()
        self._hangs.look(now)
        self._unclaimed.look(now)
        if self._exits is not None:
            self._spinning.look(now)
        self._on_state()
