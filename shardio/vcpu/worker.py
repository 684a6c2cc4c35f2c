"""What KVM workers and software workers have in common: `struct sio_vcpu`, which the worker's loop in C
(native/vcpu_loop.h) and the VMM share, and the process that runs it.
"""

from __future__ import annotations

import os
from typing import Any

from shardio._core import ffi, lib
from shardio.errors import VcpuError
from shardio.fabric import Fabric
from shardio.fabric.statistics import copied
from shardio.kvm.exits import EXIT_NAMES, Exit, decode
from shardio.processes import cpu_time_ns, kill
from shardio.vcpu.interface import ExitCounts, Vcpu, VcpuState, VcpuStatistics


class Worker(Vcpu):
    """A worker by its shared struct `view`; `fabric` has its counters."""

    def __init__(self, index: int, fabric: Fabric, view: Any) -> None:
        self.index = index
        self.pid = 0
        self.pidfd = -1
        self.view = view
        self.repairs: dict[str, int] = {}
        self._fabric = fabric
        self._segment: Any = fabric.view  # mapped for as long as a worker may run

    @property
    def client(self) -> Any:
        """The worker's `struct sio_client *`."""
        return ffi.addressof(self.view, "client")

    @property
    def state(self) -> VcpuState:
        """What the worker last said. A worker that was killed has not said so: see `pidfd`."""
        return VcpuState(lib.sio_vcpu_state(self.view))

    def command(self, command: int) -> None:
        """Tell the worker to run, pause or stop (`lib.SIO_RUN` and so on), kicking it out of the guest."""
        lib.sio_vcpu_command(self.view, command, self.pid)

    def kick_again(self) -> None:
        """Repeat the kick of a command that the worker has not acted on yet."""
        lib.sio_vcpu_command(self.view, self.view.command, self.pid)

    def wait(self, state: VcpuState, timeout_ns: int) -> VcpuState:
        """See `Vcpu.wait`."""
        return VcpuState(lib.sio_vcpu_wait(self.view, int(state), timeout_ns))

    def kill(self) -> None:
        """SIGKILL, where there is a worker."""
        if self.pidfd >= 0:
            kill(self.pidfd, self.pid)

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

    @property
    def parked(self) -> bool:
        """Whether it stands still, so that its registers can be seen and changed."""
        return self.state in (VcpuState.PAUSED, VcpuState.ASKING) or self.ended

    def require_parked(self) -> None:
        """Raises `VcpuError` while it runs."""
        if not self.parked:
            raise VcpuError(self.index, f"is {self.state.name.lower()}", "pause() the machine first")

    def ask_about_exits(self) -> None:
        """See `Vcpu.ask_about_exits`."""
        self.view.asks = 1

    @property
    def asked(self) -> bool:
        """See `Vcpu.asked`."""
        return self.state is VcpuState.ASKING and self.view.question == lib.SIO_ASKED

    @property
    def exit(self) -> Exit:
        """See `Vcpu.exit`."""
        return decode(self.view.run)

    def answer(self, verdict: int) -> None:
        """See `Vcpu.answer`."""
        lib.sio_vcpu_answer(self.view, verdict)

    def describe_end(self) -> str:
        """Why an ended vCPU ended: the exit by name, what is told about it, and the registers."""
        if self.state is VcpuState.BROKEN:
            return f"{self._broken()}\n{self.dump()}"
        exit_, again = self.exit, ""
        if self.view.question == lib.SIO_TRY_AGAIN:
            again = f", again and again: it was resumed {lib.SIO_RETRIES} times"
        return f"{exit_}{again}\n{self.dump()}" if self.state is VcpuState.FAILED else f"{exit_}{again}"

    def dump(self) -> str:
        """The registers as text of a few lines."""
        raise NotImplementedError

    def _broken(self) -> str:
        return f"KVM_RUN: {os.strerror(self.view.detail)}"

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
        pid = self.pid
        times = {"running_ns": max(0, elapsed_ns - waiting), "waiting_ns": waiting}
        times |= {"cpu_ns": cpu_time_ns(pid), "guest_ns": self._guest_ns()}
        return copied(
            VcpuStatistics, counters, state=self.state, pid=pid,
            exits=ExitCounts(exits), repairs=ExitCounts(self.repairs), **worker, **times,
        )

    def _guest_ns(self) -> int:
        """How much of its process's CPU time went to guest code; 0: nobody tells."""
        return 0

    def close(self) -> None:
        """See `Vcpu.close`."""
        self._segment = None
