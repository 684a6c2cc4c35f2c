"""Compiles for shards what they import of shardio, where Python has kept no bytecode of it.

Facts. Where Python is told to write none (PYTHONDONTWRITEBYTECODE), or may not, each interpreter compiles all
that it imports: a third of a cold start (docs/explanation/performance_history.md, "Recovery"). The importer
asks its loader for the bytecode file first, and checks what it gets against the source's time and size.

Consequences. The VMM compiles each module once, while its first shard starts and nobody waits for it, and
hands the files that are missing to later interpreters in one sealed memfd. There they are found under the
names of the real ones; the importer checks them as ever.
"""

from __future__ import annotations

import contextlib
import functools
import marshal
import os
import sys
from collections.abc import Iterator
from importlib.util import MAGIC_NUMBER, cache_from_source

from shardio.shard import protocol

_ROOT = os.path.dirname(os.path.dirname(__file__))
_ROOMS = ("", "shard", "fabric", "interrupt")
"""Directories of the package that shards import from."""
_DEVICES = "shardio.devices"

READ = """import marshal, os
from importlib.machinery import SourceFileLoader
def read(loader, path, real=SourceFileLoader.get_data,
         files=marshal.loads(os.pread({fd}, os.fstat({fd}).st_size, 0))):
    return files.pop(path, None) or real(loader, path)
os.close({fd})
SourceFileLoader.get_data = read
"""
"""How an interpreter takes over what `missing` made; `fd`: the descriptor."""


def missing() -> int:
    """The descriptor of a sealed memfd with the bytecode files that shards would miss, -1 where they miss
    none. The caller closes it. Raises OSError where there can be none.
    """
    files: dict[str, bytes] = {}
    for source in _sources():
        with contextlib.suppress(OSError, SyntaxError, ValueError):  # whoever imports it sees why
            cached = cache_from_source(source)
            if (file := _bytecode(source, cached)) is not None:
                files[cached] = file
    return protocol.in_memfd(marshal.dumps(files)) if files else -1


def _sources() -> Iterator[str]:
    """What a shard may import: all of its rooms, and of the devices what the VMM's program has imported."""
    for room in _ROOMS:
        directory = os.path.join(_ROOT, room)
        yield from (os.path.join(directory, name) for name in os.listdir(directory) if name.endswith(".py"))
    for name, module in tuple(sys.modules.items()):
        source = getattr(module, "__file__", None) or ""
        if name.startswith(_DEVICES) and source.endswith(".py"):
            yield source


def _bytecode(source: str, cached: str) -> bytes | None:
    """The bytecode file of a source (PEP 552); None where there is one that is up to date."""
    with open(source, "rb") as file:
        status = os.fstat(file.fileno())
        parts = (0, int(status.st_mtime), status.st_size)
        head = MAGIC_NUMBER + b"".join((part & 0xFFFFFFFF).to_bytes(4, "little") for part in parts)
        if _head(cached, len(head)) == head:
            return None
        return _compiled(source, head, file.read())


@functools.lru_cache(maxsize=256)
def _compiled(source: str, head: bytes, text: bytes) -> bytes:
    """Once in a program, however many machines it has; `head`: the file's, before the code."""
    return head + marshal.dumps(compile(text, source, "exec", dont_inherit=True))


def _head(cached: str, size: int) -> bytes:
    try:
        with open(cached, "rb") as file:
            return file.read(size)
    except FileNotFoundError:
        return b""
