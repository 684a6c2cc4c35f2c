"""`ProxyBackend`: the backend of a shard. Each call is one request to the VMM, which holds the real
backend.

Only setting up goes this way; a trigger is a write to an eventfd that the shard holds. The VMM answers from
its control plane, never from a vCPU, so a device may call from inside an access without a deadlock.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from shardio.errors import InterruptError
from shardio.interrupt.backend import Irqfd
from shardio.interrupt.config import EXTINT, MsiConfig
from shardio.interrupt.messages import (
    Allocate,
    Allocated,
    BindDoorbell,
    Bound,
    Connect,
    Disconnect,
    Free,
    Refused,
    Reply,
    Request,
    SetRoute,
    UnbindDoorbell,
    decode_reply,
    encode,
)
from shardio.interrupt.wires import line_bit

if TYPE_CHECKING:
    from shardio.interrupt.doorbell import BoundDoorbell, Doorbell
    from shardio.interrupt.raising import RaisePage

MAX_MESSAGE = 4096
"""Bytes of the longest message, either way."""
REPLY_TIMEOUT = 60.0
"""Seconds that the VMM has to answer. It may be busy, starved or stopped for a while; a device that waits for
long meanwhile is named by those who watch its shard.
"""

Call = Callable[[Request], tuple[Reply, list[int]]]
"""Sends a request, waits for the reply and the descriptors that came with it."""


def call_over(sock: socket.socket, timeout: float = REPLY_TIMEOUT) -> Call:
    """A `Call` over a connected Unix SOCK_SEQPACKET socket that is used for nothing else.

    The call raises InterruptError when the VMM does not answer within `timeout` seconds, or is gone.
    """
    sock.settimeout(timeout)

    def call(request: Request) -> tuple[Reply, list[int]]:
        try:
            sock.send(encode(request))
            message, fds, _, _ = socket.recv_fds(sock, MAX_MESSAGE, 2, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            # A late reply would be taken for the next one's.
            sock.close()
            raise InterruptError(
                "request", f"no answer in {timeout} s", "see whether the VMM is alive"
            ) from None
        except OSError as error:
            raise InterruptError("request", f"the VMM is gone ({error})", "restart the machine") from error
        if not message:
            raise InterruptError("request", "the VMM closed the channel", "restart the machine")
        return decode_reply(message), fds

    return call


class ProxyBackend:
    """An `InterruptBackend` and `DoorbellBackend` that asks the VMM. Close it to close the shard's
    descriptors; the VMM frees its side.
    """

    def __init__(
        self,
        call: Call,
        raise_line: Callable[[int], bool] | None = None,
        set_level: Callable[[int, bool], bool] | None = None,
        told: Callable[[int, bool], None] | None = None,
        traced: Sequence[int] = (1,),
    ) -> None:
        """`raise_line(gsi)`: see `Irqfd.with_access`; asked for the controllers' lines alone, not for
        messages. `set_level(bit, high)`: see `Irqfd.set_level`; of a line by its `wires.line_bit`.
        `told(gsi, high)`, `traced`: see `Irqfd.told`.
        """
        self._told, self._traced = told, traced
        self._set_level = set_level
        self._high: dict[int, set[int]] = {}
        self._raise_line = raise_line
        self._call = call
        self._irqfds: dict[int, Irqfd] = {}
        self._doorbells: dict[int, int] = {}
        self._page: RaisePage | None = None

    def allocate(self, gsi: int | None, *, level: bool = False, followed: bool = False) -> Irqfd:
        """See `InterruptBackend.allocate`."""
        reply, fds = self._ask(Allocate(gsi, level, followed))
        resampled = level and len(fds) > 1
        if not isinstance(reply, Allocated) or len(fds) != 1 + resampled:
            _close_all(fds)
            raise InterruptError("request", f"the VMM answered {reply!r} with {len(fds)} descriptors")
        if reply.page:
            irqfd = self._raise_page(fds).irqfd(reply.handle, reply.gsi, fds[0], level=level)
            return self._allocated(irqfd)
        raise_line = self._raise_line
        with_access = partial(raise_line, reply.gsi) if raise_line is not None and gsi is not None else None
        follow = partial(self._follow, reply.handle, reply.gsi) if level and not resampled else None
        irqfd = Irqfd(reply.handle, reply.gsi, fds[0], fds[1] if resampled else None, with_access, follow)
        return self._allocated(irqfd)

    def _allocated(self, irqfd: Irqfd) -> Irqfd:
        if self._told is not None:
            irqfd = replace(irqfd, told=partial(self._told, irqfd.gsi), traced=self._traced)
        self._irqfds[irqfd.handle] = irqfd
        return irqfd

    def _raise_page(self, fds: list[int]) -> RaisePage:
        """The VMM has one raise page: the first descriptor of it is mapped."""
        if self._page is None:
            from shardio.interrupt.raising import RaisePage

            try:
                self._page = RaisePage(fds[0])
            except (OSError, ValueError) as error:
                _close_all(fds)
                hint = "raise the limit on memory (ulimit -v)"
                raise InterruptError("raise page", f"cannot be mapped: {error}", hint) from error
        return self._page

    def set_route(self, handle: int, message: MsiConfig) -> None:
        """See `InterruptBackend.set_route`. On return the route is in force."""
        self._ask(SetRoute(handle, message))

    def connect(self, handle: int) -> None:
        """See `InterruptBackend.connect`."""
        self._ask(Connect(handle))

    def disconnect(self, handle: int) -> None:
        """See `InterruptBackend.disconnect`."""
        self._ask(Disconnect(handle))

    def free(self, handle: int) -> None:
        """See `InterruptBackend.free`."""
        irqfd = self._irqfds.pop(handle, None)
        if irqfd is not None:
            _close_irqfd(irqfd)
        self._ask(Free(handle))

    def bind_doorbell(self, address: int, doorbell: Doorbell, *, pio: bool) -> BoundDoorbell:
        """See `DoorbellBackend.bind_doorbell`."""
        from shardio.interrupt.doorbell import BoundDoorbell

        reply, fds = self._ask(BindDoorbell(address, doorbell.length, doorbell.datamatch, pio))
        if not isinstance(reply, Bound) or len(fds) != 1:
            _close_all(fds)
            raise InterruptError("doorbell", f"the VMM answered {reply!r} with {len(fds)} descriptors")
        self._doorbells[reply.handle] = fds[0]
        return BoundDoorbell(reply.handle, fds[0])

    def unbind_doorbell(self, handle: int) -> None:
        """See `DoorbellBackend.unbind_doorbell`."""
        fd = self._doorbells.pop(handle, None)
        if fd is not None:
            os.close(fd)
        self._ask(UnbindDoorbell(handle))

    def close(self) -> None:
        """Close the descriptors of what was not freed; the VMM frees it when the channel closes."""
        for irqfd in self._irqfds.values():
            _close_irqfd(irqfd)
        self._irqfds.clear()
        _close_all(list(self._doorbells.values()))
        self._doorbells.clear()

    def _follow(self, handle: int, gsi: int, high: bool) -> bool:
        """A line is high while one of its devices holds it so."""
        bit = line_bit(gsi)
        if bit is None or self._set_level is None:
            return False
        holders = self._high.setdefault(bit, set())
        was = bool(holders)
        (holders.add if high else holders.discard)(handle)
        if bool(holders) is was:
            return True
        # An output to the processor concerns a vCPU that may not be the one whose access this is.
        return self._set_level(bit, high) and not (high and gsi == EXTINT)

    def _ask(self, request: Request) -> tuple[Reply, list[int]]:
        reply, fds = self._call(request)
        if isinstance(reply, Refused):
            _close_all(fds)
            raise InterruptError(reply.line, reply.reason, reply.hint)
        return reply, fds


def _close_irqfd(irqfd: Irqfd) -> None:
    _close_all([irqfd.fd] if irqfd.resample_fd is None else [irqfd.fd, irqfd.resample_fd])


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
