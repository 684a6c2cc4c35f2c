"""What every kind of vCPU is to those who drive it.

A vCPU runs in a process of its own. Its state, its journal (what access is in flight) and its counters are in
memory that the VMM maps, so they can be read whether that process lives or not. Three kinds implement it: KVM
workers (`kvm_worker`), software workers (`soft`), and ports in processes that the user runs (`external`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

import msgspec

from shardio._core import lib
from shardio.fabric import LastAccess
from shardio.vcpu.debug import DebugPlan, DebugStop, Watch
from shardio.vcpu.registers import Registers, is_external


class VcpuState(IntEnum):
    """Where a vCPU is. ASKING: it waits for what becomes of an exit (`Machine.on_exit`). From HALTED on it
    has ended.
    """

    NEW = lib.SIO_NEW
    RUNNING = lib.SIO_RUNNING
    PAUSED = lib.SIO_PAUSED
    ASKING = lib.SIO_ASKING
    STOPPED = lib.SIO_STOPPED
    HALTED = lib.SIO_HALTED
    SHUTDOWN = lib.SIO_SHUTDOWN
    SYSTEM = lib.SIO_SYSTEM
    FAILED = lib.SIO_FAILED
    BROKEN = lib.SIO_BROKEN


class ExitCounts(Mapping[str, int]):
    """How often a vCPU left the guest, by the exit's name. A frozen value, as the rest of statistics are.

    >>> counts = ExitCounts({"IO": 3})
    >>> counts, counts["IO"], counts == {"IO": 3}
    (ExitCounts({'IO': 3}), 3, True)
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __hash__(self) -> int:
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return f"ExitCounts({self._counts})"


class VcpuStatistics(msgspec.Struct, frozen=True):
    """A vCPU's exits by name, its times in nanoseconds, and how often its worker had to be started.

    `pid`: the worker's process, 0 while none lives. `last_unclaimed`, `last_crossing`: the last access that
    nobody claimed, and that ran past its range's end; None where there was none. `repairs`: how often an
    instruction that KVM's emulator lacks was executed in its place, by the instruction's name. `cpu_ns`: the
    CPU time that its process has had, 0 while none lives; `guest_ns`: what of it went to guest code, 0 where
    KVM and the kernel do not tell that apart (PVM does not, nor the software CPU).
    """

    state: VcpuState
    exits: ExitCounts
    string_exits: int
    interrupted: int
    running_ns: int
    waiting_ns: int
    spawns: int
    unclaimed_reads: int
    unclaimed_writes: int
    crossing: int
    last_unclaimed: LastAccess | None
    last_crossing: LastAccess | None
    lost_wakeups: int
    malformed: int
    pid: int
    repairs: ExitCounts
    cpu_ns: int = 0
    guest_ns: int = 0


class Vcpu(ABC):
    """One vCPU. Any thread may use its properties and, while it stands still, what changes its state:
    `registers`, `raise_exception`, `cancel_exception`. All other methods are for the supervisor's thread.

    `index`: its number; `pid`, `pidfd`: its process, 0 and -1 while there is none.
    """

    index: int
    pid: int = 0
    pidfd: int = -1
    held: bool = False
    """A debugger has it stand still at an exit: it neither parks nor runs until the debugger lets it."""

    @property
    @abstractmethod
    def client(self) -> Any:
        """Its `struct sio_client *`: the journal. The pointers in it may be another process's."""

    @property
    @abstractmethod
    def state(self) -> VcpuState:
        """What it last said. One whose process was killed has not said so: see `pidfd`."""

    @property
    def ended(self) -> bool:
        """Whether it is past running: stopped, halted for good, or failed."""
        return self.state >= VcpuState.STOPPED

    @abstractmethod
    def spawn(self) -> None:
        """Start its process; a previous one must be dead and reaped. The new one resumes the access in
        flight.

        Raises `VcpuError`.
        """

    @abstractmethod
    def command(self, command: int) -> None:
        """Tell it to run, pause or stop (`lib.SIO_RUN` and so on), and kick it out of the guest."""

    @abstractmethod
    def kick_again(self) -> None:
        """Repeat the kick of a command that it has not acted on yet."""

    @abstractmethod
    def wait(self, state: VcpuState, timeout_ns: int) -> VcpuState:
        """Wait until the state is not `state`, at most `timeout_ns` nanoseconds; returns the state."""

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL, where there is a process that is ours."""

    @abstractmethod
    def reap(self) -> int | None:
        """Collect the process if it has ended: the number of the signal that killed it (0: it left by itself,
        or nobody knows), else None.
        """

    def settle(self) -> bool:
        """After a death that nobody resumes: finish what is in flight. False: ask again."""
        return True

    def resumable(self) -> bool:
        """Whether `spawn` goes on exactly where a dead process stopped."""
        return True

    def adopt(self) -> bool:
        """Whether a process that was not spawned here has become its own; `pidfd` is that one's then."""
        return False

    def grant_lines(self, shard: int, lines: int) -> None:
        """From now on it raises these interrupt lines (bit n: GSI n) for `shard` at the end of an access, and
        no others.
        """
        self.client.granted[shard] = lines

    @abstractmethod
    def describe_end(self) -> str:
        """Why it ended: the exit by name, what is known about it, and the registers."""

    @property
    @abstractmethod
    def registers(self) -> Registers:
        """Its registers, while it is paused, at an exit that a hook is asked about, or has ended; none where
        the process that runs it has them to itself.
        """

    @property
    def mp_state(self) -> str:
        """Its multiprocessing state: "runnable", "halted", "uninitialized" (an AP before its INIT) and so on;
        "unknown" where nobody tells.
        """
        return "unknown"

    @property
    def pending_exception(self) -> int | None:
        """The vector of an exception that the guest gets when it goes on, None without one."""
        return None

    def raise_exception(self, vector: int, error_code: int | None = None) -> None:
        """Have the guest enter the handler of this vector when it goes on. `rip` is where the handler is to
        return to. `error_code`: for those vectors that have one.
        """
        raise is_external(self.index)

    def cancel_exception(self) -> None:
        """The guest gets no exception when it goes on: KVM raises #UD for what it could not emulate."""
        raise is_external(self.index)

    # ---- exits that its worker does not serve ----

    def ask_about_exits(self) -> None:
        """From now on its worker stands still at exits that it does not serve, until an `answer`."""
        raise is_external(self.index)

    @property
    def asked(self) -> bool:
        """Whether it waits for an `answer`."""
        return False

    @property
    def exit(self) -> Any:
        """The exit at which it stands: `shardio.kvm.OtherExit` has its name and details."""
        return None

    def answer(self, verdict: int) -> None:
        """What becomes of the exit: `lib.SIO_GO_ON`, SIO_TRY_AGAIN (which is bounded) or SIO_GIVE_UP."""
        raise is_external(self.index)

    @property
    def exit_total(self) -> int | None:
        """How often it has left the guest, None where that is not worth an `inspect`."""
        return None

    def inspect(self) -> None:
        """Have it ask, with an exit that says so (`inspected`), although nothing has made it leave the guest:
        it may be at an instruction that KVM executes again and again.
        """
        raise is_external(self.index)

    @property
    def inspected(self) -> bool:
        """Whether it asks because of `inspect` alone, and is to go on."""
        return False

    def repair(self) -> str | None:
        """Execute the instruction that KVM's emulator lacks: its name, None where this is no such exit."""
        return None

    # ---- a debugger ----

    @property
    def trap(self) -> bytes:
        """The instruction that a debugger plants in guest memory as a breakpoint; empty where the CPU knows
        breakpoints by their address (`DebugPlan.breakpoints`).
        """
        return b""

    def check_watch(self, watch: Watch) -> None:
        """Raises `VcpuError` for memory that cannot be watched so."""
        raise is_external(self.index)

    def check_room(self, breakpoints: int, hardware: int, watches: int) -> None:
        """Raises `VcpuError` for more breakpoints, hardware breakpoints and watchpoints than it can have."""
        raise is_external(self.index)

    def set_debug(self, plan: DebugPlan) -> None:
        """How it goes on at the next `answer`. It stands still. Raises `VcpuError` for more than it can do.
        """
        raise is_external(self.index)

    def debug_stop(self, plan: DebugPlan) -> DebugStop | None:
        """Why it stands at this exit, with which it was let go on by `plan`; None where that is not for the
        debugger. A guest's own INT3 that was taken for a breakpoint is given back to the guest.
        """
        return None

    def translate(self, linear: int) -> int | None:
        """The guest-physical address of a linear one by the guest's page tables, None where nothing is
        mapped. It stands still.
        """
        raise is_external(self.index)

    @property
    def linear_pc(self) -> int:
        """The linear address of the instruction at which it stands."""
        return (self.registers.segment("cs").base + self.registers["rip"]) & 0xFFFF_FFFF_FFFF_FFFF

    @abstractmethod
    def statistics(self, elapsed_ns: int) -> VcpuStatistics:
        """Frozen counters; `elapsed_ns` is how long it has been in the running state."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds; its process must be reaped. Idempotent."""
