"""`Forwarded`: what a machine leaves to its dispatcher."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any, TextIO

from shardio.dispatcher import DeviceHandle, Dispatcher, EventStream
from shardio.dispatcher.observed import KEPT_RECORDS
from shardio.shard.loading import Factory

if TYPE_CHECKING:
    from shardio.dispatcher.metrics_server import MetricsServer
    from shardio.dispatcher.tracing import Trace


class Forwarded:
    """The methods of `Machine` that are those of `Dispatcher`."""

    dispatcher: Dispatcher

    def add(self, device: Factory, **arguments: Any) -> DeviceHandle:
        """Add a device; the arguments are those of `Dispatcher.add`."""
        return self.dispatcher.add(device, **arguments)

    def remove(self, device: DeviceHandle | str) -> None:
        """See `Dispatcher.remove`."""
        self.dispatcher.remove(device)

    def move(self, device: DeviceHandle | str, *, pio: int | None = None, mmio: int | None = None) -> None:
        """See `Dispatcher.move`."""
        self.dispatcher.move(device, pio=pio, mmio=mmio)

    def reload(self, *devices: DeviceHandle | str) -> None:
        """See `Dispatcher.reload`."""
        self.dispatcher.reload(*devices)

    def profile(self, device: DeviceHandle | str, file: str | os.PathLike[str]) -> None:
        """See `Dispatcher.profile`."""
        self.dispatcher.profile(device, file)

    def screen(self, timeout: float | None = None) -> str:
        """See `Dispatcher.screen`."""
        return self.dispatcher.screen(timeout)

    def events(self) -> EventStream:
        """See `Dispatcher.events`."""
        return self.dispatcher.events()

    def trace(
        self, *what: str, file: str | os.PathLike[str] | TextIO | None = None, kept: int = KEPT_RECORDS
    ) -> Trace:
        """See `Dispatcher.trace`."""
        return self.dispatcher.trace(*what, file=file, kept=kept)

    def record(self, file: str | os.PathLike[str], *devices: str) -> None:
        """See `Dispatcher.record`."""
        self.dispatcher.record(file, *devices)

    def metrics(self, address: str) -> MetricsServer:
        """See `Dispatcher.metrics`."""
        return self.dispatcher.metrics(address)


# `help(Machine.add)` shows what can be given, without saying it twice.
Forwarded.add.__signature__ = inspect.signature(Dispatcher.add)  # type: ignore[attr-defined]
Forwarded.add.__doc__ = Dispatcher.add.__doc__
