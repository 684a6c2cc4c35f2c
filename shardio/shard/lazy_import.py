"""Modules that others import for a shard, which hardly ever uses them: read on first use.

Facts. asyncio imports ssl, and msgspec what inspects types: 10 ms of a start for which a guest may wait. The
lazy loader of `importlib.util` reads a module when it is imported a second time (before Python 3.12), which
asyncio does.

Consequences. Such a module is there, as a module, wherever it is asked for; its code runs when something in
it is looked up that is not there yet. Whoever looks meanwhile in another thread waits.
"""

from __future__ import annotations

import sys
from _thread import RLock
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

SELDOM = {"ssl": "_ssl", "asyncio.sslproto": "_ssl", "msgspec.inspect": "", "msgspec.json": ""}
"""Each with the module without which its import fails, which is asked for at once."""

_lock = RLock()
_reading: set[str] = set()


class _Later(ModuleType):
    """A module whose code has not run."""

    def __getattr__(self, name: str) -> object:
        with _lock:
            # Read by another thread meanwhile, or asking for its own attributes while it is read.
            if type(self) is _Later and self.__name__ not in _reading:
                self._read()
        return ModuleType.__getattribute__(self, name)

    def _read(self) -> None:
        module: Any = self
        name, loader = self.__name__, module.__loader__
        _reading.add(name)
        try:
            module.__loader__ = module.__spec__.loader = loader.real
            loader.real.exec_module(self)
            module.__class__ = ModuleType
        except BaseException:
            module.__loader__ = module.__spec__.loader = loader
            raise
        finally:
            _reading.discard(name)


class _Loader:
    """Makes modules that are read later, by the `real` loader."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See `importlib.abc.Loader`: the usual one."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Not now."""
        module.__class__ = _Later


class _Finder:
    """Finds the modules of `SELDOM` that are importable."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        needs = SELDOM.get(name)
        if needs is None or (needs and not _there(needs)):
            return None
        spec: Any = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        found: ModuleSpec | None = spec
        return found


def _there(name: str) -> bool:
    return name in sys.builtin_module_names or PathFinder.find_spec(name) is not None


@contextmanager
def lazy_import() -> Iterator[None]:
    """What is imported within finds the modules of `SELDOM` unread."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
