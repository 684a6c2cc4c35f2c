"""What a shard and the VMM say to each other about interrupts and doorbells: one request, one reply, as
MessagePack.

Registering an irqfd needs the VMM's address space (KVM answers others EIO), so a shard asks. The
descriptors of an `Allocated` reply travel beside it by SCM_RIGHTS: the eventfd, then the resample fd of a
level interrupt, where the hypervisor needs one.
"""

from __future__ import annotations

import msgspec

from shardio.interrupt.config import MsiConfig


class Allocate(msgspec.Struct, frozen=True, tag="interrupt.allocate"):
    """`InterruptBackend.allocate`; answered by `Allocated` or `Refused`."""

    gsi: int | None
    level: bool = False
    followed: bool = False


class SetRoute(msgspec.Struct, frozen=True, tag="interrupt.set_route"):
    """`InterruptBackend.set_route`; answered by `Done` or `Refused`, as are all that follow."""

    handle: int
    message: MsiConfig


class Connect(msgspec.Struct, frozen=True, tag="interrupt.connect"):
    """`InterruptBackend.connect`."""

    handle: int


class Disconnect(msgspec.Struct, frozen=True, tag="interrupt.disconnect"):
    """`InterruptBackend.disconnect`."""

    handle: int


class Free(msgspec.Struct, frozen=True, tag="interrupt.free"):
    """`InterruptBackend.free`. The shard has its own duplicates of the descriptors and closes them itself."""

    handle: int


class BindDoorbell(msgspec.Struct, frozen=True, tag="doorbell.bind"):
    """`DoorbellBackend.bind_doorbell`; answered by `Bound` or `Refused`. `address` is the doorbell's own."""

    address: int
    length: int
    datamatch: int | None = None
    pio: bool = False


class UnbindDoorbell(msgspec.Struct, frozen=True, tag="doorbell.unbind"):
    """`DoorbellBackend.unbind_doorbell`; answered by `Done` or `Refused`."""

    handle: int


class Bound(msgspec.Struct, frozen=True, tag="doorbell.bound"):
    """The doorbell's handle; its eventfd comes beside the message."""

    handle: int


class Allocated(msgspec.Struct, frozen=True, tag="interrupt.allocated"):
    """The irqfd's handle and GSI; its descriptors come beside the message. `page`: the first one is of a
    raise page.
    """

    handle: int
    gsi: int
    page: bool = False


class Done(msgspec.Struct, frozen=True, tag="interrupt.done"):
    """It was done."""


class Refused(msgspec.Struct, frozen=True, tag="interrupt.refused"):
    """It was not: the values of the InterruptError that the shard raises."""

    line: str | int
    reason: str
    hint: str = ""


Request = Allocate | SetRoute | Connect | Disconnect | Free | BindDoorbell | UnbindDoorbell
Reply = Allocated | Bound | Done | Refused

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode
