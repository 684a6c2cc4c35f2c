"""`Profile`: how long a device's handlers take, and where, by cProfile; a file for pstats at the end."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from shardio.errors import MachineError

_HANDLERS = ("read", "write", "pio_read", "pio_write", "mmio_read", "mmio_write")


class Profile:
    """Of one device, into the file at `path`, made at once. Raises `MachineError` where that cannot be."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._profile = cProfile.Profile()
        try:
            open(path, "wb").close()
        except OSError as error:
            hint = "name a file that this user may write"
            raise MachineError(f"no profile in {path}: {error.strerror}", hint) from None

    def handlers(self, device: Any) -> Any:
        """What answers as the device does, each call counted. Raises `MachineError` for one whose accesses do
        not enter Python.
        """
        if getattr(device, "native_handler", 0):
            raise MachineError("its handler is native, and nothing of it is Python's", "use perf")
        return SimpleNamespace(**{
            name: self._counted(handler)
            for name in _HANDLERS
            if callable(handler := getattr(device, name, None))
        })

    def _counted(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        enable, disable = self._profile.enable, self._profile.disable

        def counted(*arguments: Any) -> Any:
            enable()
            try:
                return handler(*arguments)
            finally:
                disable()

        return counted

    def close(self) -> None:
        """Write the file. Raises `OSError`."""
        self._profile.dump_stats(self._path)
