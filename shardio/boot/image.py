"""`Image`: the bytes of a file that is to be loaded, read so that each fault tells what was expected and what
was found, and at which offset.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from shardio.errors import ImageError

Source = str | os.PathLike[str] | bytes
"""A path, or the bytes themselves."""


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of an image, and the `name` that messages give it."""

    name: str
    data: bytes

    def part(self, offset: int, length: int, what: str) -> bytes:
        """`length` bytes at `offset`. Raises `ImageError` where the image ends before."""
        if offset + length > len(self.data):
            raise self.refused(
                what, offset, f"{length:#x} bytes", f"the end at {len(self.data):#x}", "is the file cut?"
            )
        return self.data[offset : offset + length]

    def number(self, offset: int, size: int, what: str) -> int:
        """The little-endian number of `size` bytes at `offset`. Raises `ImageError` as `part` does."""
        return int.from_bytes(self.part(offset, size, what), "little")

    def refused(self, what: str, offset: int, expected: str, found: str, hint: str = "") -> ImageError:
        """The error for `what` at `offset`, which is not as `expected`."""
        reason = f"{what} at offset {offset:#x}: expected {expected}, found {found}"
        return ImageError(self.name, reason, hint)


def read_image(source: Source) -> Image:
    """The image at a path, or of the bytes given. Raises `ImageError` for an unreadable or an empty one."""
    if isinstance(source, bytes | bytearray | memoryview):
        name, data = "image", bytes(source)
    else:
        name = os.fspath(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            few = error.errno == errno.EMFILE
            hint = "raise the limit on open files (ulimit -n)" if few else "name a readable file"
            raise ImageError(name, f"cannot be read: {error.strerror}", hint) from None
    if not data:
        raise ImageError(name, "is empty", "assemble or copy it first")
    return Image(name, data)
