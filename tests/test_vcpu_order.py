"""A vCPU's writes to one shard keep their order where some are posted and some go into KVM's ring."""

from __future__ import annotations

import pytest

from shardio import PioRange
from shardio.fabric.coalesced import CoalescedRing
from shardio.kvm.coalesced import KvmCoalesced
from shardio.vcpu import VcpuState
from tests.fabric.support import PORT, bench
from tests.kvm.tiny_vmm import tiny_vmm
from tests.test_vcpu import HLT, IN, INC_AL, LOOP, MOV_CX, OUT, Rig

pytestmark = pytest.mark.kvm

RING_PORT = 0x90
ROUNDS = 3000
AH_IS_AL = b"\x88\xc4"
AL_IS_AH = b"\x88\xe0"
POST = INC_AL + OUT
"""inc al; out PORT, al"""
COALESCE = INC_AL + bytes([0xE6, RING_PORT])
"""inc al; out RING_PORT, al"""
READ = AH_IS_AL + IN + AL_IS_AH
"""A read of the same shard, behind which all writes before it have been served."""


def looped(body: bytes) -> bytes:
    """`body` ROUNDS times over, then HLT."""
    begin = MOV_CX + ROUNDS.to_bytes(2, "little") + b"\xb0\x00"
    return begin + body + LOOP + bytes([256 - len(body) - 2]) + HLT


@pytest.mark.parametrize(
    ("body", "writes"),
    [
        (POST + COALESCE + READ, 2),
        (COALESCE + POST + READ, 2),
        (POST + COALESCE, 2),
        (COALESCE * 3 + POST * 3 + COALESCE + POST, 8),
    ],
    ids=["posted-first", "coalesced-first", "in-turn", "in-runs"],
)
def test_posted_and_coalesced_writes_keep_their_order(body: bytes, writes: int) -> None:
    with bench() as b, tiny_vmm(irqchip=False) as vmm:
        coalesced = KvmCoalesced(vmm.vm)
        r = Rig(b, vmm, looped(body), [])
        ring = CoalescedRing(r.owner, coalesced.fd, coalesced.page)
        span = PioRange(RING_PORT, 4)
        ring.add(b.add(r.owner, r.device, span).index)
        b.map.remove(PioRange(PORT, 4))
        b.add(r.owner, r.device, PioRange(PORT, 4), posted=True)
        coalesced.add(span)
        try:
            with b.serving(r.owner):
                r.worker.spawn()
                r.until(VcpuState.HALTED)
                r.ended()
            r.owner.flush()
        finally:
            r.close()
            coalesced.close()

    seen = [value for _, _, value in r.device.seen if value is not None]
    assert seen == [n % 256 for n in range(1, ROUNDS * writes + 1)]
