"""A shard's view of KVM's coalesced ring: see native/coalesced.h for who reads it, and when."""

from __future__ import annotations

import mmap

from shardio._core import ffi, lib
from shardio.errors import FabricError
from shardio.fabric.owner import Owner


class CoalescedRing:
    """The ring of one VM, drained by `owner` before every request that it serves, and now and then."""

    def __init__(self, owner: Owner, fd: int, page: int) -> None:
        """`fd`: a vCPU descriptor of the VM, not kept; `page`: where its mapping has the ring
        (KVM_CAP_COALESCED_MMIO).

        Raises `FabricError` where it cannot be mapped.
        """
        self._owner = owner
        try:
            self._mapping = mmap.mmap(fd, mmap.PAGESIZE, offset=page * mmap.PAGESIZE)
        except (OSError, ValueError) as error:
            raise FabricError(f"the coalesced ring cannot be mapped: {error}", "use posted = true") from error
        self._page = ffi.from_buffer(self._mapping)
        self._view = ffi.new("struct sio_coalesced *")
        lib.sio_coalesced_init(self._view, self._page, mmap.PAGESIZE)
        lib.sio_owner_coalesced(owner.view, self._view)

    def add(self, index: int) -> None:
        """Range `index` has zones from now on. Raises `FabricError` for too many."""
        if lib.sio_coalesced_add(self._view, index):
            raise FabricError(
                f"a shard has at most {lib.SIO_MAX_COALESCED} coalesced ranges", "use posted = true for some"
            )

    def drop(self, index: int) -> None:
        """Range `index` has none any more; what is in the ring for it should have been drained."""
        lib.sio_coalesced_drop(self._view, index)

    def close(self) -> None:
        """Let the ring go; the owner drains it no more."""
        if self._owner.view is not None:
            lib.sio_owner_coalesced(self._owner.view, ffi.NULL)
        ffi.release(self._page)
        self._mapping.close()
