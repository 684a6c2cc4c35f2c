"""A shard's view of KVM's coalesced ring: see native/coalesced.h for who reads it, and when."""

from __future__ import annotations

import mmap
from typing import Any

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
            mapping = mmap.mmap(fd, mmap.PAGESIZE, offset=page * mmap.PAGESIZE)
        except (OSError, ValueError) as error:
            raise FabricError(f"the coalesced ring cannot be mapped: {error}", "use posted = true") from error
        # Mapped for as long as the owner, too, holds the view.
        self._view: Any = ffi.gc(ffi.new("struct sio_coalesced *"), lambda _: mapping.close())
        lib.sio_coalesced_init(self._view, ffi.cast("void *", ffi.from_buffer(mapping)), mmap.PAGESIZE)
        owner.drain_also(self._view)

    def add(self, index: int) -> None:
        """Range `index` has zones from now on. Raises `FabricError` for too many, or once it is closed."""
        if lib.sio_coalesced_add(self._opened(), index):
            raise FabricError(
                f"a shard has at most {lib.SIO_MAX_COALESCED} coalesced ranges", "use posted = true for some"
            )

    def drop(self, index: int) -> None:
        """Range `index` has none any more; what is in the ring for it should have been drained."""
        lib.sio_coalesced_drop(self._opened(), index)

    def close(self) -> None:
        """Let the ring go; the owner drains it no more. Idempotent."""
        if self._view is not None and self._owner.view is not None and not self._owner.elsewhere:
            self._owner.drain_also(None)
        self._view = None

    def _opened(self) -> Any:
        if self._view is None:
            raise FabricError("the coalesced ring is closed", "make another one")
        return self._view
