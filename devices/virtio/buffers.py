"""Working across the buffers of a chain as if they were one run of bytes, without copying guest RAM
needlessly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def total(buffers: Iterable[memoryview]) -> int:
    """Bytes in all of them."""
    return sum(map(len, buffers))


def cut(buffers: Sequence[memoryview], start: int, length: int) -> list[memoryview]:
    """Views of bytes `start` to `start + length` of the run; fewer when the run ends before.

    >>> run = [memoryview(b"abc"), memoryview(b"defg")]
    >>> [bytes(part) for part in cut(run, 2, 3)]
    [b'c', b'de']
    """
    parts = []
    for buffer in buffers:
        if length <= 0:
            break
        if start >= len(buffer):
            start -= len(buffer)
            continue
        part = buffer[start : start + length]
        parts.append(part)
        length -= len(part)
        start = 0
    return parts


def copy(buffers: Sequence[memoryview], start: int, length: int) -> bytes:
    """A private copy of bytes `start` to `start + length`: what is interpreted is copied first, once."""
    return b"".join(cut(buffers, start, length))


def scatter(buffers: Iterable[memoryview], data: bytes | memoryview) -> int:
    """Fill the run from its start with `data`. Returns how much of it fitted.

    >>> target = bytearray(3), bytearray(3)
    >>> scatter(map(memoryview, target), b"abcd")
    4
    >>> target
    (bytearray(b'abc'), bytearray(b'd\\x00\\x00'))
    """
    done = 0
    for buffer in buffers:
        part = data[done : done + len(buffer)]
        if not part:
            break
        buffer[: len(part)] = part
        done += len(part)
    return done


def pieces(buffers: Iterable[memoryview], size: int) -> Iterator[memoryview]:
    """The run in views of at most `size` bytes.

    >>> [bytes(piece) for piece in pieces([memoryview(b"abcde"), memoryview(b"f")], 2)]
    [b'ab', b'cd', b'e', b'f']
    """
    for buffer in buffers:
        for start in range(0, len(buffer), size):
            yield buffer[start : start + size]
