"""A cffi struct whose parts may outlive it.

Facts. cffi frees what `ffi.new` gave with the last reference to that very pointer. A nested struct is
a view that keeps nothing: `get_sregs().cs.base` would read memory that is free again.

Consequences. What the getters of structs return is wrapped, and every part holds the whole.
"""

from __future__ import annotations

from typing import Any

from shardio._core import ffi

_CDATA = type(ffi.NULL)


class Kept:
    """The fields of a cffi struct by name; those that are structs are `Kept` too. `cdata` is what cffi calls
    it, to be used only while this object lives.
    """

    __slots__ = ("_whole", "cdata")
    cdata: Any
    _whole: Any

    def __init__(self, cdata: Any, whole: Any = None) -> None:
        """`whole`: what owns the memory, where that is not `cdata` itself."""
        object.__setattr__(self, "cdata", cdata)
        object.__setattr__(self, "_whole", cdata if whole is None else whole)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.cdata, name)
        return Kept(found, self._whole) if isinstance(found, _CDATA) else found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.cdata, name, plain(value))

    def __dir__(self) -> list[str]:
        return dir(self.cdata)

    def __repr__(self) -> str:
        return f"<Kept of {self.cdata!r}>"


def plain(value: Any) -> Any:
    """What cffi takes: of a `Kept` its `cdata`, anything else as it is."""
    return value.cdata if isinstance(value, Kept) else value
