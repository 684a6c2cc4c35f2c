"""Who uses a port: one process at a time, and after one that died its access is finished first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from shardio._core import lib
from shardio.errors import FabricError
from shardio.fabric.port_record import PortRecord

SETTLE_S = 2.0
"""How long a new user of a port waits for the shard that still has the request of a dead one."""


class PortUser:
    """The right to use the port of `vcpu`."""

    def __init__(self, record: PortRecord, segment: Any, vcpu: int) -> None:
        self._record = record
        self._segment = segment
        self._vcpu = vcpu

    def take(self, held_here: Callable[[], bool]) -> None:
        """Make this process the user. `held_here`: whether another object of this process has it. Raises
        `FabricError` where somebody else has it, or left what does not end.
        """
        deadline = time.monotonic() + SETTLE_S
        while (holder := self._exchange(lib.SIO_PORT_FREE, os.getpid())) != lib.SIO_PORT_FREE:
            if holder == lib.SIO_PORT_FINISHING:
                if time.monotonic() > deadline:
                    raise self._in_use(holder)
                time.sleep(0.001)
            # Where it is this process's number and no object here has the port, a dead process had it.
            elif held_here() if holder == os.getpid() else _alive(holder):
                raise self._in_use(holder)
            else:
                self._settle_for(holder)

    def give_up(self) -> None:
        """Another process may take it."""
        self._exchange(os.getpid(), lib.SIO_PORT_FREE)

    def _exchange(self, before: int, after: int) -> int:
        return int(lib.sio_port_exchange(self._record.view, before, after))

    def _in_use(self, pid: int) -> FabricError:
        return FabricError(
            f"vCPU {self._vcpu}'s port is in use by process {pid}", "give each process a port of its own"
        )

    def _settle_for(self, dead: int) -> None:
        """Finish what a dead user had in flight, unless somebody else is at it. Raises `FabricError` where
        its shard does not answer.
        """
        if self._exchange(dead, lib.SIO_PORT_FINISHING) != dead:
            return
        deadline = time.monotonic() + SETTLE_S
        while not lib.sio_client_finish(self._record.client, self._segment):
            if time.monotonic() > deadline:
                self._exchange(lib.SIO_PORT_FINISHING, dead)
                raise self._in_use(dead)
            time.sleep(0.001)
        self._exchange(lib.SIO_PORT_FINISHING, lib.SIO_PORT_FREE)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
