"""How a guest may begin: real mode, flat 32-bit protected mode, or long mode."""

from __future__ import annotations

from typing import Final

from shardio.errors import MachineError

MODES: Final = ("real", "protected", "long")


def check_mode(mode: str) -> None:
    """Raises `MachineError` for an entry mode that does not exist."""
    if mode not in MODES:
        raise MachineError(f"no entry mode {mode!r}", f"use one of {', '.join(MODES)}")
