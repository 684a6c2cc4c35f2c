"""Where the header for vCPU loops in C, C++ or Rust is."""

from __future__ import annotations

from pathlib import Path


def get_include() -> str:
    """The directory with `shardio.h`, for a compiler's `-I`, and `shardio.c`, to be compiled into the
    program: a port's calls for vCPU loops in C, C++ or Rust (docs/reference/dispatcher.md).

    >>> import os
    >>> sorted(name for name in os.listdir(get_include()) if name.startswith("shardio."))
    ['shardio.c', 'shardio.h']
    """
    return str(Path(__file__).resolve().parent / "include")
