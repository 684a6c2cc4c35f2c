"""A debugger's breakpoints and watchpoints.

A breakpoint is an instruction that is planted in guest memory where the CPU has one for that (`Vcpu.trap`),
and otherwise an address that the CPU is told of, as it is of hardware breakpoints and watchpoints.
"""

from __future__ import annotations

from collections.abc import Callable

from shardio.errors import DebuggerError, MemoryAccessError
from shardio.memory import GuestMemory
from shardio.vcpu import DebugPlan, Vcpu, Watch


class Breakpoints:
    """`linear in breakpoints`: whether there is one, but for those in debug registers (`hardware`).

    `standing`: a vCPU that stands still, by whose page tables addresses are found; it raises where none does.
    """

    def __init__(self, memory: GuestMemory, standing: Callable[[], Vcpu]) -> None:
        self._memory, self._standing = memory, standing
        self._planted: dict[int, tuple[int, bytes]] = {}
        """By linear address: where the instruction is in guest memory, and what was there."""
        self._known: set[int] = set()
        """Those that the CPU is told of."""
        self.hardware: set[int] = set()
        self._watches: list[Watch] = []

    def __contains__(self, linear: int) -> bool:
        return linear in self._planted or linear in self._known

    def plan(self, *, step: bool, wrote: bool) -> DebugPlan:
        """What a vCPU goes on with now; `wrote`: whether the debugger has changed memory."""
        return DebugPlan(
            step, frozenset(self._planted), frozenset(self._known), frozenset(self.hardware),
            tuple(self._watches), wrote,
        )  # fmt: skip

    def hide(self, linear: int, found: bytearray) -> None:
        """Let `found`, what is read at `linear`, show what was there before."""
        for planted, (_, before) in self._planted.items():
            if linear <= planted < linear + len(found):
                found[planted - linear : planted - linear + len(before)] = before

    def clear(self) -> None:
        """There is none any more."""
        for linear in tuple(self._planted):
            self._unplant(linear)
        for each in (self._known, self.hardware, self._watches):
            each.clear()

    def add(self, linear: int) -> None:
        """A breakpoint that is planted, or that the CPU knows. Raises `DebuggerError`."""
        vcpu = self._standing()
        if linear in self:
            return
        if not vcpu.trap:
            self._check_room(vcpu, breakpoints=1)
            self._known.add(linear)
            return
        physical = vcpu.translate(linear)
        if physical is None:
            raise DebuggerError(f"nothing is mapped at {linear:#x}")
        try:
            before = self._memory.read(physical, len(vcpu.trap))
            self._memory.write(physical, vcpu.trap)
        except MemoryAccessError:
            raise DebuggerError(f"{linear:#x} is not in RAM: use a hardware breakpoint (hbreak)") from None
        self._planted[linear] = physical, before

    def remove(self, linear: int) -> None:
        """Nothing where there is none."""
        self._known.discard(linear)
        self._unplant(linear)

    def _unplant(self, linear: int) -> None:
        physical, before = self._planted.pop(linear, (0, b""))
        # What the guest has written over it since is not undone.
        if before and self._memory.read(physical, len(before)) == self._standing().trap:
            self._memory.write(physical, before)

    def set_hardware(self, linear: int, there: bool) -> None:
        """A breakpoint in a debug register of every vCPU. Raises `VcpuError` where none is left."""
        if there and linear not in self.hardware:
            self._check_room(self._standing(), hardware=1)
            self.hardware.add(linear)
        elif not there:
            self.hardware.discard(linear)

    def set_watch(self, watch: Watch, there: bool) -> None:
        """A watchpoint. Raises `VcpuError` where there can be none."""
        if watch in self._watches:
            self._watches.remove(watch)
        if there:
            vcpu = self._standing()
            vcpu.check_watch(watch)
            self._check_room(vcpu, watches=1)
            self._watches.append(watch)

    def _check_room(
        self, vcpu: Vcpu, *, breakpoints: int = 0, hardware: int = 0, watches: int = 0
    ) -> None:
        """For so many more. Where there is none, the debugger is to hear it now, not when it lets go."""
        vcpu.check_room(
            len(self._known) + breakpoints, len(self.hardware) + hardware, len(self._watches) + watches
        )
