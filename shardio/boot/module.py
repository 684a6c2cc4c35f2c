"""What a kernel is given besides its image: a command line, and modules, the first of which is the initrd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardio.boot.image import Image, Source, read_image
from shardio.boot.plan import Plan
from shardio.errors import MachineError


@dataclass(frozen=True, slots=True)
class Module:
    """A file that the kernel finds in memory: its image (a path or bytes), and a command line of its own."""

    image: Source
    command_line: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A module in guest memory: its addresses, and the address of its command line."""

    where: range
    command_line: int


def encoded(command_line: str) -> bytes:
    """The command line as C has it. Raises `MachineError` for one with a NUL inside."""
    if "\0" in command_line:
        raise MachineError("a command line with a NUL inside", "leave it out: it would end the text")
    return command_line.encode(errors="surrogateescape") + b"\0"


def read_modules(modules: Sequence[Module]) -> list[tuple[Image, bytes]]:
    """The modules' bytes, and their command lines. Raises `ImageError`, `MachineError`."""
    return [(read_image(module.image), encoded(module.command_line)) for module in modules]


def place_modules(plan: Plan, modules: Sequence[Module], end: int = 1 << 32) -> list[Placed]:
    """Puts the modules as high as they go below `end`, each on pages of its own, and their command lines."""
    placed = []
    for image, command_line in read_modules(modules):
        at = plan.place_high(image.name, image.data, end)
        text = plan.place(f"the command line of {image.name}", command_line)
        placed.append(Placed(range(at, at + len(image.data)), text))
    return placed
