"""What the VMM and a shard say to each other: MessagePack over a Unix SOCK_SEQPACKET socket, descriptors by
SCM_RIGHTS.

A message to a shard that is too long for the socket travels in a sealed memfd, the last descriptor beside
`LONG`, and so does the long result of a call: either may be a disk image. Seals and size are checked before
it is read, so that no peer makes the other wait, or read what changes.

Requests carry a serial number and are answered by `Done`. Pickles travel only from the VMM to a shard (they
carry the device factories and options that the VMM's program named), never back: a shard is not trusted. Its
messages are small and flat; a result stays packed until whoever waits for it unpacks it. No end of the VMM
ever waits for room in a socket, and closing what a shard has sent is left to another thread (`close_aside`).
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from shardio.errors import MachineError, ShardError
from shardio.shard.loading import Packed
from shardio.shard.objects import has_more_objects
from shardio.threads import close_aside

MAX_MESSAGE = 128 * 1024
"""Bytes of the longest message on the socket, either way; below Linux's default socket buffer."""
MAX_LONG = 256 << 20
"""Bytes of the longest message."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""A terminal, `timeout` or a service manager sends them to a whole group: the VMM acts on them, no shard."""
LONG = b"\xc1"
"""In a long message's place; MessagePack never begins so."""
MAX_TEXT = 8 * 1024
"""Characters of an error that a shard tells."""
MAX_OBJECTS = 256 * 1024
"""Values that one result may consist of: some 30 MiB of them in the VMM."""
STRUCT = 1
"""The code of the MessagePack extension in which a Struct travels: its class's name, a zero, its values."""
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
MAX_FDS = 250
"""Descriptors beside one message: Linux takes 253."""


class RangeSpec(msgspec.Struct, frozen=True, array_like=True):
    """A range that a device answers: `index` is its number in the address map. `coalesced`: its writes come
    through the hypervisor's ring.
    """

    index: int
    space: str
    base: int
    size: int
    posted: bool
    coalesced: bool = False


class DeviceSpec(msgspec.Struct, frozen=True):
    """A device to make, and its ranges. `kind`: its class and file, for messages. `dma`: it is given guest
    RAM. `irq`: the line (GSI) of its trigger, -1 for none; `level`: it is a level line. `followed`: of the
    kind that its controller sees rise and fall. `passed`: the VMM's numbers of the descriptors that it is
    given, which are in the message in this order. `persistent`: which of them is its memory (-1: it has
    none), for a state of `persistent_size` bytes and `persistent_area` more. `capabilities`, `message_modes`:
    what its class declares that it needs. `recorded`: which of `passed` is the file that its accesses are
    recorded into (-1: they are not). `profile`: the file into which its handlers are profiled, "" for none.
    """

    name: str
    device: Packed
    ranges: list[RangeSpec]
    kind: str = ""
    dma: bool = False
    irq: int = -1
    level: bool = False
    passed: list[int] = []
    followed: bool = False
    persistent: int = -1
    persistent_size: int = 0
    persistent_area: int = 0
    capabilities: tuple[str, ...] = ()
    message_modes: tuple[str, ...] = ()
    recorded: int = -1
    profile: str = ""


class ShareMemory(msgspec.Struct, frozen=True, tag="memory"):
    """Beside it: the descriptor of guest RAM, for devices that do DMA; `size` in bytes."""

    size: int


class ShareRing(msgspec.Struct, frozen=True, tag="ring"):
    """Beside it: the descriptor through which the hypervisor's coalesced ring is mapped, at `page`."""

    page: int


Share = ShareMemory | ShareRing


class Prepare(msgspec.Struct, frozen=True, tag="prepare"):
    """To an interpreter that is no shard yet, any number of times: how the VMM's program finds its modules,
    and factories (`Packed.factory`) whose modules it may be asked for. Beside the first one: the descriptor
    of the fabric. `Ready` says that it has done so.
    """

    sys_path: list[str]
    factories: list[bytes]


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """Which shard this process is from now on, and how the VMM's program finds its modules. Beside it: the
    descriptor of the shard's doorbell. `log_level`: what is logged has at least it.
    """

    shard: int
    name: str
    sys_path: list[str]
    log_level: int = 30


class AddDevices(msgspec.Struct, frozen=True, tag="add"):
    """Make these devices, all or none. `Done` says whether. `serve`: then begin to drain, unless an earlier
    message's devices could not be made. `capabilities`: what all devices of the shard declare, those of
    messages that follow too; what the first message does not name is dropped.
    """

    serial: int
    devices: list[DeviceSpec]
    serve: bool = False
    capabilities: tuple[str, ...] = ()


class RemoveDevice(msgspec.Struct, frozen=True, tag="remove"):
    """Drop the device of these range indices, once what was posted to it is served."""

    serial: int
    name: str
    ranges: list[int]


class MoveDevice(msgspec.Struct, frozen=True, tag="move"):
    """The device has these ranges from now on, by the same indices; nobody asks it meanwhile."""

    serial: int
    name: str
    ranges: list[RangeSpec]


class Call(msgspec.Struct, frozen=True, tag="call"):
    """Call a method of a device, in the shard's loop. `arguments`: a pickle of (args, kwargs)."""

    serial: int
    name: str
    method: str
    arguments: bytes


class Serve(msgspec.Struct, frozen=True, tag="serve"):
    """Every device is there: begin to drain."""


class Terminal(msgspec.Struct, frozen=True, tag="terminal"):
    """The answer to `AskTerminal`. Beside it: the terminal's descriptor, where it is `lent`."""

    lent: bool


class Quit(msgspec.Struct, frozen=True, tag="quit"):
    """Detach the devices and end."""


ToShard = (
    Prepare | Setup | ShareMemory | ShareRing | AddDevices | RemoveDevice | MoveDevice | Call | Serve
    | Terminal | Quit
)  # fmt: skip


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """A spare interpreter is warm: it has done what `Prepare` told. `failed`: what came of the first factory
    that could not be loaded, "" where all were.
    """

    failed: str = ""


class Returned(msgspec.Struct, frozen=True):
    """A result that is a Struct: what the shard calls its class, "module:name", and its MessagePack. Neither
    has been looked at.
    """

    name: str
    data: bytes


class Failure(msgspec.Struct, frozen=True):
    """Whose code raised an error: the device, its class and file, the step of its life, the traceback."""

    device: str
    kind: str
    step: str
    trace: str


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The answer to a request: an error's type and text, or a result of plain values (`pack_result`; empty
    for None). `beside`: the result is in a sealed memfd that comes with the message. `failure`: where a
    device's own code raised.
    """

    serial: int
    error: str | None = None
    hint: str = ""
    result: bytes = b""
    beside: bool = False
    failure: Failure | None = None


class ExitRequest(msgspec.Struct, frozen=True, tag="exit"):
    """A device asks to stop the machine with this exit status."""

    status: int


class ResetRequest(msgspec.Struct, frozen=True, tag="reset"):
    """A device asks to reset the machine."""


class HandlerFailed(msgspec.Struct, frozen=True, tag="failed"):
    """A handler raised: once per device, direction and place in the code."""

    device: str
    text: str


class AskTerminal(msgspec.Struct, frozen=True, tag="breakpoint"):
    """A device is at `breakpoint()`, and waits for the user's terminal. `where`: function, file and line."""

    where: str


class ReturnTerminal(msgspec.Struct, frozen=True, tag="continue"):
    """The terminal is not needed any more."""


FromShard = Ready | Done | ExitRequest | ResetRequest | HandlerFailed | AskTerminal | ReturnTerminal

_encode = msgspec.msgpack.Encoder().encode
_decode_to_shard = msgspec.msgpack.Decoder(ToShard).decode
_decode_from_shard = msgspec.msgpack.Decoder(FromShard).decode
_decode_result = msgspec.msgpack.Decoder().decode


def encode(message: ToShard | FromShard) -> bytes:
    """What `send_encoded` sends. Raises `MachineError` for more than `MAX_LONG` bytes."""
    data = _encode(message)
    _check_length(data)
    return data


def send_encoded(sock: socket.socket, data: bytes, fds: Sequence[int] = (), *, wait: bool = True) -> None:
    """Send one message with descriptors beside it (the sender keeps its own). Raises OSError when the peer is
    gone; `BlockingIOError` when there is no room and it should not `wait` for any.
    """
    with contextlib.ExitStack() as sent:
        if len(data) > MAX_MESSAGE:
            fd = in_memfd(data)
            sent.callback(os.close, fd)
            data, fds = LONG, (*fds, fd)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([data], ancillary, 0 if wait else socket.MSG_DONTWAIT)


def send(
    sock: socket.socket, message: ToShard | FromShard, fds: Sequence[int] = (), *, wait: bool = True
) -> None:
    """`encode` and `send_encoded`."""
    send_encoded(sock, encode(message), fds, wait=wait)


def tell(sock: socket.socket, message: FromShard) -> None:
    """`send` of a shard; nothing where the VMM is gone, which ends the shard too."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError), contextlib.ExitStack() as sent:
        fds: list[int] = []
        if isinstance(message, Done) and len(message.result) > MAX_MESSAGE // 2:
            fds.append(in_memfd(message.result))
            sent.callback(os.close, fds[0])
            message = Done(message.serial, beside=True)
        send(sock, message, fds)


def pack_result(result: Any) -> bytes:
    """A call's result for `Done`. Raises `TypeError`, `ValueError`, `OverflowError` for what is neither plain
    nor a Struct, `MachineError` for what is too long.
    """
    if isinstance(result, msgspec.Struct):
        kind = type(result)
        name = f"{kind.__module__}:{kind.__qualname__}".encode()
        result = msgspec.msgpack.Ext(STRUCT, name + b"\0" + _encode(result))
    packed = b"" if result is None else _encode(result)
    _check_length(packed)
    return packed


def unpack_result(packed: bytes, shard: str) -> Any:
    """The result in `Done`, in whatever thread waits for it. Raises `ShardError` for what is none."""
    try:
        if len(packed) > MAX_OBJECTS and has_more_objects(packed, MAX_OBJECTS):
            raise ValueError(f"more than {MAX_OBJECTS} values")
        result = _decode_result(packed) if packed else None
        if isinstance(result, msgspec.msgpack.Ext) and result.code == STRUCT:
            name, _, data = bytes(result.data).partition(b"\0")
            return Returned(name.decode(), data)
        return result
    except (ValueError, RecursionError, IndexError) as error:
        hint = "return plain values, and many of them as bytes"
        raise ShardError(shard, f"sent a result that cannot be read: {error}", hint) from None


def receive_in_shard(sock: socket.socket) -> tuple[ToShard | None, list[int]]:
    """The next message for a shard and its descriptors, which the caller owns; None when the VMM is gone."""
    data, fds = _receive(sock)
    return (_decode_to_shard(data) if data else None), fds


def receive_in_vmm(sock: socket.socket, shard: str, waits: Callable[[int], bool]) -> FromShard | None:
    """The next message of a shard; None when it is gone. `waits(serial)`: whether somebody waits for that
    answer. Raises `ShardError` for a message that makes no sense, or has descriptors that it should not have;
    `BlockingIOError` where there is none.
    """
    data, fds = _receive_raw(sock, socket.MSG_DONTWAIT)
    try:
        if not data:
            return None
        message: FromShard = _decode_from_shard(data)
        if not isinstance(message, Done) or not message.beside:
            if fds:
                raise ValueError("there are descriptors beside it")
            return message
        if not waits(message.serial):
            raise ValueError("nobody waits for this answer")
        result = _of_memfd(fds[0]) if len(fds) == 1 else None
        if result is None:
            raise ValueError("its result is not beside it")
        return msgspec.structs.replace(message, result=result)
    except (ValueError, RecursionError) as error:
        raise ShardError(
            shard, f"sent a message that makes no sense: {error}", "run one version of shardio"
        ) from None
    finally:
        close_aside(*fds)


def _receive_raw(sock: socket.socket, flags: int = 0) -> tuple[bytes, list[int]]:
    try:
        data, fds, _flags, _address = socket.recv_fds(
            sock, MAX_MESSAGE, MAX_FDS + 3, socket.MSG_CMSG_CLOEXEC | flags
        )
    except (ConnectionResetError, BrokenPipeError):
        return b"", []
    return data, list(fds)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    data, fds = _receive_raw(sock)
    if data == LONG and fds:
        fd = fds.pop()
        try:
            data = _of_memfd(fd) or data
        finally:
            os.close(fd)
    return data, fds


def _check_length(data: bytes) -> None:
    if len(data) > MAX_LONG:
        raise MachineError(
            f"{len(data)} bytes between a shard and the VMM are too many",
            f"give a device up to {MAX_LONG >> 20} MiB, or a file's name",
        )


def in_memfd(data: bytes) -> int:
    """The descriptor, the caller's, of a sealed memfd that holds `data`. Raises `OSError`."""
    fd = os.memfd_create("shardio-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _of_memfd(fd: int) -> bytes | None:
    """What a long message's descriptor holds; None where it cannot be one. Nothing but a memfd has seals, and
    nothing else is asked further: a file may be served by a process that does not answer.
    """
    try:
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS or os.fstat(fd).st_size > MAX_LONG:
            return None
        with open(fd, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()
    except OSError:  # no memfd at all
        return None
