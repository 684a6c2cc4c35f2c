"""What an interpreter does before it is told which shard it is: what a successor then has done already.

It attaches the fabric, makes its event loop, and imports the modules of the machine's devices. A module that
cannot be imported is left for the shard that asks for it: the error is told where the device is made, and
before a shard is reloaded.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys

from shardio.errors import ShardioError
from shardio.fabric import Fabric
from shardio.shard import protocol
from shardio.shard.blame import described
from shardio.shard.loading import load
from shardio.shard.runtime import Loop


class Spare:
    """An interpreter's state until `wait` says which shard it is."""

    def __init__(self, control: socket.socket) -> None:
        self.loop = Loop()
        self.fabric: Fabric | None = None
        self._control = control
        self._failed = ""

    def wait(self) -> tuple[protocol.Setup, int] | None:
        """Prepare as told, until told to be a shard: that message and the shard's doorbell, an eventfd that
        is the caller's. None when the VMM needs no spare any more, or is gone.
        """
        while True:
            message, fds = protocol.receive_in_shard(self._control)
            match message:
                case protocol.Prepare():
                    self._prepare(message, fds)
                case protocol.Setup():
                    sys.path[:] = message.sys_path
                    return message, fds[0]
                case _:
                    return None

    def close(self) -> None:
        """Let go of the fabric and the loop."""
        self.loop.close()
        if self.fabric is not None:
            self.fabric.close()

    def _prepare(self, message: protocol.Prepare, fds: list[int]) -> None:
        for fd in fds:
            self.fabric = Fabric.attach(fd)
            os.close(fd)
        sys.path[:] = message.sys_path
        for factory in message.factories:
            try:
                load(factory)
            except BaseException as error:  # a module may raise anything, SystemExit too
                text = error.message if isinstance(error, ShardioError) else described(error)
                self._failed = self._failed or text[: protocol.MAX_TEXT]
        told = select.poll()  # select() takes no descriptor above 1023
        told.register(self._control, select.POLLIN)
        if not told.poll(0):
            # Nobody waits: no collection will go through what is here now, in the successor's first moments.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            protocol.tell(self._control, protocol.Ready(self._failed))
