"""A vCPU worker seen from the VMM: a process that runs one vCPU, in C, in this address space
(native/worker.c).

A worker may die at any instruction; `spawn` starts another on the same vCPU, which takes up the access in
flight. All methods are called from the supervisor's thread: a worker dies with the thread that spawned it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

import msgspec

from shardio._core import ffi, lib
from shardio.errors import VcpuError
from shardio.fabric import Fabric
from shardio.fabric.client import set_up
from shardio.fabric.statistics import copied
from shardio.kvm.exits import EXIT_NAMES, decode
from shardio.kvm.vcpu import Vcpu

STACK_SIZE = 64 * 1024


class VcpuState(IntEnum):
    """Where a vCPU is; from HALTED on it has ended and `VcpuStatistics.reason` says by what exit."""

    NEW = lib.SIO_NEW
    RUNNING = lib.SIO_RUNNING
    PAUSED = lib.SIO_PAUSED
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

    `pid`: the worker's process, 0 while none lives.
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
    lost_wakeups: int
    hostile: int
    pid: int


class VcpuWorker:
    """The worker of one vCPU. `event`: an eventfd rung at every change of state; `cpu`: where it is pinned,
    None anywhere; `vm_fd`: the VM, for KVM_IRQ_LINE (-1: it raises none).
    """

    def __init__(
        self,
        vcpu: Vcpu,
        fabric: Fabric,
        doorbells: Mapping[int, int],
        event: int,
        cpu: int | None = None,
        *,
        vm_fd: int = -1,
    ) -> None:
        self.vcpu = vcpu
        self.index = vcpu.index
        self.pid = 0
        self.pidfd = -1
        self._fabric = fabric
        self._segment: Any = fabric.view  # mapped for as long as a worker may run
        self._stack = ffi.NULL
        self.view = ffi.new("struct sio_vcpu *")
        set_up(ffi.addressof(self.view, "client"), fabric, vcpu.index, doorbells, 1)
        self.view.client.coalesced = ffi.cast("uint32_t *", vcpu.coalesced_ring)
        self.view.run = ffi.cast("struct kvm_run *", vcpu.run_page)
        self.view.run_size = vcpu.run_size
        self.view.fd = vcpu.fd
        self.view.vm_fd = vm_fd
        self.view.event = event
        self.view.parent = os.getpid()
        self.view.affinity = -1 if cpu is None else cpu

    @property
    def client(self) -> Any:
        """The worker's `struct sio_client *`."""
        return ffi.addressof(self.view, "client")

    @property
    def state(self) -> VcpuState:
        """What the worker last said. A worker that was killed has not said so: see `pidfd`."""
        return VcpuState(lib.sio_vcpu_state(self.view))

    @property
    def ended(self) -> bool:
        """Whether the vCPU is past running: stopped, halted for good, or failed."""
        return self.state >= VcpuState.STOPPED

    def spawn(self) -> None:
        """Start a worker; the previous one must be dead and reaped. Raises `VcpuError` when clone fails."""
        if self._stack == ffi.NULL:
            self._stack = lib.sio_worker_stack(STACK_SIZE)
            if self._stack == ffi.NULL:
                raise VcpuError(self.index, "no memory for its stack", "free memory on the host")
        pidfd = ffi.new("int *", -1)
        pid = lib.sio_worker_spawn(self.view, self._stack, STACK_SIZE, pidfd)
        if pid < 0:
            cure = "raise the limits on processes and open files (ulimit -u, -n)"
            raise VcpuError(self.index, f"clone failed: {os.strerror(-pid)}", cure)
        self.pid, self.pidfd = pid, pidfd[0]

    def grant_lines(self, shard: int, lines: int) -> None:
        """From now on the worker raises these interrupt lines (bit n: GSI n) for `shard` at the end of an
        access, and no others.
        """
        self.view.client.granted[shard] = lines

    def command(self, command: int) -> None:
        """Tell the worker to run, pause or stop (`lib.SIO_RUN` and so on), kicking it out of KVM_RUN."""
        lib.sio_vcpu_command(self.view, command, self.pid)

    def kick_again(self) -> None:
        """Repeat the kick of a command that the worker has not acted on yet."""
        lib.sio_vcpu_command(self.view, self.view.command, self.pid)

    def kill(self) -> None:
        """SIGKILL, where there is a worker."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):  # the program has reaped it already
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> int | None:
        """Collect the worker if it has ended: its wait status's signal number (0: it left by itself, or
        nobody knows), else None.

        A program that ignores SIGCHLD, or waits for any child, may have collected it first.
        """
        if self.pidfd < 0:
            return None
        cause = 0
        try:
            ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            pass
        else:
            if ended is None:
                return None
            cause = ended.si_status if ended.si_code != os.CLD_EXITED else 0
        os.close(self.pidfd)
        self.pid, self.pidfd = 0, -1
        return cause

    def close(self) -> None:
        """Give the stack back; the worker must be reaped. Idempotent."""
        if self._stack != ffi.NULL:
            lib.sio_worker_stack_free(self._stack, STACK_SIZE)
            self._stack = ffi.NULL
        self._segment = None

    def describe_end(self) -> str:
        """Why an ended vCPU ended: the exit by name, what KVM tells about it, and the registers."""
        if self.state is VcpuState.BROKEN:
            return f"KVM_RUN: {os.strerror(self.view.detail)}\n{self.vcpu.dump()}"
        exit_ = decode(self.view.run)
        return f"{exit_}\n{self.vcpu.dump()}" if self.state is VcpuState.FAILED else str(exit_)

    def statistics(self, elapsed_ns: int) -> VcpuStatistics:
        """Frozen counters; `elapsed_ns` is how long the vCPU has been in the running state."""
        view, counters = self.view, self._fabric.vcpu_counters(self.index)
        exits = {
            name.removeprefix("KVM_EXIT_"): view.exits[number]
            for number, name in EXIT_NAMES.items()
            if number < lib.SIO_EXIT_REASONS and view.exits[number]
        }
        if view.other_exits:
            exits["other"] = view.other_exits
        waiting = lib.sio_ticks_to_ns(self._fabric.view, view.wait_ticks)
        worker = {name: getattr(view, name) for name in ("string_exits", "interrupted", "spawns")}
        times = {"running_ns": max(0, elapsed_ns - waiting), "waiting_ns": waiting}
        return copied(
            VcpuStatistics, counters, state=self.state, pid=self.pid,
            exits=ExitCounts(exits), **worker, **times,
        )
