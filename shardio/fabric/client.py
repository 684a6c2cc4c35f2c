"""A vCPU's end of a fabric, driven from Python: for tests, benchmarks, and VMMs that run their own vCPU loop.

The KVM workers use the same `struct sio_client` from C.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from shardio._core import ffi, lib
from shardio.errors import FabricError
from shardio.fabric.segment import Fabric

SAMPLE_EVERY = 64


class Outcome(IntEnum):
    """How an access ended."""

    ANSWERED = lib.SIO_ANSWERED
    NOT_ANSWERED = lib.SIO_NOT_ANSWERED
    ABORTED = lib.SIO_ABORTED


def set_up(client: Any, fabric: Fabric, vcpu: int, doorbells: Mapping[int, int], sample_every: int) -> None:
    """Initialise a `struct sio_client`: doorbell eventfds by shard, one access in `sample_every` (a power of
    two) timed.
    """
    if not 0 <= vcpu < fabric.vcpus:
        raise FabricError(f"no vCPU {vcpu} in a fabric of {fabric.vcpus}", f"use 0 to {fabric.vcpus - 1}")
    lib.sio_client_init(client, fabric.view, vcpu)
    client.sample_mask = sample_every - 1
    lib.sio_membarrier_register()
    client.waiter.membarrier = fabric.view.membarrier
    for shard, fd in doorbells.items():
        client.doorbell[shard] = fd


class Client:
    """One vCPU's accesses. Not thread-safe: one user at a time.

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
        self.view = ffi.new("struct sio_client *")
        self._abort = ffi.new("uint32_t *", 0)
        set_up(self.view, fabric, vcpu, doorbells or {}, sample_every)
        self.view.waiter.abort = self._abort
        self.view.waiter.abort_value = 1
        self._data = ffi.new("uint64_t *")

    def read(self, space: int, address: int, size: int) -> tuple[Outcome, int]:
        """Read `size` bytes (1, 2, 4, 8) in space 0 (PIO) or 1 (MMIO). Unanswered: all-ones of the width."""
        outcome = lib.sio_client_read(self.view, space, address, size, self._data)
        return self._checked(outcome, size), self._data[0]

    def write(self, space: int, address: int, size: int, value: int) -> Outcome:
        """Write `size` bytes. Returns at once on a posted range, else once a shard has answered."""
        return self._checked(lib.sio_client_write(self.view, space, address, size, value), size)

    def read_string(self, space: int, address: int, size: int, count: int) -> tuple[Outcome, bytes]:
        """`rep ins`: `count` reads of `size` bytes at one address, in order; at most 4096 bytes in all."""
        buffer = ffi.new("uint8_t[]", size * count)
        return self._string(space, address, size, 0, count, buffer), bytes(buffer)

    def write_string(self, space: int, address: int, size: int, data: bytes) -> Outcome:
        """`rep outs`: `data` written `size` bytes at a time to one address, in order; at most 4096 bytes in
        all.
        """
        buffer = ffi.new("uint8_t[]", data)
        return self._string(space, address, size, 1, len(data) // size, buffer)

    def abort(self) -> None:
        """Make a wait in progress (in another thread), and every later one, end with `Outcome.ABORTED`."""
        self._abort[0] = 1

    def _string(self, space: int, address: int, size: int, write: int, count: int, buffer: Any) -> Outcome:
        if size not in (1, 2, 4, 8) or not 1 <= count * size <= lib.SIO_SIDE_BYTES:
            raise FabricError(
                f"no string of {count} x {size} bytes",
                f"at most {lib.SIO_SIDE_BYTES} bytes, widths 1, 2, 4, 8",
            )
        outcome = lib.sio_client_string(self.view, space, address, size, write, count, buffer)
        lib.sio_client_complete(self.view)
        return Outcome(outcome)

    @staticmethod
    def _checked(outcome: int, size: int) -> Outcome:
        if outcome < 0:
            raise FabricError(
                f"no access of {size} bytes", "widths are 1, 2, 4 and 8 bytes; space is 0 (PIO) or 1 (MMIO)"
            )
        return Outcome(outcome)
