"""The memory of a port: the core's `struct sio_port` in a memfd, which the dispatcher maps too."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Any, Self

from shardio._core import ffi, lib
from shardio.errors import FabricError
from shardio.fabric import barrier
from shardio.fabric.segment import Fabric
from shardio.fabric.shared import keeps_its_size, shared_memory

SAMPLE_EVERY = 64
"""A port times the first accesses and then one in this many."""


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


class PortRecord:
    """The shared memory of one port: a `struct sio_port` in a memfd. `view`: the struct; `fd`: the memfd."""

    def __init__(self, fd: int) -> None:
        """Maps the memfd, whose descriptor becomes this object's. Raises `FabricError` where it is no
        port's.
        """
        self.fd = fd
        size = ffi.sizeof("struct sio_port")
        try:
            if not keeps_its_size(fd) or os.fstat(fd).st_size < size:
                raise OSError("it has not the size of a port, sealed")
            mapping = mmap.mmap(fd, size)
        except (OSError, ValueError) as error:
            os.close(fd)
            raise FabricError(
                f"no port behind descriptor {fd}: {error}", "pass a Port's own descriptors"
            ) from None
        pointer = ffi.cast("struct sio_port *", ffi.from_buffer(mapping))
        self.view: Any = ffi.gc(pointer, lambda _: mapping.close())

    @classmethod
    def create(cls, fabric: Fabric, vcpu: int, sample_every: int = SAMPLE_EVERY) -> Self:
        """A new one for a vCPU of the fabric. Raises `FabricError` where the host has no room."""
        try:
            fd = shared_memory("shardio-port", ffi.sizeof("struct sio_port"))
        except OSError as error:
            hint = "raise the limits on memory and open files (ulimit -v, -n)"
            raise FabricError(f"cannot make a port: {error.strerror}", hint) from None
        record = cls(fd)
        try:
            set_up(record.client, fabric, vcpu, {}, sample_every)
        except FabricError:
            record.close()
            raise
        return record

    @property
    def client(self) -> Any:
        """Its `struct sio_client *`."""
        return ffi.addressof(self.view, "client")

    def close(self) -> None:
        """Close the descriptor; the memory stays while `view` is held. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
