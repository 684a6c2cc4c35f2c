"""A vCPU's end of a fabric, driven from Python: for tests, benchmarks, and VMMs that run their own vCPU loop.

The KVM workers use the same `struct sio_client` from C.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from shardio._core import ffi, lib
from shardio.errors import FabricError
from shardio.fabric import barrier
from shardio.fabric.alone import Alone
from shardio.fabric.segment import Fabric

SAMPLE_EVERY = 64


class Outcome(IntEnum):
    """How an access ended."""

    ANSWERED = lib.SIO_ANSWERED
    NOT_ANSWERED = lib.SIO_NOT_ANSWERED
    ABORTED = lib.SIO_ABORTED


def set_up(client: Any, fabric: Fabric, vcpu: int, doorbells: Mapping[int, int], sample_every: int) -> None:
    """Initialise a `struct sio_client`: doorbell eventfds by shard, one access in `sample_every` (a power of
    two) timed. Raises `FabricError` where the fabric's ends count on membarrier and this process may not.
    """
    segment = fabric.view
    lib.sio_client_init(client, segment, fabric.checked("vCPU", vcpu))
    client.sample_mask = sample_every - 1
    barrier.register(segment)
    client.waiter.membarrier = segment.membarrier
    for shard, fd in doorbells.items():
        client.doorbell[shard] = fd


class Client:
    """One vCPU's accesses, one at a time: another thread's meanwhile is a `FabricError`, as is one after the
    fabric was closed, and one in a fork of the process that made this.

    `doorbells`: the eventfd of each shard, rung when that shard sleeps; without one a sleeping shard finds
    the request at its next periodic look.
    """

    def __init__(
        self,
        fabric: Fabric,
        vcpu: int,
        doorbells: Mapping[int, int] | None = None,
        *,
        sample_every: int = SAMPLE_EVERY,
    ) -> None:
        self.fabric = fabric
        self.vcpu = vcpu
        self._segment = fabric.view  # mapped for as long as this has pointers into it
        self._alone = Alone(f"the client of vCPU {vcpu}")
        self.view = ffi.new("struct sio_client *")
        self._abort = ffi.new("uint32_t *", 0)
        set_up(self.view, fabric, vcpu, doorbells or {}, sample_every)
        self.view.waiter.abort = self._abort
        self.view.waiter.abort_value = 1
        self._data = ffi.new("uint64_t *")

    def read(self, space: int, address: int, size: int) -> tuple[Outcome, int]:
        """Read `size` bytes (1, 2, 4, 8) in space 0 (PIO) or 1 (MMIO). Unanswered: all-ones of the width."""
        with self._alone:
            outcome = lib.sio_client_read(self._opened(), space, address, size, self._data)
            value = self._data[0]
        return self._checked(outcome, size), value

    def write(self, space: int, address: int, size: int, value: int) -> Outcome:
        """Write `size` bytes. Returns at once on a posted range, else once a shard has answered."""
        with self._alone:
            outcome = lib.sio_client_write(self._opened(), space, address, size, value)
        return self._checked(outcome, size)

    def read_string(self, space: int, address: int, size: int, count: int) -> tuple[Outcome, bytes]:
        """`rep ins`: `count` reads of `size` bytes at one address, in order; at most 4096 bytes in all."""
        self._check_string(size, count)
        buffer = ffi.new("uint8_t[]", size * count)
        return self._string(space, address, size, 0, count, buffer), bytes(buffer)

    def write_string(self, space: int, address: int, size: int, data: bytes) -> Outcome:
        """`rep outs`: `data` written `size` bytes at a time to one address, in order; at most 4096 bytes in
        all.
        """
        count = len(data) // max(1, size)
        self._check_string(size, count)
        return self._string(space, address, size, 1, count, ffi.new("uint8_t[]", data))

    def abort(self) -> None:
        """Make a wait in progress (in another thread), and every later one, end with `Outcome.ABORTED`."""
        self._abort[0] = 1

    def _string(self, space: int, address: int, size: int, write: int, count: int, buffer: Any) -> Outcome:
        with self._alone:
            outcome = lib.sio_client_string(self._opened(), space, address, size, write, count, buffer)
            lib.sio_client_complete(self.view)
        return Outcome(outcome)

    def _opened(self) -> Any:
        """The core's struct. Raises `FabricError` once the fabric is closed."""
        _ = self.fabric.view
        return self.view

    @staticmethod
    def _check_string(size: int, count: int) -> None:
        if size not in (1, 2, 4, 8) or not 1 <= count * size <= lib.SIO_SIDE_BYTES:
            raise FabricError(
                f"no string of {count} x {size} bytes",
                f"at most {lib.SIO_SIDE_BYTES} bytes, widths 1, 2, 4, 8",
            )

    @staticmethod
    def _checked(outcome: int, size: int) -> Outcome:
        if outcome < 0:
            raise FabricError(
                f"no access of {size} bytes", "widths are 1, 2, 4 and 8 bytes; space is 0 (PIO) or 1 (MMIO)"
            )
        return Outcome(outcome)
