"""What a recording's file consists of.

The file begins with the 16 bytes of `MAGIC`, the last of which are the format's version. Then come frames: a
length (4 bytes, little-endian) and so many bytes of MessagePack, one of the Structs below as an array whose
first element is its name. The last frame is `End`. Several processes append to the file, each frame by one
write, so that frames of different devices may come in any order, but those of one device come in theirs.

A device of the recording is made (`Made`) as often as its shard was: with its shard's death, or when it was
removed and added again, a new life of it begins.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from shardio.errors import RecordingError

VERSION = 1
MAGIC = b"shardio record\x00" + bytes([VERSION])
CUT_OFF = "let the machine stop before you use it"
MAX_FRAME = 64 << 20
"""Bytes of the longest frame."""


class What(IntEnum):
    """What an `Event` tells."""

    READ = 0
    WRITE = 1
    DMA = 2
    """The device has read guest memory, by `read` or `view`."""
    DOORBELL = 3


class Event(msgspec.Struct, frozen=True, array_like=True):
    """What a device has met. An access: `space` 0 (ports) or 1 (memory), `address`, `width` in bytes, the
    value written or answered, and whether its handler `failed`. Guest memory read: its address, and `data`. A
    doorbell: its index, as `value`.
    """

    what: Annotated[int, Meta(ge=0, le=3)]
    space: Annotated[int, Meta(ge=0, le=1)] = 0
    address: Annotated[int, Meta(ge=0)] = 0
    width: Annotated[int, Meta(ge=0, le=MAX_FRAME)] = 0
    value: Annotated[int, Meta(ge=0)] = 0
    failed: bool = False
    data: bytes = b""

    @property
    def sound(self) -> bool:
        """Whether a processor can have made it."""
        if self.what in (What.READ, What.WRITE):
            return self.width in (1, 2, 4, 8) and self.value >> 8 * self.width == 0
        return self.what != What.DMA or self.width == len(self.data)


class Span(msgspec.Struct, frozen=True, array_like=True):
    """A range: `space` 0 (ports) or 1 (memory), its base, and its bytes."""

    space: Annotated[int, Meta(ge=0, le=1)]
    base: Annotated[int, Meta(ge=0)]
    size: Annotated[int, Meta(ge=1)]


class Made(msgspec.Struct, frozen=True, array_like=True, tag="made"):
    """A device's life begins: its name, its class ("module:Class", `kind`), those of its `options` that can
    be told, its ranges, the `state` that a predecessor left it (`persistent`), and whether it does DMA that
    is recorded.
    """

    device: str
    kind: str
    options: dict[str, Any]
    spans: list[Span]
    state: bytes | None = None
    dma: bool = False


class Moved(msgspec.Struct, frozen=True, array_like=True, tag="moved"):
    """A device answers at these ranges from now on."""

    device: str
    spans: list[Span]


class Events(msgspec.Struct, frozen=True, array_like=True, tag="events"):
    """Events of one device, the first of which is number `first` of its life."""

    device: str
    first: int
    events: list[Event]


class End(msgspec.Struct, frozen=True, array_like=True, tag="end"):
    """The machine has stopped: the recording is whole."""


Frame = Made | Moved | Events | End
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def append(fd: int, frame: Frame) -> None:
    """Append a frame. Raises OSError, and then, maybe, the file ends within a frame."""
    data = _encode(frame)
    data = len(data).to_bytes(4, "little") + data
    while data:
        data = data[os.write(fd, data) :]


def create(path: str | os.PathLike[str]) -> int:
    """The descriptor of a new file, to be appended to. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        os.write(fd, MAGIC)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Life(NamedTuple):
    """One life of a device: how it was made, and what it has met since, moves among it."""

    made: Made
    events: list[Event | Moved]

    @property
    def accesses(self) -> int:
        """How many accesses it has answered."""
        made = (event for event in self.events if isinstance(event, Event))
        return sum(event.what in (What.READ, What.WRITE) for event in made)


class Recording(NamedTuple):
    """A file's contents: the lives of each device, by its name."""

    path: str
    devices: dict[str, list[Life]]

    def lives(self, device: str) -> Sequence[Life]:
        """Those of one device. Raises `RecordingError` where it is not in the recording."""
        if device not in self.devices:
            known = ", ".join(self.devices) or "none"
            raise RecordingError(self.path, f"has no device {device!r}", f"name one of these: {known}")
        return self.devices[device]


def load(path: str | os.PathLike[str]) -> Recording:
    """Read a recording.

    Raises `RecordingError` for a file that cannot be read, is none, is of another version, damaged, or cut
    off.
    """
    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RecordingError(name, f"cannot be read: {error.strerror}", "correct the path") from None
    if data[: len(MAGIC) - 1] != MAGIC[:-1]:
        raise RecordingError(name, "is no recording", "name a file that `shardio record` has written")
    if data[: len(MAGIC)] != MAGIC:
        found = data[len(MAGIC) - 1] if len(data) >= len(MAGIC) else "none"
        raise RecordingError(
            name, f"is of version {found}, and this is {VERSION}", "record it again, or use its shardio"
        )
    recording = Recording(name, {})
    counts: dict[str, int] = {}
    position, ended = len(MAGIC), False
    while position < len(data) and not ended:
        frame, position = _frame(name, data, position)
        ended = isinstance(frame, End)
        _take(recording, counts, frame, position)
    if not ended:
        raise RecordingError(name, "is cut off: it has no end", CUT_OFF)
    if position != len(data):
        raise RecordingError(name, f"goes on behind its end, at byte {position}", "record it again")
    return recording


def _frame(name: str, data: bytes, position: int) -> tuple[Frame, int]:
    begin, length = position + 4, int.from_bytes(data[position : position + 4], "little")
    if length > MAX_FRAME:
        raise RecordingError(name, f"is damaged at byte {position}", "record it again")
    if begin + length > len(data):
        raise RecordingError(name, f"is cut off at byte {len(data)}", CUT_OFF)
    try:
        frame: Frame = _decode(data[begin : begin + length])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordingError(name, f"is damaged at byte {position}: {error}", "record it again") from None
    return frame, begin + length


def _take(recording: Recording, counts: dict[str, int], frame: Frame, position: int) -> None:
    """`counts`: how many events the last life of each device has by now."""
    match frame:
        case Made():
            counts[frame.device] = 0
            recording.devices.setdefault(frame.device, []).append(Life(frame, []))
        case Moved() | Events():
            lives = recording.devices.get(frame.device)
            if not lives:
                what = f"tells of {frame.device!r} before it was made, at byte {position}"
                raise RecordingError(recording.path, what, "record it again")
            if isinstance(frame, Moved):
                lives[-1].events.append(frame)
                return
            if frame.first != counts[frame.device]:
                what = f"lacks events {counts[frame.device]} to {frame.first - 1} of {frame.device!r}"
                raise RecordingError(recording.path, what, "record it again, with room on the disk")
            if not all(event.sound for event in frame.events):
                what = f"tells of what no processor does, before byte {position}"
                raise RecordingError(recording.path, what, "record it again")
            counts[frame.device] += len(frame.events)
            lives[-1].events.extend(frame.events)
