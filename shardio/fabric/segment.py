"""A fabric segment: made by one process, attached by the others through its descriptor.

The segment is a memfd: it has no name, so no death of any process leaves one behind. It is filled with
`posix_fallocate`, so that a lack of memory is an error here rather than SIGBUS later, and sealed against any
other size. Only histograms get their memory when they are first written: most ranges of a large machine are
never touched by most of its vCPUs.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Self

from shardio._core import ffi, lib
from shardio.closing import Closing
from shardio.errors import FabricError, LayoutMismatch
from shardio.fabric.shared import shared_memory
from shardio.fabric.statistics import AccessStatistics, ShardCounters, VcpuCounters

POSTED_SLOTS = 512
"""Slots of a posted ring: 16 KiB, half a first-level cache."""


class Fabric(Closing):
    """A mapped segment. `vcpus`, `shards`, `ranges`, `posted_slots` are its counts, `size` its bytes.

    `memory` is how many of the bytes have memory by now.

    It is unmapped when it has been closed and nobody holds its `view` any more: a `Port` or an `Owner` in
    another thread finds the segment closed, not gone. Once closed, whatever needs the segment raises
    `FabricError`.

    >>> with Fabric.create(vcpus=2, shards=1) as fabric:
    ...     fabric.vcpus, fabric.shards
    (2, 1)
    """

    def __init__(self, fd: int, mapping: mmap.mmap, view: Any) -> None:
        self.fd = fd
        self._view = ffi.gc(view, lambda _: mapping.close())
        self._closing = threading.Lock()
        self._told: list[weakref.WeakMethod[Callable[[], None]]] = []
        self.vcpus: int = view.vcpus
        self.shards: int = view.shards
        self.ranges: int = view.ranges
        self.posted_slots: int = view.posted_slots
        self.size: int = view.size

    @classmethod
    def create(cls, *, vcpus: int, shards: int, ranges: int = 256, posted_slots: int = POSTED_SLOTS) -> Self:
        """A new segment for `vcpus` x `shards`, with room for `ranges` address ranges and posted rings of
        `posted_slots` slots (a power of two).

        Raises `FabricError`: a count out of its limits, or not enough memory (it says how much is needed).
        """
        size = lib.sio_fabric_size(vcpus, shards, ranges, posted_slots)
        if size == 0:
            raise FabricError(
                f"no fabric of {vcpus} vCPUs x {shards} shards, {ranges} ranges, {posted_slots} posted slots",
                f"1 to {lib.SIO_MAX_VCPUS} vCPUs, {lib.SIO_MAX_SHARDS} shards, {lib.SIO_MAX_RANGES} ranges; "
                f"slots a power of two from 2 to {lib.SIO_MAX_POSTED}",
            )
        untraced = ffi.new("uint64_t *")
        backed = lib.sio_fabric_backed_size(vcpus, shards, ranges, posted_slots, untraced)
        fd = _allocate(size, backed, untraced[0])
        try:
            mapping = _map(fd, size)
            view = ffi.new("struct sio_fabric *")
            lib.sio_fabric_create(view, _address(mapping), vcpus, shards, ranges, posted_slots)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, mapping, view)

    @classmethod
    def attach(cls, fd: int) -> Self:
        """The segment behind a descriptor that its creator passed; the descriptor is duplicated.

        Raises `LayoutMismatch` where a peer of another version made it, `FabricError` where it is no fabric,
        or cannot be mapped.
        """
        try:
            fd = os.dup(fd)
        except OSError as error:
            raise FabricError(
                f"cannot take the fabric's descriptor: {error.strerror}",
                "pass one that is open, or raise the limit on descriptors (ulimit -n)",
            ) from None
        try:
            mapping, view = _view(fd)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, mapping, view)

    def __reduce__(self) -> tuple[Any, ...]:
        """For a `multiprocessing.Process` of any start method, and its pipes and queues: the other process
        gets the descriptor and attaches. Raises `FabricError` once this is closed.
        """
        from multiprocessing.reduction import DupFd  # milliseconds, which no shard's start should pay

        with self._closing:
            _ = self.view
            return _handed_over, (type(self), DupFd(self.fd))

    @property
    def view(self) -> Any:
        """`struct sio_fabric *`: what the core's functions take. The segment stays mapped while it is held.

        Raises `FabricError` once the segment is closed.
        """
        view = self._view
        if view is None:
            raise FabricError("the fabric is closed", "close it after whatever uses it")
        return view

    def mapped_again(self) -> Any:
        """Another `struct sio_fabric *` over a mapping of its own, which lasts as long as it is held.

        Raises `FabricError` once the segment is closed, and where it cannot be mapped.
        """
        with self._closing:
            _ = self.view
            mapping, view = _view(self.fd)
        return ffi.gc(view, lambda _: mapping.close())

    def close(self) -> None:
        """Close the descriptor; unmapped as soon as nobody holds `view`. Idempotent, in any thread."""
        with self._closing:
            if self._view is None:
                return
            self._view = None
            os.close(self.fd)
            self.fd = -1
            told = [tell() for tell in self._told]
        for tell in told:
            if tell is not None:
                tell()

    @property
    def closed(self) -> bool:
        """Whether `close` has been called."""
        return self._view is None

    def when_closed(self, tell: Callable[[], None]) -> None:
        """Call a bound method, in whatever thread closes this, as long as its object is there."""
        self._told = [each for each in self._told if each() is not None]
        self._told.append(weakref.WeakMethod(tell))

    def back_trace(self) -> None:
        """Have memory behind the trace rings, which nothing may touch before. Raises `FabricError`."""
        view = self.view
        begin = int(ffi.cast("uintptr_t", view.trace)) - int(ffi.cast("uintptr_t", view.base))
        try:
            os.posix_fallocate(self.fd, begin, self.size - begin)
        except OSError as error:
            raise FabricError(
                f"cannot allocate {(self.size - begin) / 2**20:.1f} MiB for tracing: {error.strerror}",
                "free memory, or raise limits (the control group's memory.max, ulimit -f)",
            ) from None

    def checked(self, what: str, number: int) -> int:
        """`number`, where the segment has such a "vCPU", "shard" or "range"; else raises `FabricError`."""
        count = {"vCPU": self.vcpus, "shard": self.shards, "range": self.ranges}[what]
        if not 0 <= number < count:
            raise FabricError(f"no {what} {number} in a fabric of {count}", f"use 0 to {count - 1}")
        return number

    @property
    def memory(self) -> int:
        """Bytes of memory that the segment takes now. Histograms get theirs when they are first written."""
        with self._closing:
            _ = self.view
            return os.fstat(self.fd).st_blocks * 512

    def waits(self, vcpu: int, range_index: int) -> AccessStatistics:
        """How long one vCPU waited for one range, and what was refused to it. Its reads and writes are
        counted by the shards that serve them: see `service`.
        """
        fabric = self.view  # held until all is read
        vcpu, range_index = self.checked("vCPU", vcpu), self.checked("range", range_index)
        return AccessStatistics.read(None, self._histogram(fabric, vcpu, range_index))

    def service(self, shard: int, range_index: int) -> AccessStatistics:
        """What one shard has done for one range: counts, and how long its handlers ran."""
        fabric = self.view
        shard, range_index = self.checked("shard", shard), self.checked("range", range_index)
        histogram = self._histogram(fabric, self.vcpus + shard, range_index)
        interrupts = lib.sio_interrupts(fabric, shard, range_index)
        return AccessStatistics.read(lib.sio_stat(fabric, shard, range_index), histogram, interrupts)

    def interrupts(self, shard: int, range_index: int) -> memoryview:
        """The two words that count the interrupts of the device whose first range this is, for its owner to
        write (`shardio.interrupt.counts`). Only while `view` is held.
        """
        fabric = self.view
        self.checked("range", range_index)
        cells = lib.sio_interrupts(fabric, self.checked("shard", shard), range_index)
        return memoryview(ffi.buffer(cells)).cast("Q")

    def clear_statistics(self, range_index: int) -> None:
        """Begin anew for a range index that nobody uses."""
        fabric = self.view
        self.checked("range", range_index)
        parts = [
            part(fabric, shard, range_index)
            for part in (lib.sio_stat, lib.sio_interrupts)
            for shard in range(self.shards)
        ]
        rows = range(self.vcpus + self.shards)
        parts += [hist for row in rows if (hist := self._histogram(fabric, row, range_index)) is not None]
        for part in parts:
            view = ffi.buffer(part)
            view[:] = bytes(len(view))

    @staticmethod
    def _histogram(fabric: Any, row: int, range_index: int) -> Any:
        """The `struct sio_hist *` of a row, None where nobody has written it: reading it would cost memory.
        """
        in_use = lib.sio_hist_in_use(fabric, row, range_index)
        return lib.sio_hist(fabric, row, range_index) if in_use else None

    def vcpu_counters(self, vcpu: int) -> VcpuCounters:
        """A vCPU's counters that belong to no range."""
        fabric = self.view
        return VcpuCounters.read(fabric.vcpu[self.checked("vCPU", vcpu)])

    def shard_counters(self, shard: int) -> ShardCounters:
        """A shard's counters that belong to no range."""
        fabric = self.view
        return ShardCounters.read(fabric.shard[shard], self.progress(shard))

    def progress(self, shard: int) -> int:
        """How many requests and posted writes a shard's owners have taken since the segment was made."""
        fabric = self.view
        self.checked("shard", shard)
        posted = sum(int(lib.sio_credit(fabric, shard, vcpu).taken) for vcpu in range(self.vcpus))
        return int(fabric.shard[shard].progress) + posted


def _handed_over(kind: type[Fabric], handle: Any) -> Fabric:
    fd = handle.detach()
    try:
        return kind.attach(fd)
    finally:
        os.close(fd)


def _no_fabric(what: str = "the descriptor is no fabric segment") -> FabricError:
    return FabricError(what, "pass the descriptor of a Fabric made by the VMM")


def _view(fd: int) -> tuple[mmap.mmap, Any]:
    """A new mapping of a segment that somebody has laid out, and the core's view of it."""
    mapping = _map(fd, os.fstat(fd).st_size)
    view = ffi.new("struct sio_fabric *")
    base = _address(mapping)
    status = lib.sio_fabric_attach(view, base, len(mapping))
    if status == -errno.EPROTONOSUPPORT:
        raise LayoutMismatch("layout version", lib.sio_fabric_version(base), lib.SIO_LAYOUT_VERSION)
    if status:
        raise _no_fabric(*([] if status == -errno.EPROTO else ["the fabric's header is damaged"]))
    return mapping, view


def _map(fd: int, size: int) -> mmap.mmap:
    if size == 0:
        raise _no_fabric()
    try:
        return mmap.mmap(fd, size)
    except OSError as error:
        raise FabricError(
            f"cannot map {size / 2**20:.1f} MiB of shared memory: {error.strerror}",
            "raise the limits on memory and open files (ulimit -v, -n)",
        ) from None


def _address(mapping: mmap.mmap) -> Any:
    return ffi.cast("void *", ffi.from_buffer(mapping))


def _allocate(size: int, backed: int, untraced: int) -> int:
    """The descriptor of a fresh segment: never named, of this size for ever, and backed but for histograms
    and what tracing needs.
    """
    try:
        return shared_memory("shardio-fabric", size, backed, untraced)
    except OSError as error:
        raise FabricError(
            f"cannot allocate {backed / 2**20:.1f} MiB of shared memory: {error.strerror}",
            "free memory, raise limits (the control group's memory.max, ulimit -f, -n), "
            "or use fewer vCPUs, shards or ranges",
        ) from None
