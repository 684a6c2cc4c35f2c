"""`line_trigger`: an interrupt line that a device has beside its own, or whose number its hardware fixes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shardio.errors import InterruptError
from shardio.interrupt import LegacyConfig

if TYPE_CHECKING:
    from shardio.device import DeviceHost, HostTrigger

log = logging.getLogger("shardio.devices")


class _NoLine:
    """Where the machine has no interrupt controllers: the guest polls."""

    def trigger(self) -> None:
        """Nothing to raise."""


def line_trigger(host: DeviceHost, line: int) -> HostTrigger:
    """An edge on that line (GSI), enabled; one that does nothing where the machine has no lines."""
    try:
        interrupt = host.interrupts.edge(LegacyConfig(line))
    except InterruptError as error:
        log.info("device %s is to be polled for want of line %d: %s", host.name, line, error)
        return _NoLine()
    interrupt.enable()
    trigger: HostTrigger = interrupt
    return trigger
