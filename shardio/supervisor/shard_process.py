"""One shard seen from the VMM: its process, its control socket, and the devices that it must hold.

Used in the supervisor's thread alone: a shard dies with the thread that spawned it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from shardio._core import lib
from shardio.errors import DeviceFailed, MachineError, ShardError
from shardio.fabric import Fabric
from shardio.interrupt.server import InterruptServer
from shardio.shard import protocol
from shardio.supervisor.interpreter import Interpreter

BATCH_BYTES = 64 * 1024
DEATHS = 5
DEATHS_WITHIN_S = 10.0

log = logging.getLogger("shardio.supervisor")


class DeviceRecord:
    """What a shard must be told to hold a device: its specification, and the descriptors that go with it, in
    the order of `spec.passed`.
    """

    __slots__ = ("fds", "spec")

    def __init__(self, spec: protocol.DeviceSpec, fds: Sequence[int]) -> None:
        self.spec = spec
        self.fds = tuple(fds)


class Reply(Future[Any]):
    """A shard's answer. Its result stays packed until somebody asks for it, in whose thread it is unpacked.
    """

    def __init__(self, shard: str) -> None:
        super().__init__()
        self._shard = shard

    def result(self, timeout: float | None = None) -> Any:
        """See `Future.result`. Raises `ShardError` for a result that cannot be read."""
        return protocol.unpack_result(super().result(timeout), self._shard)


class ShardProcess:
    """A shard by number and name; `cpu`: where it is pinned, None anywhere."""

    def __init__(
        self, fabric: Fabric, index: int, name: str, *, cpu: int | None = None, max_deaths: int = DEATHS
    ) -> None:
        """`max_deaths`: with so many within 10 s it is given up; 0: never."""
        self.fabric = fabric
        self.index = index
        self.name = name
        self.cpu = cpu
        self.doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.interpreter: Interpreter | None = None
        self.interrupt_server: InterruptServer | None = None
        self.spawns = 0
        self.deaths: deque[float] = deque(maxlen=max_deaths or 1)
        self._max_deaths = max_deaths
        self.records: dict[str, DeviceRecord] = {}
        self._unheld: set[str] = set()
        """Names on its record that it has not been seen to hold: new ones, for which `add` waits."""
        self.restored = False
        """It holds all devices on its record."""
        self.spawned_at = 0.0
        self.died_at = 0.0
        """When its last death was noticed, in seconds of the monotonic clock; 0 before the first."""
        self.quarantined = False
        self.quitting = False
        self.making_way = False
        """Its process has been asked to end for a successor: that is no death."""
        self._reloaded: Future[None] | None = None
        self._serial = 0
        self._remains: list[Callable[[], None]] = []
        self._waiting: dict[int, Future[Any]] = {}
        self._shared: list[tuple[protocol.Share, int]] = []
        self._told: set[protocol.Share] = set()

    def share(self, what: protocol.Share, fd: int) -> None:
        """Whoever is this shard maps `what` behind `fd`: it is told before the next devices, once a
        process.
        """
        if all(known != what for known, _ in self._shared):
            self._shared.append((what, fd))

    @property
    def pid(self) -> int:
        """The process's id, 0 when there is none."""
        return self.interpreter.pid if self.interpreter is not None else 0

    @property
    def alive(self) -> bool:
        """Whether there is a process that is not reaped."""
        return self.interpreter is not None

    def start(self, interpreter: Interpreter, server: InterruptServer | None) -> None:
        """Make a warm interpreter this shard; `server` answers for its interrupts and doorbells. Its
        predecessor must be dead and reaped.
        """
        lib.sio_recover_epoch(self.fabric.view, self.index)
        self.interpreter = interpreter
        self.interrupt_server = server
        self.making_way = False
        if self.cpu is not None:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(interpreter.pid, {self.cpu})
        self._told.clear()
        self.spawns += 1
        self.spawned_at = time.monotonic()
        with contextlib.suppress(OSError):  # its death is noticed by its pidfd
            level = logging.getLogger("shardio").getEffectiveLevel()
            self._send(protocol.Setup(self.index, self.name, sys.path, level), (self.doorbell,))

    def add(self, records: Sequence[DeviceRecord], *, serve: bool = False) -> Future[Any]:
        """Give devices to the shard: the future is done when it holds them all. Messages hold what fits.
        `serve`: it begins to drain its rings when it does.
        """
        self._tell_shared()
        # On its record first: what its devices may ask for is read there, and one may ask at once.
        for record in records:
            if record.spec.name not in self.records:
                self._unheld.add(record.spec.name)
            self.records[record.spec.name] = record
        batches = _batches(records)
        needed = tuple(self.declared("capabilities"))
        answers = [
            self.request(*_message(batch, serve and batch is batches[-1], needed)) for batch in batches
        ]
        added = _all(answers)
        added.add_done_callback(lambda done: self._added(records, done))
        return added

    def declared(self, what: Literal["capabilities", "message_modes"]) -> frozenset[str]:
        """What the devices on its record declare, all together."""
        return frozenset().union(*(getattr(record.spec, what) for record in self.records.values()))

    def _tell_shared(self) -> None:
        for what, fd in self._shared:
            if what not in self._told:
                with contextlib.suppress(OSError):  # its death is noticed by its pidfd
                    self._send(what, (fd,))
                    self._told.add(what)

    def _added(self, records: Sequence[DeviceRecord], done: Future[Any]) -> None:
        if done.exception() is None:
            self._unheld.difference_update(record.spec.name for record in records)

    def request(self, make: Callable[[int], Any], fds: Sequence[int] = ()) -> Future[Any]:
        """Send what `make(serial)` gives; the future ends with the shard's answer, or a `ShardError` when it
        dies.
        """
        future: Future[Any] = Reply(self.name)
        self._serial += 1
        self._waiting[self._serial] = future
        try:
            self._send(make(self._serial), fds)
        except MachineError as error:
            del self._waiting[self._serial]
            future.set_exception(error)
        except OSError as error:
            del self._waiting[self._serial]
            future.set_exception(
                ShardError(self.name, f"cannot be reached: {error}", "see why it died in its log")
            )
        return future

    def serve(self) -> None:
        """Let it drain its rings."""
        with contextlib.suppress(OSError):  # its death is noticed by its pidfd
            self._send(protocol.Serve())

    def lend_terminal(self, fd: int | None) -> None:
        """The terminal that it asked for is its own, or there is none."""
        with contextlib.suppress(OSError):  # its death is noticed by its pidfd
            self._send(protocol.Terminal(fd is not None), () if fd is None else (fd,))

    def answered(self, done: protocol.Done) -> None:
        """The shard's answer to a request; one that nobody waits for is ignored."""
        future = self._waiting.pop(done.serial, None)
        if future is None:
            return
        if done.error is None:
            future.set_result(done.result)
        else:
            future.set_exception(self._error(done, done.error))

    def _error(self, done: protocol.Done, text: str) -> MachineError:
        """What the shard said of a request that failed. Its traceback, if a device's code raised, is a note.
        """
        if (failure := done.failure) is None:
            return MachineError(f"shard {self.name}: {text}", done.hint)
        error = DeviceFailed(failure.device, failure.kind, self.name, failure.step, text, done.hint)
        error.add_note(f"in shard {self.name}:\n{failure.trace.rstrip()}")
        return error

    def waits_for(self, serial: int) -> bool:
        """Whether somebody waits for the answer to this request."""
        return serial in self._waiting

    def flush(self) -> None:
        """Send what waits for room, as far as there is room now. Call it now and then."""
        if self.interpreter is not None and not self.interpreter.outbox.flush():
            self._end_deaf()

    def _end_deaf(self) -> None:
        log.error("shard %s does not take what it is sent; killing it", self.name)
        self.kill()

    def quit(self) -> None:
        """Ask it to detach its devices and end. It gets no successor."""
        self.quitting = True
        self._ask_to_end()

    def reload(self) -> Future[None]:
        """The same for the sake of a successor, which is started as if it had died. The future is done when
        that holds its devices, or fails with what keeps it from making them.
        """
        self.making_way = True
        reloaded: Future[None] = Future()
        self._reloaded = reloaded
        self._ask_to_end()
        return reloaded

    def end_reload(self, error: BaseException | None = None) -> None:
        """The successor holds the devices, or does not, for this reason. No effect where nobody waits."""
        reloaded, self._reloaded = self._reloaded, None
        if reloaded is not None and error is None:
            reloaded.set_result(None)
        elif reloaded is not None:
            reloaded.set_exception(error)

    def _ask_to_end(self) -> None:
        with contextlib.suppress(OSError):
            self._send(protocol.Quit())

    def kill(self) -> None:
        """SIGKILL, where there is a process."""
        if self.interpreter is not None:
            self.interpreter.kill()

    def reap(self) -> int | None:
        """Collect a dead process: its return code (negative: a signal); None when it lives, or there is none.
        What it had in the VMM stays until `release`, so that a successor need not wait for that. Devices
        that it was only about to hold go from its record: their `add` fails, and one of them may be what
        ended it.
        """
        if (interpreter := self.interpreter) is None or (code := interpreter.reap()) is None:
            return None
        if not self.making_way:
            self.deaths.append(time.monotonic())
        for name in self._unheld:
            self.records.pop(name, None)
        self._unheld.clear()
        server, waiting = self.interrupt_server, self._waiting
        self.interpreter, self.interrupt_server, self._waiting = None, None, {}
        error = ShardError(self.name, f"died ({cause(code)}) before it answered", "see its log")

        def release() -> None:
            interpreter.close()
            if server is not None:
                server.close()
            for future in waiting.values():
                future.set_exception(error)

        self._remains.append(release)
        return code

    def release_process(self) -> None:
        """Give back what a reaped process had in the VMM: descriptors, interrupts, unanswered requests."""
        while self._remains:
            self._remains.pop()()

    @property
    def dies_too_often(self) -> bool:
        """Whether it has died `max_deaths` times within 10 s."""
        many = self._max_deaths and len(self.deaths) == self._max_deaths
        return bool(many) and self.deaths[-1] - self.deaths[0] < DEATHS_WITHIN_S

    def close(self) -> None:
        """Let the doorbell go; the process must be reaped. Idempotent."""
        if self.doorbell >= 0:
            os.close(self.doorbell)
            self.doorbell = -1

    def _send(self, message: protocol.ToShard, fds: Sequence[int] = ()) -> None:
        if self.interpreter is None:
            raise OSError("it has no process")
        if not self.interpreter.outbox.send(message, fds):
            self._end_deaf()
            raise OSError("it does not take what it is sent")


def _all(answers: Sequence[Future[Any]]) -> Future[Any]:
    """Done when every answer is there; fails as the first of them that failed."""
    whole: Future[Any] = Future()
    left = len(answers)

    def one(answer: Future[Any]) -> None:
        nonlocal left
        left -= 1
        if (error := answer.exception()) is not None and not whole.done():
            whole.set_exception(error)
        elif left == 0 and not whole.done():
            whole.set_result(None)

    if not answers:
        whole.set_result(None)
    for answer in answers:
        answer.add_done_callback(one)
    return whole


def cause(code: int) -> str:
    """A return code in words: the signal's name, or the exit status."""
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _batches(records: Sequence[DeviceRecord]) -> list[list[DeviceRecord]]:
    batches: list[list[DeviceRecord]] = []
    size = fds = 0
    for record in records:
        device = record.spec.device
        weight = len(device.factory) + len(device.options) + 200 + 60 * len(record.spec.ranges)
        if not batches or size + weight > BATCH_BYTES or fds + len(record.fds) > protocol.MAX_FDS:
            batches.append([])
            size = fds = 0
        batches[-1].append(record)
        size += weight
        fds += len(record.fds)
    return batches


def _message(
    batch: Sequence[DeviceRecord], serve: bool, capabilities: tuple[str, ...]
) -> tuple[Callable[[int], protocol.AddDevices], list[int]]:
    """The devices, and their descriptors one after the other."""
    specs = [record.spec for record in batch]
    fds = [fd for record in batch for fd in record.fds]
    return (lambda serial: protocol.AddDevices(serial, specs, serve, capabilities)), fds
