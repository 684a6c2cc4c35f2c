"""What a debugger does to a machine: its vCPUs stop together, go on one by one, and its memory is changed.

Facts. A vCPU stops by asking about an exit, and stands still until it is answered (`VcpuState.ASKING`); the
supervisor's thread finds it there and asks `takes` whose exit it is. A vCPU whose worker is killed meanwhile
asks again. One that the machine's user has paused stands still too, but does not ask.

Consequences. `stop` makes every vCPU ask; those that come to a breakpoint ask by themselves. `go_on` gives
each its plan and its answer. Two threads meet here, the supervisor's and the debugger's, under one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from shardio._core import lib
from shardio.dispatcher.life import Life, State
from shardio.errors import DebuggerError, MemoryAccessError
from shardio.gdb.breakpoints import Breakpoints
from shardio.memory import PAGE_SIZE, GuestMemory
from shardio.supervisor.exits import UnservedExits
from shardio.vcpu import DebugPlan, DebugStop, Vcpu, VcpuState

STOP_S = 1.5
"""How long the vCPUs may take to stop; a debugger waits two seconds for an answer."""
_LOOK_S = 0.02


class Mode(Enum):
    """How a vCPU is to be: standing still, going on, going one step, or going one step off a breakpoint in a
    debug register and then on."""

    STOP = "stop"
    GO = "go"
    STEP = "step"
    STEP_OFF = "step off"


@dataclass
class _Thread:
    """One vCPU: how it is to be, the plan that it went on with, from where, and why it stands still."""

    mode: Mode = Mode.GO
    plan: DebugPlan = field(default_factory=DebugPlan)
    begin: int = -1
    stop: DebugStop | None = None
    told: bool = False
    """Whether the debugger knows of `stop`."""
    passed: bool = False
    """Its fault is known, and goes its way now."""


class Target:
    """The vCPUs and the memory of a machine. `vcpus`: them, none before the start; `exits`: where they ask;
    `news`: called, in the supervisor's thread, when one has stopped by itself.
    """

    def __init__(
        self,
        vcpus: Callable[[], Sequence[Vcpu]],
        exits: UnservedExits,
        memory: GuestMemory,
        news: Callable[[], None],
    ) -> None:
        self._vcpus, self._exits, self._memory, self._news = vcpus, exits, memory, news
        self._changed = threading.Condition()
        self._threads: dict[int, _Thread] = {}
        self.breakpoints = Breakpoints(memory, self.standing)
        self._wrote = False
        self._attached = False
        self._going: frozenset[int] = frozenset()
        """The vCPUs that went on the last time: only of these a stop is to be told."""

    # ---- coming and going ----

    @property
    def vcpus(self) -> Sequence[Vcpu]:
        """Those that there are."""
        return self._vcpus()

    def begun(self, life: Life) -> bool:
        """Whether all of them have begun, so that they can stand still."""
        states = [vcpu.state for vcpu in self.vcpus] if life.state >= State.RUNNING else []
        return bool(states) and VcpuState.NEW not in states

    def attach(self) -> None:
        """From now on exits are told here; vCPUs that begin stand still at their first instruction."""
        with self._changed:
            self._attached = True
            self._exits.debugger = self
            self._going = frozenset(vcpu.index for vcpu in self.vcpus)
            for vcpu in self.vcpus:
                self._thread(vcpu).mode = Mode.STOP

    def detach(self) -> None:
        """Everything is as if there had been no debugger, and the guest goes on. Idempotent."""
        if not self._attached:
            return
        self.stop()
        with self._changed:
            self.breakpoints.clear()
            self._attached = False
            for vcpu in self.vcpus:
                self._let_go(vcpu, self._thread(vcpu), Mode.GO)

    # ---- in the supervisor's thread ----

    def begins(self, vcpu: Vcpu) -> None:
        """A vCPU's worker is about to be started."""
        with self._changed:
            if self._thread(vcpu).mode is Mode.STOP:
                vcpu.inspect()

    def takes(self, vcpu: Vcpu) -> bool:
        """Whether the exit about which `vcpu` asks is the debugger's, who answers it then."""
        with self._changed:
            thread = self._thread(vcpu)
            if thread.stop is not None or not vcpu.asked:
                return True
            stop = vcpu.debug_stop(thread.plan)
            if stop is None and self._attached and vcpu.inspected:
                stop = self._inspected(vcpu, thread)
            if stop is None:
                return False
            if not self._attached:  # what it went on with before the debugger went away
                self._let_go(vcpu, thread, Mode.GO, asks=True)
                return True
            if thread.mode is Mode.STEP_OFF and stop.kind == "step":
                self._let_go(vcpu, thread, Mode.GO, asks=True)
                return True
            self._hold(vcpu, thread, stop)
            return True

    def takes_fault(self, vcpu: Vcpu) -> bool:
        """Whether the debugger looks at the exit first that ends this vCPU: once."""
        with self._changed:
            thread = self._thread(vcpu)
            if thread.passed or not self._attached:
                return False
            if thread.stop is not None or not vcpu.asked:
                return True
            self._hold(vcpu, thread, DebugStop("fault", detail=str(vcpu.exit)))
            return True

    def _inspected(self, vcpu: Vcpu, thread: _Thread) -> DebugStop | None:
        if thread.mode is Mode.STOP:
            return DebugStop("halt")
        steps = thread.mode in (Mode.STEP, Mode.STEP_OFF)
        return DebugStop("step") if steps and vcpu.linear_pc != thread.begin else None

    def _hold(self, vcpu: Vcpu, thread: _Thread, stop: DebugStop) -> None:
        thread.stop, thread.told = stop, stop.kind == "halt"
        vcpu.held = True
        self._changed.notify_all()
        if not thread.told:
            self._news()

    # ---- stopping and going on ----

    def stop(self) -> None:
        """Every vCPU stands still, or is to: one that waits for a device stops when that has answered."""
        vcpus = self.vcpus
        with self._changed:
            for vcpu in vcpus:
                self._thread(vcpu).mode = Mode.STOP
            tries = int(STOP_S / _LOOK_S)
            while (left := [vcpu for vcpu in vcpus if not self.stands(vcpu)]) and tries:
                for vcpu in left:
                    vcpu.inspect()
                tries -= 1
                self._changed.wait(_LOOK_S)

    def stands(self, vcpu: Vcpu) -> bool:
        """Whether it stands still for the debugger, its user, or for good."""
        return vcpu.held or vcpu.state is VcpuState.PAUSED or vcpu.ended

    def next_stop(self) -> tuple[Vcpu, DebugStop] | None:
        """A vCPU that stopped by itself and of which the debugger has not heard; it has, from now on."""
        with self._changed:
            for vcpu in self.vcpus:
                thread = self._thread(vcpu)
                if vcpu.index in self._going and thread.stop is not None and not thread.told:
                    thread.told = True
                    return vcpu, thread.stop
        return None

    def go_on(self, modes: Mapping[int, Mode]) -> bool:
        """The vCPUs of these numbers go on, each as its mode says. False where one of them stands at
        something of which the debugger has not heard: then none does.

        Raises `VcpuError` where the processor cannot do that.
        """
        with self._changed:
            threads = {vcpu: self._thread(vcpu) for vcpu in self.vcpus if vcpu.index in modes}
            self._going = frozenset(modes)
            news = [self._is_news(vcpu, thread) for vcpu, thread in threads.items()]
            if any(news):
                return False
            for vcpu, thread in threads.items():
                self._let_go(vcpu, thread, modes[vcpu.index])
            self._wrote = self._wrote and len(threads) < len(self.vcpus)
        return True

    def _is_news(self, vcpu: Vcpu, thread: _Thread) -> bool:
        if thread.stop is None or thread.told:
            return False
        if thread.stop.kind == "breakpoint" and vcpu.linear_pc not in self.breakpoints:
            thread.told = True  # it has been removed since
            return False
        return True

    def _let_go(self, vcpu: Vcpu, thread: _Thread, mode: Mode, *, asks: bool = False) -> None:
        if vcpu.ended or not (asks or self.stands(vcpu)):
            thread.mode = mode
            return
        thread.begin = vcpu.linear_pc
        at_hardware = vcpu.trap and thread.begin in self.breakpoints.hardware
        if mode is Mode.GO and at_hardware and thread.mode is not Mode.STEP_OFF:
            mode = Mode.STEP_OFF
        thread.plan = self.breakpoints.plan(step=mode in (Mode.STEP, Mode.STEP_OFF), wrote=self._wrote)
        vcpu.set_debug(thread.plan)
        fault = thread.stop is not None and thread.stop.kind == "fault"
        thread.mode, thread.stop, thread.passed = mode, None, fault
        vcpu.held = False
        if fault:
            self._exits.look(vcpu)
        elif vcpu.asked:
            vcpu.answer(lib.SIO_GO_ON)

    def _thread(self, vcpu: Vcpu) -> _Thread:
        if vcpu.index not in self._threads:
            self._threads[vcpu.index] = _Thread(Mode.STOP if self._attached else Mode.GO)
        return self._threads[vcpu.index]

    # ---- memory ----

    def read(self, vcpu: Vcpu, linear: int, length: int) -> bytes:
        """As much as there is, from the first byte on. Breakpoints that are planted do not show."""
        found = bytearray()
        while len(found) < length:
            part = self._reach(vcpu, linear + len(found), length - len(found))
            if part is None:
                break
            found += part
        self.breakpoints.hide(linear, found)
        return bytes(found)

    def _reach(self, vcpu: Vcpu, linear: int, length: int) -> memoryview | None:
        physical = vcpu.translate(linear)
        if physical is None:
            return None
        try:
            return self._memory.view(physical, min(length, PAGE_SIZE - linear % PAGE_SIZE))
        except MemoryAccessError:
            return None

    def write(self, vcpu: Vcpu, linear: int, data: bytes) -> None:
        """All of it. Raises `DebuggerError` where that is not RAM, with nothing written."""
        views, done = [], 0
        while done < len(data):
            view = self._reach(vcpu, linear + done, len(data) - done)
            if view is None:
                raise DebuggerError(f"{linear + done:#x} is not in RAM")
            views.append(view)
            done += len(view)
        for view in views:
            view[:], data = data[: len(view)], data[len(view) :]
        self._wrote = True

    def standing(self) -> Vcpu:
        """A vCPU that stands still. Raises `DebuggerError` where none does."""
        found = next((vcpu for vcpu in self.vcpus if self.stands(vcpu)), None)
        if found is None:
            raise DebuggerError("no vCPU stands still")
        return found

