"""`multiprocessing.managers`: a proxy of the device object, a method call an access."""

from __future__ import annotations

from multiprocessing.managers import BaseManager
from typing import Any, cast

from shardio.bench.devices import Register
from shardio.bench.peers.peer import READ, context, settle
from shardio.bench.peers.pipe import BesideIdle


class _Manager(BaseManager):
    """Serves devices in threads of its process."""


_Manager.register("Register", Register)


class Manager(BesideIdle):
    """Calls through the proxy."""

    name, title = "manager", "multiprocessing.Manager, a proxy"

    def __init__(self, cpu: int) -> None:
        super().__init__(cpu)
        self._manager = manager = cast("Any", _Manager(ctx=context))
        manager.start(initializer=settle, initargs=(cpu,))
        self._device = manager.Register()

    def call(self, op: int, offset: int, size: int, value: int) -> int:
        device = self._device
        return int(device.read(offset, size) if op == READ else device.write(offset, size, value) or 0)

    def close(self) -> None:
        super().close()
        self._manager.shutdown()
        del self._device, self._manager  # they hold the process's pipes
