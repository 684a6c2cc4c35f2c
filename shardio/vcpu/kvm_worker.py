"""KVM's vCPUs: workers that run KVM_RUN in C in this address space (native/worker.c).

A worker may die at any instruction; `spawn` starts another on the same vCPU, which resumes the access in
flight. A worker dies with the thread that spawned it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from shardio._core import ffi, lib
from shardio.errors import MemoryAccessError, VcpuError
from shardio.fabric import Fabric
from shardio.fabric.port_record import set_up
from shardio.kvm.debug import (
    INT1,
    INT3,
    debug_details,
    fits,
    is_int3,
    is_planted_int1,
    register_hit,
    set_guest_debug,
)
from shardio.kvm.events import cancel_exception, pending_exception, raise_exception
from shardio.kvm.repairs import emulates, repair_exit, repair_in_place
from shardio.kvm.vcpu import Vcpu as KvmVcpu
from shardio.memory import GuestMemory
from shardio.processes import guest_time_ns
from shardio.vcpu.debug import HARDWARE_BREAKPOINTS, DebugPlan, DebugStop, Watch
from shardio.vcpu.kvm_registers import KvmRegisters
from shardio.vcpu.worker import Worker

STACK_SIZE = 64 * 1024
MP_STATES = {
    0: "runnable", 1: "uninitialized", 2: "init received", 3: "halted", 4: "sipi received", 5: "stopped",
}  # fmt: skip
"""KVM_MP_STATE_*, of KVM_GET_MP_STATE."""
HLT = b"\xf4"


class KvmWorker(Worker):
    """The worker of one vCPU of KVM. `event`: an eventfd rung at every change of state; `cpu`: where it is
    pinned, None anywhere; `vm_fd`: the VM, for KVM_IRQ_LINE (-1: it raises none); `memory`: the guest's, for
    a debugger's watchpoints; `repairs_in`: the same, where instructions that KVM's emulator lacks are to be
    repaired.
    """

    def __init__(
        self,
        vcpu: KvmVcpu,
        fabric: Fabric,
        doorbells: Mapping[int, int],
        event: int,
        cpu: int | None = None,
        *,
        vm_fd: int = -1,
        memory: GuestMemory | None = None,
        repairs_in: GuestMemory | None = None,
    ) -> None:
        self._emulated = emulates()  # before it holds the fabric, which whoever keeps an error would keep too
        super().__init__(vcpu.index, fabric, ffi.new("struct sio_vcpu *"))
        self.vcpu = vcpu
        self._repairs_in = repairs_in
        self._memory = memory
        self._stack = ffi.NULL
        set_up(self.client, fabric, vcpu.index, doorbells, 1)
        self.view.client.coalesced = ffi.cast("uint32_t *", vcpu.coalesced_ring)
        self.view.run = ffi.cast("struct kvm_run *", vcpu.run_page)
        self.view.run_size = vcpu.run_size
        self.view.fd = vcpu.fd
        self.view.vm_fd = vm_fd
        self.view.event = event
        self.view.parent = os.getpid()
        self.view.affinity = -1 if cpu is None else cpu

    def spawn(self) -> None:
        """See `Vcpu.spawn`."""
        if self._stack == ffi.NULL:
            self._stack = lib.sio_worker_stack(STACK_SIZE)
            if self._stack == ffi.NULL:
                raise VcpuError(self.index, "no memory for its stack", "free memory on the host")
        pidfd = ffi.new("int *", -1)
        pid = lib.sio_worker_spawn(self.view, self._stack, STACK_SIZE, pidfd)
        if pid < 0:
            hint = "raise the limits on processes and open files (ulimit -u, -n)"
            raise VcpuError(self.index, f"clone failed: {os.strerror(-pid)}", hint)
        self.pid, self.pidfd = pid, pidfd[0]

    def grant_lines(self, shard: int, lines: int) -> None:
        """See `Vcpu.grant_lines`."""
        super().grant_lines(shard, lines)
        if self.index == 0 and (self.view.wired or self.view.followed):
            self.move_lines(lib.SIO_LINE_MOVED | lib.SIO_LINE_OUTPUT_MOVED)

    def move_lines(self, lines: int) -> None:
        """Lines have moved outside of accesses (SIO_LINE_*): the controllers are to know."""
        if self.view.wired:
            lib.sio_vcpu_lines(self.view, lines, self.pid)
        else:
            lib.sio_vcpu_follow(self.view, lines)

    @property
    def registers(self) -> KvmRegisters:
        """See `Vcpu.registers`."""
        return KvmRegisters(self.vcpu, self.require_parked)

    @property
    def mp_state(self) -> str:
        """See `Vcpu.mp_state`."""
        self.require_parked()
        return MP_STATES.get(self.vcpu.get_mp_state(), "unknown")

    @property
    def pending_exception(self) -> int | None:
        """See `Vcpu.pending_exception`."""
        self.require_parked()
        return pending_exception(self.vcpu)

    def raise_exception(self, vector: int, error_code: int | None = None) -> None:
        """See `Vcpu.raise_exception`."""
        self.require_parked()
        raise_exception(self.vcpu, vector, error_code)

    def cancel_exception(self) -> None:
        """See `Vcpu.cancel_exception`."""
        self.require_parked()
        cancel_exception(self.vcpu)

    @property
    def exit_total(self) -> int | None:
        """See `Vcpu.exit_total`."""
        return None if self._repairs_in is None else int(sum(self.view.exits) + self.view.other_exits)

    def inspect(self) -> None:
        """See `Vcpu.inspect`."""
        lib.sio_vcpu_inspect(self.view, self.pid)

    @property
    def inspected(self) -> bool:
        """See `Vcpu.inspected`."""
        return bool(self.view.run.exit_reason == lib.KVM_EXIT_INTR)

    def repair(self) -> str | None:
        """See `Vcpu.repair`."""
        if self._repairs_in is None:
            return None
        execute = repair_in_place if self.inspected else repair_exit
        name = execute(self.vcpu, self._repairs_in, self.exit)
        if name is not None:
            self.repairs[name] = self.repairs.get(name, 0) + 1
        return name

    # ---- a debugger ----

    @property
    def trap(self) -> bytes:
        """See `Vcpu.trap`."""
        return INT1 if self._emulated else INT3

    def check_watch(self, watch: Watch) -> None:
        """See `Vcpu.check_watch`. What an emulated guest reads nobody sees."""
        if self._emulated and watch.kind != "write":
            hint = "watch writes, or use cpu='soft'"
            raise VcpuError(self.index, "reads are not seen where KVM emulates the guest", hint)
        if not fits(watch.address, watch.size):
            hint = "watch 1, 2, 4 or 8 bytes at a multiple of their number"
            raise VcpuError(self.index, f"cannot watch {watch.size} bytes at {watch.address:#x}", hint)

    def check_room(self, breakpoints: int, hardware: int, watches: int) -> None:
        """See `Vcpu.check_room`. Breakpoints are planted, however many there are."""
        compared = watches if self._emulated else 0
        if hardware + watches - compared > HARDWARE_BREAKPOINTS or compared > lib.SIO_WATCHES:
            hint = "remove a hardware breakpoint or a watchpoint"
            raise VcpuError(self.index, f"has {HARDWARE_BREAKPOINTS} debug registers", hint)

    def set_debug(self, plan: DebugPlan) -> None:
        """See `Vcpu.set_debug`."""
        self.require_parked()
        watched = [] if self._emulated else [(each.address, each.size, each.kind) for each in plan.watches]
        entries = [(address, 1, "execute") for address in sorted(plan.hardware)] + watched
        compared = plan.watches if self._emulated else ()
        self.check_room(0, len(plan.hardware), len(plan.watches))
        if plan.step and self.linear_pc in plan.hardware:
            entries = []  # or it would go no further
        self._compare(compared)
        self.view.stepping = plan.step
        set_guest_debug(
            self.vcpu, entries,
            step=plan.step or bool(compared), planted=bool(plan.planted),
            block_interrupts=plan.step and not self._at_hlt(),
        )  # fmt: skip

    def _at_hlt(self) -> bool:
        """Nothing but an interrupt ends that step."""
        physical = self.translate(self.linear_pc)
        if physical is None or self._memory is None:
            return False
        try:
            return self._memory.read(physical, 1) == HLT
        except MemoryAccessError:
            return False

    def _compare(self, watches: Sequence[Watch]) -> None:
        self.view.watches = 0
        for number, each in enumerate(watches):
            physical = self.translate(each.address)
            if physical is None or self._memory is None:
                raise VcpuError(self.index, f"nothing is mapped at {each.address:#x}", "watch it later")
            watch = self.view.watch[number]
            watch.at = ffi.cast("uint8_t *", self._memory.host_address(physical, each.size))
            watch.size = each.size
            ffi.memmove(watch.value, watch.at, each.size)
        self.view.watches = len(watches)

    def debug_stop(self, plan: DebugPlan) -> DebugStop | None:
        """See `Vcpu.debug_stop`."""
        if self.view.run.exit_reason != lib.KVM_EXIT_DEBUG:
            if self.linear_pc not in plan.planted or not is_planted_int1(self.exit):
                return None
            cancel_exception(self.vcpu)
            return DebugStop("breakpoint")
        vector, dr6 = debug_details(self.view.run)
        if is_int3(vector):
            if self.linear_pc in plan.planted:
                return DebugStop("breakpoint")
            set_guest_debug(self.vcpu, planted=True, reinject=True)
            return DebugStop("trap")
        hit = register_hit(dr6)
        if hit is not None and not self._emulated:
            if hit >= len(plan.hardware):
                return DebugStop("watch", plan.watches[hit - len(plan.hardware)])
            return DebugStop("hardware")
        if hit is not None:
            return DebugStop("hardware")
        return DebugStop("watch", self._changed(plan)) if self.view.watches else DebugStop("step")

    def _changed(self, plan: DebugPlan) -> Watch:
        for number, each in enumerate(plan.watches):
            watch = self.view.watch[number]
            if ffi.buffer(watch.at, watch.size)[:] != ffi.buffer(watch.value, watch.size)[:]:
                return each
        return plan.watches[0]  # it has changed and changed back since

    def translate(self, linear: int) -> int | None:
        """See `Vcpu.translate`."""
        self.require_parked()
        return self.vcpu.translate(linear)

    def dump(self) -> str:
        """See `Worker.dump`."""
        return self.vcpu.dump()

    def _guest_ns(self) -> int:
        return guest_time_ns(self.pid)

    def close(self) -> None:
        """Give the stack back; the worker must be reaped. Idempotent."""
        if self._stack != ffi.NULL:
            lib.sio_worker_stack_free(self._stack, STACK_SIZE)
            self._stack = ffi.NULL
        super().close()
