"""What the two processes of a pair say to each other between blocks: MessagePack over a Unix
SOCK_SEQPACKET socket.
"""

from __future__ import annotations

import socket

import msgspec

MAX_MESSAGE = 64 * 1024


class Handlers(msgspec.Struct, frozen=True, array_like=True):
    """`count` ranges of `size` bytes from `base` on, `stride` apart, with indices from `first` on, each
    answered by a `device` of its own (a name of `devices.make`).
    """

    first: int
    space: int
    base: int
    size: int
    device: str
    count: int = 1
    stride: int = 0
    posted: bool = False


class Service(msgspec.Struct, frozen=True):
    """One shard of one fabric, served by the far process: descriptors, and who answers."""

    fabric: int
    shard: int
    doorbell: int
    handlers: list[Handlers]


class Setup(msgspec.Struct, frozen=True, tag="setup"):
    """The first message. `line`: descriptor of the page with the floor's cache line; `cpu`: where to
    run, None anywhere.
    """

    line: int
    cpu: int | None
    services: list[Service]


class Echo(msgspec.Struct, frozen=True, tag="echo"):
    """Answer `n` pings of the floor. Not acknowledged: the pings are."""

    n: int


class Local(msgspec.Struct, frozen=True, tag="local"):
    """Call the handler of range `index` of service `service` `n` times from a Python loop; answered by
    `Took`.
    """

    service: int
    index: int
    write: bool
    n: int


class Pin(msgspec.Struct, frozen=True, tag="pin"):
    """Run on this CPU from now on; answered by `Took(0)`."""

    cpu: int


class Took(msgspec.Struct, frozen=True, tag="took"):
    """Nanoseconds that it took, all in all."""

    ns: int


Message = Setup | Echo | Local | Pin | Took
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def send(to: socket.socket, message: Message) -> None:
    """Send one message."""
    to.sendall(_encoder.encode(message))


def receive(source: socket.socket) -> Message | None:
    """The next message; None when the other end is gone. Raises `TimeoutError` as the socket says."""
    packet = source.recv(MAX_MESSAGE)
    return _decoder.decode(packet) if packet else None
