"""The host's side of a network device: a packet socket between two guests, or a tap interface.

A link moves whole Ethernet frames and never blocks. What it cannot send it says by an OSError, and its device
drops the frame, as a cable would. `SocketLink` is one end of a cable: a socket pair, or
two Unix datagram addresses that each side binds one of; the far end may come, go and come back.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from shardio.devices.virtio.errors import BackendError

FRAME_LIMIT: Final = 65535 + 18
"""Bytes of the longest frame that is carried."""

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
# A name of a network interface as the kernel takes it (IFNAMSIZ - 1 bytes, no "/", ":", "%" or space).
_INTERFACE: Final = re.compile(r"[!-$&-.0-9;-~]{1,15}")
_LONGEST_ADDRESS: Final = 107
"""Bytes of a Unix socket address (sun_path, less its closing zero)."""


class Link(Protocol):
    """Where frames go."""

    @property
    def closed(self) -> bool:
        """Whether the far end is gone for good: nothing will be received any more."""

    def fileno(self) -> int:
        """Readable when a frame came."""

    def send(self, frame: Sequence[memoryview]) -> bool:
        """Send one frame. False: not now, try again later. Raises OSError when the frame cannot arrive."""

    def receive(self) -> bytes | None:
        """The next frame, None when there is none. Never raises OSError: an end that is gone is `closed`."""

    def close(self) -> None:
        """Let go of the host's side."""


class SocketLink:
    """A cable made of a Unix socket that keeps packet boundaries."""

    def __init__(self, sock: socket.socket, peer: str = "", local: str = "") -> None:
        """`sock`: connected (one of a socket pair), or a datagram socket that sends to the address `peer`;
        `local`: a path that `close` unlinks. The socket is closed by `close`.
        """
        sock.setblocking(False)
        self._socket = sock
        # Never connected to a named peer: a socket accepts datagrams only from the one it is connected to,
        # and a peer that restarts is another one.
        self._peer = _address(peer) if peer else None
        self._local = local
        self.closed = False

    @classmethod
    def between(cls, local: str, peer: str) -> SocketLink:
        """Bind `local` and send to `peer`, both Unix socket paths, "@name" for the abstract namespace.

        Raises BackendError when `local` cannot be bound, or for an address that is too long; `peer` may
        appear later.
        """
        for address in (local, peer):
            if "\0" in address:
                raise BackendError(repr(address), "has a zero character", 'write "@name", or a path')
            if len(os.fsencode(address)) > _LONGEST_ADDRESS:
                hint = f"use at most {_LONGEST_ADDRESS} bytes"
                raise BackendError(address, "is too long for a socket address", hint)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            _unlink_stale(local)
            sock.bind(_address(local))
        except OSError as error:
            sock.close()
            raise BackendError(local, str(error.strerror or error), "choose another local address") from error
        return cls(sock, peer, "" if local.startswith("@") else local)

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def send(self, frame: Sequence[memoryview]) -> bool:
        """See `Link.send`."""
        try:
            self._socket.sendmsg(frame, (), socket.MSG_NOSIGNAL, self._peer)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> bytes | None:
        """See `Link.receive`."""
        try:
            frame = self._socket.recv(FRAME_LIMIT)
        except (BlockingIOError, ConnectionError):
            return None
        except OSError:
            self.closed = True
            return None
        # An empty packet is no frame; on a connection-oriented socket it is the end.
        if not frame and self._socket.type == socket.SOCK_SEQPACKET:
            self.closed = True
        return frame or None

    def close(self) -> None:
        """Close the socket and unlink its path."""
        self._socket.close()
        if self._local:
            with suppress(FileNotFoundError):
                os.unlink(self._local)
            self._local = ""


class TapLink:
    """A tap interface of the host (needs CAP_NET_ADMIN, or an interface that this user owns)."""

    def __init__(self, name: str) -> None:
        """Raises BackendError with the hint for a name that is none, or when the interface cannot be
        opened.
        """
        if not _INTERFACE.fullmatch(name) or name in (".", ".."):
            hint = "use 1 to 15 printable ASCII characters without '/', ':', '%' and spaces"
            raise BackendError(f"tap {name!r}", "is no name of an interface", hint)
        self.closed = False
        try:
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise BackendError(
                "/dev/net/tun", str(error.strerror), "load the tun module (modprobe tun)"
            ) from error
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        try:
            fcntl.ioctl(self._fd, _TUNSETIFF, request)
        except OSError as error:
            os.close(self._fd)
            hint = f"make it as root: ip tuntap add {name} mode tap user $USER"
            raise BackendError(f"tap {name}", str(error.strerror), hint) from error

    def fileno(self) -> int:
        """The tap's descriptor."""
        return self._fd

    def send(self, frame: Sequence[memoryview]) -> bool:
        """See `Link.send`."""
        try:
            os.writev(self._fd, frame)
        except BlockingIOError:
            return False
        return True

    def receive(self) -> bytes | None:
        """See `Link.receive`."""
        try:
            return os.read(self._fd, FRAME_LIMIT) or None
        except OSError as error:
            # EIO: the interface is down, and may come up. Anything else, EBADFD above all: it was deleted.
            self.closed = error.errno not in (errno.EAGAIN, errno.EIO)
            return None

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _address(name: str) -> str:
    return "\0" + name[1:] if name.startswith("@") else name


def _unlink_stale(path: str) -> None:
    """A socket that a killed predecessor left is in the way; anything else is not ours to remove."""
    with suppress(FileNotFoundError):
        if not path.startswith("@") and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
