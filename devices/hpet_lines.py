"""The interrupt lines of an HPET, asked for when they are first used: which they are, the guest chooses."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from shardio.errors import InterruptError
from shardio.interrupt import LegacyConfig
from shardio.rate import guest_log

if TYPE_CHECKING:
    from shardio.device import DeviceHost

log = logging.getLogger("shardio.devices.hpet")


class HpetLines:
    """Lines (GSIs) of `host`, edges and levels apart. The host takes them back at the end."""

    def __init__(self, host: DeviceHost) -> None:
        self._interrupts: Any = getattr(host, "interrupts", None)
        self._found: dict[tuple[str, int], Any] = {}
        self._high: set[int] = set()

    def pulse(self, line: int) -> None:
        """One edge."""
        if (edge := self._ask("edge", line)) is not None:
            edge.trigger()

    def drive(self, high: set[int]) -> None:
        """These lines are high, and all others low."""
        for line in high - self._high:
            if (level := self._ask("level", line)) is not None:
                level.trigger()
        for line in self._high - high:
            if (level := self._ask("level", line)) is not None:
                level.deassert()
        self._high = high

    def _ask(self, kind: str, line: int) -> Any:
        """The line's interrupt, enabled; None where there is none to be had, which is logged once."""
        if (kind, line) not in self._found and self._interrupts is not None:
            try:
                found = getattr(self._interrupts, kind)(LegacyConfig(line))
                found.enable()
            except InterruptError as error:
                guest_log.warning(log, "no interrupt on line %d for the HPET: %s", line, str(error))
                found = None
            self._found[kind, line] = found
        return self._found.get((kind, line))
