"""Finds the machines that run on this host and asks them: what `shardio ls`, `top`, `stop` and so on do.

The list is `/proc/net/unix`, where anybody can put any name: so a machine is believed only from a process of
the same user or of root, and its pid is the kernel's word and not the name's.
"""

from __future__ import annotations

import contextlib
import errno
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from shardio.control import messages
from shardio.control.messages import (
    HEADER,
    LONGEST_REPLY,
    NAME,
    PREFIX,
    Command,
    Examined,
    Refused,
    Reply,
    Screen,
    Status,
)
from shardio.errors import MachineError
from shardio.spelling import nearest
from shardio.vcpu.report import VcpuReport

R = TypeVar("R", bound=msgspec.Struct)
PATIENCE_S = 15.0
"""How long an answer may take: a pause waits for accesses in flight, and a stop for the shards."""
RELOAD_S = 60.0
"""The same of a reload, which imports the devices' modules and makes the devices of each shard."""
LOOK_S = 0.05
CHUNK = 1 << 16
LISTED = re.compile(rf"@{PREFIX}/[0-9]+/{NAME.pattern}")
"""A machine's socket as /proc/net/unix shows it."""


class Entry(msgspec.Struct, frozen=True):
    """A machine that runs: its process and its name, and its socket's `address`."""

    pid: int
    name: str
    address: str


def machines() -> tuple[Entry, ...]:
    """The machines of this user (all of them, for root) in this network namespace, by pid and name."""
    return tuple(sorted(_believed(), key=lambda entry: (entry.pid, entry.name)))


def find(which: str | None) -> Entry:
    """The machine of this name or pid; without one, the only one that runs.

    Raises `MachineError` where there is none, or where several are meant.
    """
    found = machines()
    meant = [entry for entry in found if which in (None, entry.name, str(entry.pid))]
    if len(meant) == 1:
        return meant[0]
    known = ", ".join(f"{entry.name} (pid {entry.pid})" for entry in meant or found)
    if meant:
        raise MachineError("several machines are meant", f"name one of them by its pid or name: {known}")
    if not found:
        raise MachineError(
            "no machine of yours runs here" if which is None else f"no machine {which} runs here",
            "start one by shardio run, or call Machine.control() in the program that has it",
        )
    hint = nearest(str(which), [entry.name for entry in found])
    raise MachineError(f"no machine {which} runs here", hint or f"there are {known}")


def ask(entry: Entry, command: Command, patience_s: float = PATIENCE_S) -> Status | None:
    """A machine's answer: its status for "status", else None once it is done.

    Raises `MachineError` for what it refuses, and where it has gone, is not ours, or does not answer within
    `patience_s` seconds.
    """
    reply = _asked(entry, messages.Request(command), patience_s)
    return reply if isinstance(reply, Status) else None


def status(entry: Entry, patience_s: float = PATIENCE_S) -> Status:
    """A machine's status; raises what `ask` does."""
    return _of_kind(Status, _asked(entry, messages.Request("status"), patience_s))


def reload(entry: Entry, devices: Sequence[str] = (), patience_s: float = RELOAD_S) -> None:
    """Have the shards of these devices, of all without any, run what their files say now; raises what `ask`
    does.
    """
    _asked(entry, messages.Request("reload", devices=tuple(devices)), patience_s)


def screen(entry: Entry, patience_s: float = PATIENCE_S) -> str:
    """The text on a machine's screen, each character printable or a line's end; raises what `ask` does."""
    text = _of_kind(Screen, _asked(entry, messages.Request("screen"), patience_s)).text
    return "\n".join(
        "".join(each if each.isprintable() else "?" for each in line) for line in text.split("\n")
    )


def examine(entry: Entry, vcpu: int, patience_s: float = PATIENCE_S) -> VcpuReport:
    """Where a vCPU of a paused machine is; raises what `ask` does."""
    return _of_kind(Examined, _asked(entry, messages.Request("examine", vcpu=vcpu), patience_s)).report


def _asked(entry: Entry, request: messages.Request, patience_s: float) -> Reply:
    reply = _exchange(entry, messages.packed(request), patience_s)
    if isinstance(reply, Refused):
        raise MachineError(f"machine {entry.name} (pid {entry.pid}): {reply.message}", reply.hint)
    return reply


def _of_kind(kind: type[R], reply: Reply) -> R:
    if not isinstance(reply, kind):
        raise MachineError("the machine has answered something else", "use the same release of shardio")
    return reply


def stop(entry: Entry, patience_s: float = PATIENCE_S) -> None:
    """Stop a machine and wait until it has stopped. Raises what `ask` does."""
    deadline = time.monotonic() + patience_s
    ask(entry, "stop", patience_s)
    while _lives(entry, deadline):
        if time.monotonic() > deadline:
            raise MachineError(
                f"machine {entry.name} (pid {entry.pid}) has not stopped after {patience_s:g} s",
                f"end its process: kill {entry.pid}",
            )
        time.sleep(LOOK_S)


def _lives(entry: Entry, deadline: float) -> bool:
    if entry not in machines():
        return False
    try:
        return status(entry, max(LOOK_S, deadline - time.monotonic())).state not in ("stopped", "closed")
    except MachineError:  # it is on its way: the socket goes last
        return entry in machines()


def _believed() -> Iterator[Entry]:
    for address in sorted(set(_addresses())):
        _, _, name = address[1:].split("/")
        with contextlib.suppress(OSError, MachineError), _connected(address, 1.0) as connection:
            yield Entry(messages.peer(connection)[0], name, address)


def _addresses() -> Iterator[str]:
    """Of the sockets that listen under a name of ours; anybody may have made them."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        for line in file:
            address = line.split(maxsplit=7)[-1].rstrip("\n")
            if LISTED.fullmatch(address):
                yield "\0" + address[1:]


@contextlib.contextmanager
def _connected(address: str, patience_s: float) -> Iterator[socket.socket]:
    """Raises `OSError` where nobody listens, `MachineError` where it is somebody else's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        # A socket that does not block is refused, by EAGAIN, where the queue of clients is full.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(patience_s))
        connection.connect(address)
        connection.settimeout(patience_s)
        pid, uid = messages.peer(connection)
        if not messages.trusted(uid):
            raise MachineError(f"process {pid} is another user's (uid {uid})", "ask as that user, or as root")
        yield connection


def _exchange(entry: Entry, request: bytes, patience_s: float) -> Reply:
    deadline = time.monotonic() + patience_s
    who = f"machine {entry.name} (pid {entry.pid})"
    try:
        with _connected(entry.address, patience_s) as connection:
            connection.sendall(request)

            def left() -> None:
                connection.settimeout(max(0.001, deadline - time.monotonic()))

            (length,) = HEADER.unpack(_received(connection, HEADER.size, left))
            if length > LONGEST_REPLY:
                raise MachineError(f"{who} answers with {length} bytes", "use the same release of shardio")
            return messages.unpacked_reply(_received(connection, length, left))
    except (TimeoutError, BlockingIOError):
        hint = f"see whether its process is stopped: ps {entry.pid}"
        raise MachineError(f"{who} has not answered within {patience_s:g} s", hint) from None
    except OSError as error:
        if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE):
            raise MachineError(f"{who} has gone", "see shardio ls") from None
        raise


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))


def _received(connection: socket.socket, length: int, before: Callable[[], None]) -> bytes:
    data = bytearray()
    while len(data) < length:
        before()
        more = connection.recv(min(CHUNK, length - len(data)))
        if not more:
            raise ConnectionResetError(errno.ECONNRESET, "it has closed the connection")
        data += more
    return bytes(data)
