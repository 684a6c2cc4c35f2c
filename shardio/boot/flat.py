"""Flat images: what a guest begins as."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from shardio.errors import ImageError, MemoryAccessError
from shardio.memory import GuestMemory


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image in guest memory: its `name`, and the addresses that it takes."""

    name: str
    where: range

    def refuse_overlap(self, what: str, taken: range) -> None:
        """Raises `ImageError` where `what`, which is written at `taken`, would overwrite a part of it."""
        if self.where.start < taken.stop and taken.start < self.where.stop:
            raise ImageError(
                self.name,
                f"at {self.where.start:#x} to {self.where.stop - 1:#x} lies over {what} "
                f"at {taken.start:#x} to {taken.stop - 1:#x}",
                "load it elsewhere",
            )


def load_flat(memory: GuestMemory, image: str | os.PathLike[str] | bytes, at: int) -> Loaded:
    """Write an image (a path or its bytes) at guest address `at`. Raises `ImageError`, with nothing written.
    """
    name, data = _contents(image)
    try:
        memory.write(at, data)
    except MemoryAccessError:
        raise ImageError(
            name,
            f"of {len(data)} bytes does not fit at {at:#x}",
            f"give the machine more memory (it has {memory.size} bytes) or load it lower",
        ) from None
    return Loaded(name, range(at, at + len(data)))


def _contents(image: str | os.PathLike[str] | bytes) -> tuple[str, bytes]:
    if isinstance(image, bytes | bytearray | memoryview):
        name, data = "image", bytes(image)
    else:
        name = os.fspath(image)
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            few = error.errno == errno.EMFILE
            hint = "raise the limit on open files (ulimit -n)" if few else "name a readable file"
            raise ImageError(name, f"cannot be read: {error.strerror}", hint) from None
    if not data:
        raise ImageError(name, "is empty", "assemble or copy it first")
    return name, data
