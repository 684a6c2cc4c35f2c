"""Guest memory: one memfd, mapped once in this process, seen as the guest's physical address space.

The same object serves the VMM, which creates it and gives it to KVM, and a shard whose device does DMA, which
maps the descriptor that it was handed. Regions: RAM fills `[0, 3 GiB)` first, what is left begins at 4 GiB;
the hole between them is for devices and firmware. In the memfd the regions follow each other without a hole.

>>> with GuestMemory(0x10000) as memory:
...     memory.write(0x1000, b"shard")
...     memory.read(0x1000, 5)
b'shard'
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from shardio._core import ffi
from shardio.closing import Closing
from shardio.errors import HostError, MachineError, MemoryAccessError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PAGE_SIZE = 4096
LOW_MEMORY_END = 3 << 30
"""First byte of the hole below 4 GiB, where devices (from 0xC000_0000) and firmware live."""
HIGH_MEMORY_BASE = 4 << 30
"""Guest address of the RAM that does not fit below the hole."""
ADAPTER_SPACE = range(0xA_0000, 0xE_0000)
"""Where a PC has the memory of adapters and their ROMs: VGA from 0xA0000, option ROMs from 0xC0000. A device
there takes its pages from guest RAM (`GuestMemory.open_holes`)."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(0x[0-9a-f]+|[0-9]+)\s*(?:([KMGT])(?:i?B)?)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MemoryRegion:
    """A run of guest RAM: bytes `[guest_address, guest_address + size)`, at `file_offset` of the memfd."""

    guest_address: int
    size: int
    file_offset: int

    @property
    def end(self) -> int:
        """The first guest address after the region."""
        return self.guest_address + self.size

    def __str__(self) -> str:
        return f"{self.guest_address:#x}-{self.end - 1:#x}"


def parse_size(size: int | str) -> int:
    """Bytes of a size: a number of bytes, or text with K, M, G or T for powers of 1024.

    Raises `MachineError` for anything else and for zero.

    >>> parse_size("64M"), parse_size("1 GiB"), parse_size(4096)
    (67108864, 1073741824, 4096)
    """
    number = size if isinstance(size, int) and not isinstance(size, bool) else None
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if match is not None:
        number = int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10) * _UNITS[(match[2] or "").upper()]
    if number is None or number <= 0:
        raise MachineError(f'no size "{size}"', 'write bytes, or a number with K, M or G, like "64M"')
    return number


def check_size(size: int) -> None:
    """Raises `MachineError` unless guest RAM can have `size` bytes: a positive multiple of the page."""
    if not 0 < size < 1 << 63 or size % PAGE_SIZE:
        raise MachineError(f"{size} bytes of guest memory", f"use a positive multiple of {PAGE_SIZE}")


def regions_of(size: int) -> tuple[MemoryRegion, ...]:
    """The regions of `size` bytes of RAM: what fits below 3 GiB, and the rest from 4 GiB up."""
    low = MemoryRegion(0, min(size, LOW_MEMORY_END), 0)
    if size <= LOW_MEMORY_END:
        return (low,)
    return (low, MemoryRegion(HIGH_MEMORY_BASE, size - LOW_MEMORY_END, LOW_MEMORY_END))


def _with_holes(region: MemoryRegion, holes: Iterable[range]) -> Iterator[MemoryRegion]:
    """What is left of `region`, which has whole pages, in address order."""
    start = region.guest_address
    pages = sorted((hole.start & -PAGE_SIZE, (hole.stop + PAGE_SIZE - 1) & -PAGE_SIZE) for hole in holes)
    for first, last in (*pages, (region.end, region.end)):
        end = min(first, region.end)
        if start < end:
            yield MemoryRegion(start, end - start, region.file_offset + start - region.guest_address)
        start = max(start, last)


class GuestMemory(Closing):
    """`size` bytes of guest RAM (a multiple of 4096), zeroed, in a memfd sealed against resizing.

    Pages are taken from the host when they are first touched. Raises `MachineError` for a size that is not a
    positive multiple of the page, `HostError` where the host cannot provide it.
    """

    def __init__(self, size: int) -> None:
        check_size(size)
        try:
            fd = os.memfd_create("shardio-guest-ram", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise _no_room(size, error) from error
        try:
            os.ftruncate(fd, size)
            # A shard holds this descriptor too: were it able to shrink the file, the VMM would die of SIGBUS.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._map(fd, size)
        except OSError as error:
            os.close(fd)
            raise _no_room(size, error) from error

    @classmethod
    def from_fd(cls, fd: int, size: int) -> Self:
        """Maps `size` bytes of the guest RAM behind `fd`; the caller keeps `fd`, the object has a duplicate.

        Raises `MemoryAccessError` where the file is shorter than `size`, `HostError` where it cannot be
        mapped.
        """
        check_size(size)
        if os.fstat(fd).st_size < size:
            raise MemoryAccessError(0, size, regions_of(os.fstat(fd).st_size))
        memory = cls.__new__(cls)
        try:
            own = os.dup(fd)
        except OSError as error:
            raise _no_room(size, error) from error
        try:
            memory._map(own, size)
        except OSError as error:
            os.close(own)
            raise _no_room(size, error) from error
        return memory

    def __reduce__(self) -> tuple[Any, ...]:
        """For a `multiprocessing.Process` of any start method, and its pipes and queues: the other process
        gets the descriptor and maps it. Raises `MemoryAccessError` once this is closed.
        """
        from multiprocessing.reduction import DupFd  # milliseconds, which no shard's start should pay

        if self._fd < 0:
            raise MemoryAccessError(0, self._size, ())
        return _handed_over, (type(self), DupFd(self._fd), self._size)

    def _map(self, fd: int, size: int) -> None:
        self._mapping = mmap.mmap(fd, size)
        self._bytes = memoryview(self._mapping)
        self._fd = fd
        self._size = size
        self._regions = regions_of(size)

    @property
    def fd(self) -> int:
        """The memfd, to be handed to a shard. Valid until `close()`."""
        return self._fd

    @property
    def size(self) -> int:
        """Bytes of RAM, all regions together."""
        return self._size

    @property
    def regions(self) -> tuple[MemoryRegion, ...]:
        """The regions in address order."""
        return self._regions

    def open_holes(self, holes: Iterable[range]) -> None:
        """Take the pages of `holes` (guest addresses) out of the regions: devices answer there. What is in
        them stays in the memfd, and nobody reaches it by a guest address of this object.
        """
        holes = tuple(holes)
        self._regions = tuple(part for region in self._regions for part in _with_holes(region, holes))

    def read(self, addr: int, length: int) -> bytes:
        """A copy of `length` bytes at guest address `addr`. Raises `MemoryAccessError` outside one region."""
        return bytes(self.view(addr, length))

    def write(self, addr: int, data: ReadableBuffer) -> None:
        """Writes `data` at guest address `addr`, all of it or, with a `MemoryAccessError`, nothing."""
        with memoryview(data) as source, source.cast("B") as octets, self.view(addr, len(octets)) as target:
            target[:] = octets

    def view(self, addr: int, length: int) -> memoryview:
        """A writable view of `length` bytes at guest address `addr`, without a copy: the guest sees writes.

        The view keeps the mapping alive after `close()`. Raises `MemoryAccessError` outside one region.
        """
        offset = self._offset(addr, length)
        try:
            return self._bytes[offset : offset + length]
        except ValueError:  # another thread has closed it since
            raise MemoryAccessError(addr, length, ()) from None

    def host_address(self, addr: int, length: int) -> int:
        """The address in this process of guest address `addr`; valid for `length` bytes and until `close()`.

        Raises `MemoryAccessError` outside one region.
        """
        with self.view(addr, length) as view:
            return int(ffi.cast("uintptr_t", ffi.from_buffer(view)))

    def _offset(self, addr: int, length: int) -> int:
        for region in self._regions:
            if region.guest_address <= addr and length >= 0 and addr + length <= region.end:
                return region.file_offset + addr - region.guest_address
        raise MemoryAccessError(addr, length, self._regions)

    def close(self) -> None:
        """Closes the memfd and unmaps the RAM once no view of it and no VM uses it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        os.close(fd)
        self._regions = ()
        self._bytes.release()
        # Views still out: the mapping goes with the last of them.
        with contextlib.suppress(BufferError):
            self._mapping.close()

    def __repr__(self) -> str:
        return f"GuestMemory({self._size:#x})"


def _handed_over(kind: type[GuestMemory], handle: Any, size: int) -> GuestMemory:
    fd = handle.detach()
    try:
        return kind.from_fd(fd, size)
    finally:
        os.close(fd)


def _no_room(size: int, error: OSError) -> HostError:
    return HostError(
        f"{size >> 20} MiB of guest memory: {error.strerror}",
        hint="ask for less memory, or raise the limits on it, on files and on their size (ulimit -v, -n, -f)",
    )
