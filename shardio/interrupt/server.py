"""`InterruptServer`: the VMM's answer to one shard's interrupt requests, in front of the real backend.

A shard is not trusted: it names only handles that it was given, holds a bounded number of irqfds, and
whatever it sends is decoded by type or refused. When it is gone, `close` frees all that it held.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection

from shardio.errors import InterruptError, ShardioError
from shardio.interrupt.backend import InterruptBackend
from shardio.interrupt.config import MsiConfig
from shardio.interrupt.doorbell import Doorbell, DoorbellBackend
from shardio.interrupt.messages import (
    Allocate,
    Allocated,
    BindDoorbell,
    Bound,
    Connect,
    Disconnect,
    Done,
    Free,
    Refused,
    Reply,
    Request,
    SetRoute,
    UnbindDoorbell,
    decode_request,
    encode,
)
from shardio.interrupt.proxy import MAX_MESSAGE
from shardio.interrupt.wires import line_bit
from shardio.threads import close_aside

MAX_SENT = 253
"""Descriptors that a message can have beside it (SCM_MAX_FD)."""
DEFAULT_LIMIT = 3072
"""Irqfds, and doorbells, that one shard may hold, of a VM's 4096 routes: a quarter is left to the others."""
HARMLESS_MODES = frozenset(("fixed", "lowest"))
"""Delivery modes that any device may use; the others end a vCPU, or the machine."""
X86 = os.uname().machine == "x86_64"


class InterruptServer:
    """Executes the requests of one shard. One per shard; called from the VMM's control plane, one call
    at a time.
    """

    def __init__(
        self,
        backend: InterruptBackend | None,
        limit: int = DEFAULT_LIMIT,
        doorbells: DoorbellBackend | None = None,
        owns: Callable[[int, bool], bool] | None = None,
        grant: Callable[[int], None] | None = None,
        modes: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`backend`: None refuses all interrupts. `limit`: irqfds, and doorbells, that the shard may hold.
        `doorbells`: None refuses all.
        `owns(address, pio)`: whether a doorbell's address is in a range of this shard; None refuses none.
        `grant(lines)`: told which lines (`wires.line_bit`) the shard has connected, whenever that changes:
        those that the vCPU workers raise for it at the end of an access.
        `modes()`: the delivery modes beside fixed and lowest priority that its devices declare.
        """
        self._backend = backend
        self._doorbells = doorbells
        self._owns = owns
        self._bound: set[int] = set()
        self._limit = limit
        self._held: set[int] = set()
        self._grant = grant
        self._modes = modes
        self._lines: dict[int, int] = {}
        self._connected: set[int] = set()

    def handle(self, request: Request) -> tuple[Reply, list[int]]:
        """Do what was asked. Returns the reply and the descriptors to send with it (they stay the
        backend's).
        """
        try:
            return self._execute(request)
        except InterruptError as error:
            return Refused(error.line, error.reason, error.hint), []
        except ShardioError as error:
            return Refused("request", error.message, error.hint), []
        except (OSError, OverflowError, TypeError, ValueError) as error:
            return Refused("request", f"cannot be done: {error}", "ask for what there is"), []

    def handle_bytes(self, message: bytes) -> tuple[bytes, list[int]]:
        """The same for an encoded request; one that cannot be decoded is refused."""
        try:
            request = decode_request(message)
        except (ValueError, RecursionError, ShardioError) as error:
            return encode(
                Refused("request", f"not understood: {error}", "run the same shardio everywhere")
            ), []
        reply, fds = self.handle(request)
        return encode(reply), fds

    def serve(self, sock: socket.socket) -> bool:
        """Receive one request from a SOCK_SEQPACKET socket and answer it, without waiting for anybody. False
        when the shard is gone. Raises InterruptError for a shard that has to be ended: it does not read its
        answers, or sends descriptors.
        """
        try:
            message, sent, _, _ = socket.recv_fds(
                sock, MAX_MESSAGE, MAX_SENT, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
            if sent:
                close_aside(*sent)
                raise InterruptError("request", "has descriptors beside it", "send none")
            if not message:
                return False
            reply, fds = self.handle_bytes(message)
            self._reply(sock, reply, fds)
        except BlockingIOError:
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _reply(self, sock: socket.socket, reply: bytes, fds: list[int]) -> None:
        try:
            if fds:
                socket.send_fds(sock, [reply], fds, socket.MSG_DONTWAIT)
            else:
                sock.send(reply, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise InterruptError("answers", "are not read", "read one before the next request") from None

    def close(self) -> None:
        """The shard is gone: free all that it held. Idempotent."""
        while self._held and self._backend is not None:
            self._backend.free(self._held.pop())
        self._lines.clear()
        self._connected.clear()
        self._tell_lines()
        while self._bound and self._doorbells is not None:
            self._doorbells.unbind_doorbell(self._bound.pop())

    def _execute(self, request: Request) -> tuple[Reply, list[int]]:
        if isinstance(request, BindDoorbell | UnbindDoorbell):
            return self._doorbell(request)
        backend = self._backend
        if backend is None:
            raise InterruptError("request", "this machine has no in-kernel irqchip", "use irqchip=True")
        if isinstance(request, Allocate):
            return self._allocate(backend, request)
        if request.handle not in self._held:
            raise InterruptError(
                f"handle {request.handle}", "is not this shard's", "use handles of Allocated"
            )
        match request:
            case SetRoute(handle, message):
                self._check_mode(message)
                backend.set_route(handle, message)
            case Connect(handle):
                backend.connect(handle)
                self._connected.add(handle)
                self._tell_lines()
            case Disconnect(handle):
                self._withdraw(handle)
                backend.disconnect(handle)
            case Free(handle):
                self._held.remove(handle)
                self._withdraw(handle)
                self._lines.pop(handle, None)
                backend.free(handle)
        return Done(), []

    def _check_mode(self, message: MsiConfig) -> None:
        if X86 and message.mode not in HARMLESS_MODES and message.mode not in self._modes():
            raise InterruptError(
                "message",
                f"has delivery mode {message.mode}, which no device of this shard declares",
                f'let the device\'s class have message_modes = ("{message.mode}",)',
            )

    def _withdraw(self, handle: int) -> None:
        self._connected.discard(handle)
        self._tell_lines()

    def _tell_lines(self) -> None:
        if self._grant is not None:
            lines = 0
            for handle in self._connected & self._lines.keys():
                lines |= 1 << self._lines[handle]
            self._grant(lines)

    def _doorbell(self, request: BindDoorbell | UnbindDoorbell) -> tuple[Reply, list[int]]:
        if self._doorbells is None:
            raise InterruptError("doorbell", "this machine has none", "leave it an ordinary write")
        if isinstance(request, UnbindDoorbell):
            if request.handle not in self._bound:
                raise InterruptError(
                    f"doorbell {request.handle}", "is not this shard's", "use handles of Bound"
                )
            self._bound.remove(request.handle)
            self._doorbells.unbind_doorbell(request.handle)
            return Done(), []
        if self._owns is not None and not self._owns(request.address, request.pio):
            raise InterruptError(
                f"doorbell {request.address:#x}", "is in no range of this shard", "register it first"
            )
        if len(self._bound) >= self._limit:
            raise InterruptError("doorbell", f"the shard holds {self._limit}", "unbind some first")
        try:
            wanted = Doorbell(0, request.length, request.datamatch)
        except ValueError as error:
            raise InterruptError(f"doorbell {request.address:#x}", str(error)) from None
        bound = self._doorbells.bind_doorbell(request.address, wanted, pio=request.pio)
        self._bound.add(bound.handle)
        return Bound(bound.handle), [bound.fd]

    def _allocate(self, backend: InterruptBackend, request: Allocate) -> tuple[Reply, list[int]]:
        if len(self._held) >= self._limit:
            raise InterruptError("request", f"the shard holds {self._limit} interrupts", "free some first")
        irqfd = backend.allocate(request.gsi, level=request.level, followed=request.followed)
        self._held.add(irqfd.handle)
        if request.gsi is not None and (bit := line_bit(irqfd.gsi)) is not None:
            self._lines[irqfd.handle] = bit
        fds = [irqfd.fd] if irqfd.resample_fd is None else [irqfd.fd, irqfd.resample_fd]
        return Allocated(irqfd.handle, irqfd.gsi, irqfd.page), fds
