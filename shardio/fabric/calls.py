"""A port's accesses, made by the compiled core: `Calls`, and how they end, `Outcome`.

The type is the core's (native/pycalls.c), since a call through cffi costs several times what an access does.
A subclass opens the client and raises the errors.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from shardio._core import lib


class Outcome(IntEnum):
    """How an access ended."""

    ANSWERED = lib.SIO_ANSWERED
    NOT_ANSWERED = lib.SIO_NOT_ANSWERED
    ABORTED = lib.SIO_ABORTED


if TYPE_CHECKING:

    class Calls:
        """The accesses of one client, one at a time. Arguments are positional. Their documentation is the
        core's: `help(Port)`.
        """

        def read(self, space: int, address: int, size: int, /) -> tuple[Outcome, int]: ...
        def write(self, space: int, address: int, size: int, value: int, /) -> Outcome: ...
        def read_string(
            self, space: int, address: int, size: int, count: int, /
        ) -> tuple[Outcome, bytes]: ...
        def write_string(self, space: int, address: int, size: int, data: Any, /) -> Outcome: ...
        def pio_read(self, addr: int, data: Any, /) -> None: ...
        def pio_write(self, addr: int, data: Any, /) -> None: ...
        def mmio_read(self, addr: int, data: Any, /) -> None: ...
        def mmio_write(self, addr: int, data: Any, /) -> None: ...
        def _attach(self, client: int, /) -> None: ...
        def _begin(self) -> None: ...
        def _end(self) -> None: ...

else:
    _made: dict[str, Any] = {}
    _outcomes = tuple(sorted(Outcome))
    if lib.sio_py_calls(id(_made), id(_outcomes)):
        raise MemoryError("no memory for the type of a port's accesses")
    Calls = _made["Calls"]
