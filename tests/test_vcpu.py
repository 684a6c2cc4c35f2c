"""One vCPU worker and one owner, without a supervisor: states, commands, every exit's answer, kill -9."""

from __future__ import annotations

import os
import pickle
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardio import PioRange
from shardio._core import lib
from shardio.fabric import Owner
from shardio.vcpu import ExitCounts, VcpuState
from shardio.vcpu.kvm_worker import KvmWorker
from tests.fabric.support import PATIENCE_S, PORT, Bench, Log, bench
from tests.kvm.tiny_vmm import TinyVmm, tiny_vmm

pytestmark = pytest.mark.kvm

OUT = bytes([0xE6, PORT])
"""out PORT, al"""
IN = bytes([0xE4, PORT])
"""in al, PORT"""
HLT = b"\xf4"
INC_AL = b"\xfe\xc0"
MOV_CX = b"\xb9"
LOOP = b"\xe2"
FOREVER = b"\xeb"


class Rig:
    """A real-mode guest, its worker, and the owner of a device at PORT."""

    def __init__(self, b: Bench, vmm: TinyVmm, code: bytes, values: list[int]) -> None:
        vmm.load(code)
        self.bench = b
        self.device = Log(values)
        self.owner: Owner = b.owner()
        b.add(self.owner, self.device, PioRange(PORT, 4))
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.worker = KvmWorker(vmm.vcpus[0], b.fabric, b.doorbells, self.event)

    def until(self, *states: VcpuState) -> VcpuState:
        """Wait for the worker to say one of these states."""
        while self.worker.state not in states:
            ready, _, _ = select.select([self.event], [], [], PATIENCE_S)
            assert ready, f"still {self.worker.state.name}"
            os.eventfd_read(self.event)
        return self.worker.state

    def ended(self) -> int:
        """Wait for the worker's death: the signal that ended it, 0 where it left."""
        ready, _, _ = select.select([self.worker.pidfd], [], [], PATIENCE_S)
        assert ready, "the worker lives on"
        signal_number = self.worker.reap()
        assert signal_number is not None
        return signal_number

    def close(self) -> None:
        if self.worker.pidfd >= 0:
            self.worker.kill()
            self.ended()
        self.worker.close()
        os.close(self.event)


@contextmanager
def rig(code: bytes, values: list[int] | None = None) -> Iterator[Rig]:
    """A guest without an irqchip, so that HLT is an exit; its owner serves in a thread."""
    with bench() as b, tiny_vmm(irqchip=False) as vmm:
        made = Rig(b, vmm, code, values or [])
        try:
            with b.serving(made.owner):
                yield made
        finally:
            made.close()


def test_a_guest_that_writes_and_halts() -> None:
    with rig(b"\xb0\x41" + OUT + HLT) as r:
        r.worker.spawn()

        assert r.until(VcpuState.HALTED) is VcpuState.HALTED
        assert r.ended() == 0
        assert r.device.seen == [(0, 1, 0x41)]
        assert r.worker.statistics(0).exits == {"IO": 1, "HLT": 1}
        assert "HLT" in r.worker.describe_end()


def test_a_guest_that_reads_and_halts() -> None:
    with rig(IN + INC_AL + OUT + HLT, [0x6F]) as r:
        r.worker.spawn()
        r.until(VcpuState.HALTED)
        r.ended()

        assert r.device.seen == [(0, 1, None), (0, 1, 0x70)]


def test_a_paused_vcpu_does_nothing_until_it_is_resumed() -> None:
    with rig(INC_AL + OUT + FOREVER + bytes([256 - 6])) as r:
        r.worker.spawn()
        r.until(VcpuState.RUNNING)
        r.worker.command(lib.SIO_PAUSE)
        r.until(VcpuState.PAUSED)
        at_pause = len(r.device.seen)
        r.worker.kick_again()
        still = (r.worker.state, len(r.device.seen))

        r.worker.command(lib.SIO_RUN)
        r.until(VcpuState.RUNNING)
        while len(r.device.seen) < at_pause + 10:
            os.sched_yield()
        r.worker.command(lib.SIO_STOP)

        assert still == (VcpuState.PAUSED, at_pause)
        assert r.until(VcpuState.STOPPED) is VcpuState.STOPPED
        assert r.ended() == 0


def test_a_killed_worker_is_followed_by_one_that_goes_on() -> None:
    # So many times: al + 1 to the port. It must not come to its end before the last kill does.
    count, body = 4_000, INC_AL + OUT
    with rig(MOV_CX + count.to_bytes(2, "little") + b"\xb0\x00" + body + LOOP + bytes([256 - 6]) + HLT) as r:
        for kill_at in range(10, 200, 20):
            r.worker.spawn()
            while len(r.device.seen) < kill_at:
                os.sched_yield()
            r.worker.kill()
            assert r.ended() == signal.SIGKILL
        r.worker.spawn()
        r.until(VcpuState.HALTED)
        r.ended()

        assert [value for _, _, value in r.device.seen] == [n % 256 for n in range(1, count + 1)]
        assert (
            2 <= r.worker.statistics(0).spawns <= 11
        )  # one killed at its first instruction has not counted itself


def test_a_worker_that_waits_for_an_answer_stops_when_told() -> None:
    with bench() as b, tiny_vmm(irqchip=False) as vmm:
        r = Rig(b, vmm, IN + HLT, [])  # nobody serves
        try:
            r.worker.spawn()
            while lib.sio_mailbox(b.fabric.view, 0, 0).state & 3 != lib.SIO_REQUEST:
                os.sched_yield()
            r.worker.command(lib.SIO_STOP)

            assert r.until(VcpuState.STOPPED) is VcpuState.STOPPED
            assert r.ended() == 0
        finally:
            r.close()


def test_a_wait_that_is_not_over_makes_no_negative_time() -> None:
    with rig(HLT) as r:
        r.worker.view.wait_ticks = 10**9

        found = r.worker.statistics(1)
        assert found.running_ns == 0
        assert found.waiting_ns > 1


def test_exits_that_have_no_name_here_are_counted_together() -> None:
    with rig(HLT) as r:
        r.worker.view.other_exits = 3

        assert r.worker.statistics(0).exits == {"other": 3}


def test_exit_counts_are_a_frozen_value() -> None:
    counts = ExitCounts({"IO": 3, "HLT": 1})
    again = pickle.loads(pickle.dumps(counts))
    assert (again, hash(again)) == (counts, hash(ExitCounts({"HLT": 1, "IO": 3})))
    assert counts != ExitCounts({"IO": 4, "HLT": 1})
    with pytest.raises(TypeError):
        counts["IO"] = 5  # type: ignore[index]
