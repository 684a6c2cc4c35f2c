"""`GdbServer`: listens for a debugger, one at a time, in a thread of the machine's process.

Facts. A debugger may send anything, half of it, or vanish. When it comes, it expects the guest to stand still
within two seconds. The vCPUs are there only once the machine has started, and a software CPU's a while later.

Consequences. Nobody is accepted before the start, and a second debugger is turned away. Sockets do not block;
one that takes no answer for `PATIENCE_S` seconds is dropped. A debugger that vanishes, however it does, has
detached: its breakpoints are gone and the guest goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence

from shardio.closing import Closing
from shardio.dispatcher.life import Life
from shardio.errors import DebuggerError, ShardioError
from shardio.gdb.address import listen, shown
from shardio.gdb.registers import ARCHITECTURES, I386, X86_64, Architecture
from shardio.gdb.rsp import ACK, NACK, Again, Broken, Framer, Interrupt, Packet, frame
from shardio.gdb.session import Ended, Session
from shardio.gdb.target import Target
from shardio.memory import GuestMemory
from shardio.supervisor.exits import UnservedExits
from shardio.threads import start
from shardio.vcpu import Vcpu

PATIENCE_S = 5.0
CLOSE_S = 5.0
_READ = 65536
_START_LOOK_S = 0.05
_EFER_LMA = 1 << 10

log = logging.getLogger("shardio.gdb")


class GdbServer(Closing):
    """A machine's, at `where` (`shardio.gdb.address`), from now until `close`. `address`: where it listens.

    `wait`: the guest's first instruction waits for a debugger; `architecture`: "i386", "x86-64" or "auto":
    `wide` says which of them a guest is that has not come to its kernel; `stop`: what a debugger's `kill`
    does, and must not wait for this thread. Raises `DebuggerError`.
    """

    def __init__(
        self,
        where: str,
        life: Life,
        vcpus: Callable[[], Sequence[Vcpu]],
        exits: UnservedExits,
        memory: GuestMemory,
        *,
        wide: Callable[[], bool],
        wait: bool = False,
        architecture: str = "auto",
        stop: Callable[[], None],
    ) -> None:
        if architecture != "auto" and architecture not in ARCHITECTURES:
            raise DebuggerError(f"no architecture {architecture!r}", f"use auto, {', '.join(ARCHITECTURES)}")
        if exits.debugger is not None:
            raise DebuggerError("the machine listens for a debugger already", "close that one first")
        self._life, self._wide, self._architecture, self._stop = life, wide, architecture, stop
        self._client: socket.socket | None = None
        self._session: Session | None = None
        self._framer = Framer()
        self._last = b""
        self._closed = False
        self._path: str | None = None
        with contextlib.ExitStack() as undo:
            self._listener = undo.enter_context(listen(where))
            self.address = shown(self._listener)
            if self._listener.family == socket.AF_UNIX:
                self._path = self.address
                undo.callback(self._remove_name)
            self._listener.setblocking(False)
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            undo.callback(os.close, self._wake)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._selector.register(self._wake, selectors.EVENT_READ)
            self._target = Target(vcpus, exits, memory, self._ring)
            exits.debugger = self._target
            if wait:
                self._target.attach()
            self._thread = threading.Thread(target=self._serve, name="shardio-gdb", daemon=True)
            start(self._thread)
            undo.pop_all()  # they are the thread's now
        life.on_end(self._ring)

    def close(self) -> None:
        """A debugger that is there hears of the end, or is detached from. Idempotent. In a fork it does
        nothing.
        """
        if self._life.forked:
            return
        self._life.off_end(self._ring)
        self._closed = True
        self._ring()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # the thread has ended, and closed it
            os.eventfd_write(self._wake, 1)

    def _remove_name(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    # ---- in the thread ----

    def _serve(self) -> None:
        try:
            while not self._closed and not self._target.begun(self._life):
                self._selector.select(_START_LOOK_S)
                self._heard()
            self._selector.register(self._listener, selectors.EVENT_READ)
            while not self._closed:
                for key, _ in self._selector.select():
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is self._client:
                        self._receive()
                self._heard()
                self._tell()
        except Exception:
            log.exception("the server for debuggers failed")
        finally:
            self._end_client()
            self._selector.close()
            self._listener.close()
            self._remove_name()
            os.close(self._wake)

    def _heard(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone away, or there is no descriptor left
            return
        if self._client is not None:
            client.close()
            return
        client.settimeout(PATIENCE_S)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client, self._framer = client, Framer()
        self._selector.register(client, selectors.EVENT_READ)
        self._target.attach()
        self._target.stop()
        self._session = Session(self._target, self._chosen())
        log.info("a debugger has come: the guest stands still")

    def _chosen(self) -> Architecture:
        if self._architecture != "auto":
            return ARCHITECTURES[self._architecture]
        vcpu = self._target.vcpus[0]
        try:
            long = bool(vcpu.registers.all().get("efer", 0) & _EFER_LMA)
        except ShardioError:
            long = False
        return X86_64 if long or self._wide() else I386

    def _receive(self) -> None:
        assert self._client is not None
        try:
            data = self._client.recv(_READ)
        except OSError:
            data = b""
        if not data:
            self._end_client()
            return
        for event in self._framer.feed(data):
            if self._session is None:
                return
            self._on(self._session, event)

    def _on(self, session: Session, event: Packet | Broken | Interrupt | Again) -> None:
        try:
            if isinstance(event, Interrupt):
                self._send(session.interrupt())
            elif isinstance(event, Again):
                self._write(self._last)
            elif isinstance(event, Broken):
                self._write(NACK if session.acknowledges else frame(b"E.malformed packet"))
            else:
                if session.acknowledges:
                    self._write(ACK)
                self._send(session.answer(event.body))
        except Ended as end:
            self._send(end.answer)
            self._end_client()
            if end.kill:
                self._stop()

    def _tell(self) -> None:
        """A stop of the guest, or the machine's end."""
        if self._session is None:
            return
        ended = self._life.exit
        if ended is not None:
            self._send(b"W%02x" % ((ended.status or 0) & 0xFF))
            self._end_client()
        else:
            self._send(self._session.news())

    def _send(self, body: bytes | None) -> None:
        if body is not None:
            self._last = frame(body)
            self._write(self._last)

    def _write(self, data: bytes) -> None:
        if self._client is None:
            return
        deadline = time.monotonic() + PATIENCE_S
        try:
            while data and time.monotonic() < deadline:
                data = data[self._client.send(data) :]
        except OSError:  # it has gone, or takes nothing: so will the next read
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def _end_client(self) -> None:
        client, self._client, self._session = self._client, None, None
        if client is not None:
            self._selector.unregister(client)
            client.close()
        if client is not None or self._closed:
            try:
                self._target.detach()
            except ShardioError as error:
                log.warning("a debugger has gone, and what it set stays: %s", error)
