"""Lends the terminal to a device at `breakpoint()`: the guest's console stands still meanwhile.

The mode is then what it was before the machine ran, but for signals: Ctrl-C would end the whole machine.
"""

from __future__ import annotations

from shardio.cli.streams import say
from shardio.cli.terminal import RawMode, SerialInput


class ConsoleLender:
    """Of the terminal that `raw` has in raw mode and whose keys `serial` carries to the guest."""

    def __init__(self, raw: RawMode, serial: SerialInput) -> None:
        self._raw, self._serial = raw, serial

    def lend(self, where: str) -> int | None:
        """See `TerminalLender.lend`: None where standard input is no terminal, or another job's."""
        if not self._raw.suspend():
            return None
        self._serial.rest(True)
        say(f"shardio: breakpoint in {where}: the terminal is pdb's until continue or Ctrl-D")
        return self._raw.fd

    def take_back(self) -> None:
        """See `TerminalLender.take_back`."""
        say("shardio: the terminal is the guest's console again")
        self._raw.resume()
        self._serial.rest(False)
