"""`RaisePage`: interrupts raised by a bit in shared memory, where a hypervisor takes them from there
(native/raise.h).

A shard maps the page that its first interrupt came with. Raising one costs an atomic operation or two, and a
futex call where a vCPU sleeps; it is there before the access ends during which it was raised.
"""

from __future__ import annotations

import mmap
from functools import partial
from typing import Any

from shardio._core import ffi, lib
from shardio.errors import HostError
from shardio.interrupt.backend import Irqfd


class RaisePage:
    """The page behind `fd`, mapped for as long as this or an `Irqfd` of it is held.

    Raises `HostError` where it cannot be mapped.
    """

    def __init__(self, fd: int) -> None:
        try:
            mapping = mmap.mmap(fd, ffi.sizeof("struct sio_raise"))
        except OSError as error:
            hint = "raise the limits on memory and open files (ulimit -v, -n)"
            raise HostError(f"the page of interrupts: {error.strerror}", hint) from error
        self._mapping = ffi.from_buffer(mapping)
        self.view: Any = ffi.cast("struct sio_raise *", self._mapping)

    def irqfd(self, handle: int, gsi: int, fd: int, *, level: bool) -> Irqfd:
        """The interrupt whose bit is `handle`; `fd`: a descriptor of this page."""
        follow = partial(self._set_level, handle) if level else None
        return Irqfd(handle, gsi, fd, None, partial(self._raise_edge, handle), follow, page=True)

    def _raise_edge(self, handle: int) -> bool:
        lib.sio_raise_edge(self.view, handle)
        return True

    def _set_level(self, handle: int, high: bool) -> bool:
        lib.sio_raise_level(self.view, handle, high)
        return True
