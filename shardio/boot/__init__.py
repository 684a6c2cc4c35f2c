"""Loaders: what puts a guest into memory before it begins, and says how it begins (docs/reference/boot.md).

Read `kernel` first: it recognises an image. `image` reads it, `plan` finds room for it, `memory_map` is what
the guest is told of memory; the other files are a protocol each. `contents` is all that one machine holds.
"""

from shardio.boot.contents import Contents
from shardio.boot.flat import load_flat
from shardio.boot.kernel import Kernel, load_kernel, load_payload
from shardio.boot.memory_map import RAM, RESERVED, MemoryRange, memory_map
from shardio.boot.module import Module
from shardio.boot.plan import Loaded
from shardio.entry import Entry

__all__ = [
    "RAM",
    "RESERVED",
    "Contents",
    "Entry",
    "Kernel",
    "Loaded",
    "MemoryRange",
    "Module",
    "load_flat",
    "load_kernel",
    "load_payload",
    "memory_map",
]
