"""The main of a shard process: attaches the fabric, takes orders from the VMM, runs the event loop until told
to quit.

Started by `shardio.supervisor` as `python -c ... process.main()` with two sockets inherited; `Setup` says
which shard it is, and until then it is a warm spare (`spare`). Ends when the control socket
closes; dies with the VMM's supervisor thread (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from typing import Any

from shardio._core import lib
from shardio.errors import MachineError, ShardioError
from shardio.processes import set_process_name
from shardio.shard import notebook, protocol
from shardio.shard.blame import Blamed, described
from shardio.shard.breakpoint_hook import breakpoint_hook
from shardio.shard.devices import Devices
from shardio.shard.leaving import leave
from shardio.shard.log import log_to_stderr
from shardio.shard.runtime import Runtime
from shardio.shard.spare import Spare
from shardio.shard.walls import raise_first

log = logging.getLogger("shardio.shard")


class Shard:
    """What obeys the VMM's messages in a shard process."""

    def __init__(
        self, spare: Spare, shard: int, doorbell: int, control: socket.socket, interrupts: socket.socket
    ) -> None:
        """Takes the loop and the fabric of a `spare` that has been told to prepare."""
        assert spare.fabric is not None
        self.loop = spare.loop
        asyncio.set_event_loop(self.loop)
        self.control = control
        self.runtime = Runtime(spare.loop, spare.fabric, shard, doorbell, self._report)
        self.devices = Devices(self.runtime, control, interrupts)

    def run(self) -> None:
        """Until the VMM says quit, or is gone."""
        self.loop.add_reader(self.control, self._on_message)
        try:
            self.loop.run_forever()
        finally:
            self.runtime.owner.flush()  # the guest was not made to wait for these writes, but it made them
            self.devices.detach_all()
            self.runtime.close()
            self.devices.close()

    def _on_message(self) -> None:
        self._act(*self._received())

    def ask_terminal(self, where: str) -> int | None:
        """The user's terminal, a descriptor, once it is lent; None where there is none. Blocks, in the loop's
        thread; what comes meanwhile is seen to later.
        """
        protocol.tell(self.control, protocol.AskTerminal(where[: protocol.MAX_TEXT]))
        while True:
            message, fds = self._received()
            if isinstance(message, protocol.Terminal):
                return fds[0] if message.lent else None
            self.loop.call_soon(self._act, message, fds)
            if message is None:
                return None

    def _received(self) -> tuple[protocol.ToShard | None, list[int]]:
        """The VMM's next message; None where it has gone."""
        try:
            return protocol.receive_in_shard(self.control)
        except ValueError as error:  # a fault of the VMM's: whoever waits for the answer learns of it now
            log.error("a message of the VMM's makes no sense: %s", error)
            return None, []

    def _act(self, message: protocol.ToShard | None, fds: list[int]) -> None:
        match message:
            case None | protocol.Quit():
                self.loop.stop()
            case protocol.Serve():
                self.runtime.serve()
            case protocol.AddDevices():
                self._answer(message.serial, lambda: self.devices.add(message, fds))
            case protocol.RemoveDevice():
                self._answer(message.serial, lambda: self.devices.remove(message.name))
            case protocol.MoveDevice():
                self._answer(message.serial, lambda: self.devices.move(message))
            case protocol.Call():
                self._answer(message.serial, lambda: self.devices.call(message))
            case protocol.ShareMemory() | protocol.ShareRing():
                self.devices.share(message, fds[0])

    def _answer(self, serial: int, action: Any) -> None:
        try:
            done = protocol.Done(serial, result=self._packed(action()))
        except Blamed as error:
            text = error.message[: protocol.MAX_TEXT]
            done = protocol.Done(serial, error=text, hint=error.hint, failure=error.failure)
        except ShardioError as error:
            done = protocol.Done(serial, error=error.message[: protocol.MAX_TEXT], hint=error.hint)
        except BaseException as error:
            log.debug("request failed", exc_info=True)
            done = protocol.Done(serial, error=described(error)[: protocol.MAX_TEXT])
        protocol.tell(self.control, done)

    def _packed(self, result: Any) -> bytes:
        try:
            return protocol.pack_result(result)
        except (TypeError, ValueError, OverflowError, MachineError) as error:
            raise MachineError(f"the result cannot be sent: {error}") from None

    def _report(self, name: str, text: str) -> None:
        protocol.tell(self.control, protocol.HandlerFailed(name, text))


def main(control_fd: int, interrupt_fd: int, parent: int, notebook_fd: int) -> None:
    """Run as a shard, once told which. `parent`: the VMM's pid. The descriptors become this process's own."""
    if lib.sio_die_with_parent(parent) != 0:
        return
    notebook.open_in_shard(notebook_fd)
    raise_first()
    for number in protocol.STOP_SIGNALS:
        signal.signal(number, lambda *_: None)  # not SIG_IGN: what a device starts would inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, protocol.STOP_SIGNALS)
    # Off since the interpreter's first line: of what is imported, little is ever garbage. A first collection
    # would go through all of it.
    gc.freeze()
    gc.enable()
    with socket.socket(fileno=control_fd) as control, socket.socket(fileno=interrupt_fd) as interrupts:
        with contextlib.closing(Spare(control)) as spare:
            if (told := spare.wait()) is None:
                return
            setup, doorbell = told
            set_process_name(f"shardio:{setup.name}")
            shard = Shard(spare, setup.shard, doorbell, control, interrupts)
            sys.breakpointhook = breakpoint_hook(
                shard.ask_terminal, lambda: protocol.tell(control, protocol.ReturnTerminal())
            )
            log_to_stderr(setup.log_level, parent, setup.name, shard.devices.name_of)
            shard.run()
    leave()
