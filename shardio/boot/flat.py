"""Flat images: bytes at an address."""

from __future__ import annotations

from collections.abc import Iterable

from shardio.boot.image import Source, read_image
from shardio.boot.plan import Loaded, Plan
from shardio.memory import GuestMemory


def load_flat(memory: GuestMemory, image: Source, at: int, taken: Iterable[Loaded] = ()) -> Loaded:
    """Write an image (a path or its bytes) at guest address `at`. Raises `ImageError`, with nothing written,
    where it does not fit into RAM or lies over what is `taken`.
    """
    read, plan = read_image(image), Plan(memory, taken)
    plan.put(read.name, at, read.data)
    (loaded,) = plan.commit()
    return loaded
