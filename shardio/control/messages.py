"""What goes over a control socket: a request and its reply, each MessagePack behind its length in bytes.

The socket is an abstract one (unix(7)): its name needs no folder, is gone with its process, and has no
permission bits, so both ends look at each other's credentials instead. The name holds the machine's, so that
`/proc/net/unix` lists the machines of a host.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from typing import Any, Literal

import msgspec

from shardio.dispatcher.statistics import ExitInfo, MachineStatistics
from shardio.errors import MachineError
from shardio.vcpu.interface import ExitCounts
from shardio.vcpu.report import VcpuReport

VERSION = 1
"""Of the messages; both sides must have the same."""
HEADER = struct.Struct("<I")
"""The length of the message behind it, in bytes."""
LONGEST_REQUEST = 4096
LONGEST_REPLY = 64 << 20
NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")
PREFIX = "shardio"
_UCRED = struct.Struct("=iII")
"""`struct ucred` of unix(7): pid, uid, gid."""

Command = Literal["status", "pause", "resume", "reload", "stop", "screen", "examine"]


class Request(msgspec.Struct, frozen=True):
    """What a client wants. `vcpu`: which one is to be examined; `devices`: whose shards are to be reloaded,
    none for all.
    """

    command: Command
    version: int = VERSION
    vcpu: int = 0
    devices: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, tag="status"):
    """A machine at one time: `state` is "new", "starting", "running", "paused", "stopped" or "closed",
    `time_ns` its host's monotonic clock, `ended` how it came to its end.
    """

    name: str
    pid: int
    state: str
    time_ns: int
    ended: ExitInfo | None
    statistics: MachineStatistics


class Screen(msgspec.Struct, frozen=True, tag="screen"):
    """The text on the machine's screen."""

    text: str


class Examined(msgspec.Struct, frozen=True, tag="examined"):
    """Where a vCPU is."""

    report: VcpuReport


class Done(msgspec.Struct, frozen=True, tag="done"):
    """It has been done; `stop`: it is under way."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot be done: `message` says why and `hint` what to do, as in a `ShardioError`."""

    message: str
    hint: str


Reply = Status | Screen | Examined | Done | Refused


class _Version(msgspec.Struct, frozen=True):
    version: int


def _to_plain(value: object) -> object:
    if isinstance(value, ExitCounts):
        return dict(value)
    raise NotImplementedError(type(value))


def _from_plain(kind: type, value: Any) -> object:
    if kind is ExitCounts:
        return ExitCounts(msgspec.convert(value, dict[str, int]))
    raise NotImplementedError(kind)


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_versions = msgspec.msgpack.Decoder(_Version)
_requests = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply, dec_hook=_from_plain)


def packed(message: Request | Reply) -> bytes:
    """A message as it goes over the socket.

    >>> unpacked_request(packed(Request("pause"))[HEADER.size:])
    Request(command='pause', version=1, vcpu=0, devices=())
    """
    body = _encoder.encode(message)
    return HEADER.pack(len(body)) + body


def unpacked_request(body: bytes) -> Request:
    """Raises `MachineError` for a message of another version, or one that makes no sense."""
    try:
        version = _versions.decode(body).version
        if version == VERSION:
            return _requests.decode(body)
    except msgspec.DecodeError as error:
        raise MachineError(f"a malformed request: {error}", "use shardio's own client") from None
    raise MachineError(
        f"a request of version {version}, and the machine's is {VERSION}",
        "use the same release of shardio on both sides",
    )


def unpacked_reply(body: bytes) -> Reply:
    """Raises `MachineError` for a message that makes no sense, an other release's say."""
    try:
        return _replies.decode(body)
    except msgspec.DecodeError as error:
        raise MachineError(
            f"the machine's answer makes no sense: {error}", "use the same release of shardio on both sides"
        ) from None


def json(value: msgspec.Struct) -> str:
    """A value of these, or of anything made of statistics, as JSON text."""
    return msgspec.json.encode(value, enc_hook=_to_plain).decode()


def address(pid: int, name: str) -> str:
    """The socket's name. Raises `MachineError` for a machine's name that it cannot hold.

    >>> address(17, "router")
    '\\x00shardio/17/router'
    """
    if not NAME.fullmatch(name):
        raise MachineError(f"a machine cannot be called {name!r}", "use 1 to 32 of A-Z a-z 0-9 . _ -")
    return f"\0{PREFIX}/{pid}/{name}"


def peer(connection: socket.socket) -> tuple[int, int]:
    """The pid and uid at the other end, as they were when it connected, or began to listen."""
    pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


def trusted(uid: int) -> bool:
    """Whether this process talks to `uid`: its own user, or root."""
    return uid in (0, os.geteuid())
