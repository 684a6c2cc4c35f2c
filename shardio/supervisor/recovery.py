"""What happens to the requests that were in flight when a shard died, by the policy of their range.

A request that the owner had not taken waits for the successor. One that it had taken is replayed or failed:
`replay` (the default for reads) lets the successor serve it again, twice at most; `fail` (the default for
writes) gives all-ones or drops the write, so that it happens zero or one time, never later. A request that
kills two owners quarantines its range.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from shardio._core import ffi, lib
from shardio.fabric import Fabric

ATTEMPTS = 2
NOTHING_TAKEN = (1 << 64) - 1
"""In a shard's journal: no vCPU has this number."""


class Policy(StrEnum):
    """What to do with a request that a dead shard had taken."""

    REPLAY = "replay"
    FAIL = "fail"


class Recovery:
    """Settles dead shards' mailboxes; remembers how often each request was tried."""

    def __init__(self, fabric: Fabric, policy: Callable[[int, bool], Policy]) -> None:
        """`policy(range index, write)`."""
        self._fabric = fabric
        self._policy = policy
        self._attempts: dict[tuple[int, int], tuple[int, int]] = {}

    def settle(self, shard: int, quarantine: Callable[[set[int]], None]) -> None:
        """Decide about every request of a shard that is dead and reaped.

        `quarantine` gets the ranges whose request has killed two owners, before the guest goes on: its next
        access to them must not reach the successor.
        """
        refused: list[tuple[int, int]] = []
        deadly: set[int] = set()
        request, taken = ffi.new("struct sio_request *"), ffi.new("int *")
        for vcpu in range(self._fabric.vcpus):
            if not lib.sio_recover_request(self._fabric.view, shard, vcpu, request, taken) or not taken[0]:
                continue
            state, tries = self._attempts.get((shard, vcpu), (0, 0))
            tries = tries + 1 if state == request.state else 1
            self._attempts[shard, vcpu] = (request.state, tries)
            if tries >= ATTEMPTS:
                deadly.add(request.range)
            if (
                tries >= ATTEMPTS
                or self._policy(request.range, bool(request.op & lib.SIO_WRITE)) is Policy.FAIL
            ):
                refused.append((vcpu, request.state))
        if deadly:
            quarantine(deadly)
        for vcpu, state in refused:
            lib.sio_recover_refuse(self._fabric.view, shard, vcpu, state)
        # A successor that dies before it takes anything must not count as another victim of the same request.
        self._fabric.view.shard[shard].taken = NOTHING_TAKEN

    def refuse_all(self, shard: int, posted: Callable[[int], int]) -> None:
        """Nobody will own the shard again: refuse every request, discard what was posted (up to
        `posted(vcpu)`).
        """
        request, taken = ffi.new("struct sio_request *"), ffi.new("int *")
        for vcpu in range(self._fabric.vcpus):
            lib.sio_recover_discard_posted(self._fabric.view, shard, vcpu, posted(vcpu))
            if lib.sio_recover_request(self._fabric.view, shard, vcpu, request, taken):
                lib.sio_recover_refuse(self._fabric.view, shard, vcpu, request.state)
