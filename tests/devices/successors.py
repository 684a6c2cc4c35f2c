"""One owner after another of a device whose state outlives its shard, each killed without a word: what a
shard does with such a device (shardio.shard.devices), without a shard.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from shardio.device import declared_memory, view_handlers
from shardio.persistent import Journal, Persistent, persistent_memory
from shardio.range import PioRange

OF_VCPU = 48


class Successors:
    """`device` is the one that serves now. Each access of `read` and `write` has a name of its own; `again`
    makes the last one once more, by its name.
    """

    def __init__(
        self, kind: Callable[..., Any], host: Callable[[Any], Any], *, of: Any = None, **options: Any
    ) -> None:
        """`host`: what a device is attached to, given its memory. `options`: those of its class, `kind`, or
        `of` where `kind` is a function that makes it.
        """
        self._make, self._host = functools.partial(kind, **options), host
        self._journal, self._request = Journal(), 1 << OF_VCPU
        self.sizes = declared_memory(of or kind, options)
        self.fd = persistent_memory(*self.sizes)
        self.stores: list[Persistent] = []
        self._last: tuple[Any, ...] = ()
        self._fronts: dict[int, Any] = {}

    def start(self) -> Any:
        """The first device, or the next, after a kill of the one that was."""
        size, area = self.sizes
        self._journal.name(self._request)
        store = Persistent(self.fd, size, self._journal.control_at, area=area)
        self.stores.append(store)
        self.device = device = self._make()
        self.keep = getattr(device, "keep", None)
        if self.keep is None and hasattr(device, "state_type"):
            self.keep = store.keeper(device)
        if hasattr(device, "attach"):
            device.attach(self._host(store))
        self._fronts = {}
        return device

    def front(self, base: int) -> Any:
        """Who answers the range at `base`, in view form."""
        if base not in self._fronts:
            handlers_for = getattr(self.device, "handlers_for", None)
            answering = self.device if handlers_for is None else handlers_for(PioRange(base, 8))
            keep = getattr(answering, "keep", self.keep)
            self._fronts[base] = view_handlers(self.stores[-1].guard(answering, "pio", keep), "pio")
        return self._fronts[base]

    def read(self, base: int, offset: int, size: int = 1) -> int:
        """The guest reads."""
        self._next()
        self._last = (self._read, base, offset, size)
        return self._read(base, offset, size)

    def write(self, base: int, offset: int, value: int, size: int = 1) -> None:
        """The guest writes."""
        self._next()
        self._last = (self._write, base, offset, value, size)
        self._write(base, offset, value, size)

    def again(self) -> int | None:
        """The last access is asked for again: its owner died before the answer was there."""
        repeat, *arguments = self._last
        return repeat(*arguments)  # type: ignore[no-any-return]

    def _next(self) -> None:
        self._request += 1
        self._journal.name(self._request)

    def _read(self, base: int, offset: int, size: int) -> int:
        data = bytearray(size)
        self.front(base).pio_read(base, offset, memoryview(data))
        return int.from_bytes(data, "little")

    def _write(self, base: int, offset: int, value: int, size: int) -> None:
        self.front(base).pio_write(base, offset, memoryview(value.to_bytes(size, "little")))

    def close(self) -> None:
        if hasattr(self.device, "detach"):
            self.device.detach()
        for store in self.stores:
            store.close()
        os.close(self.fd)


@contextmanager
def successors(kind: Callable[..., Any], host: Callable[[Any], Any], **options: Any) -> Iterator[Successors]:
    """The first of them has started."""
    line = Successors(kind, host, **options)
    line.start()
    try:
        yield line
    finally:
        line.close()
