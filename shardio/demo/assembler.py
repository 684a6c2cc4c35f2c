"""Makes the demo's flat image from its assembly source, with the system's assembler and linker.

What they make is in memory (memfd_create(2)): a demo that is killed meanwhile leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from shardio.errors import ShardioError

SOURCE = Path(__file__).with_name("guest.S")


class AssemblerError(ShardioError):
    """The system's `as` or `ld` is missing or refused its input. `tool`: which; `reason`: why."""

    def __init__(self, tool: str, reason: str, hint: str) -> None:
        super().__init__(f"{tool}: {reason}", hint)
        self.tool, self.reason = tool, reason


def assemble(source: Path = SOURCE, address: int = 0x1000) -> bytes:
    """The flat x86 image of `source`, linked to run at `address`. Raises AssemblerError."""
    with contextlib.ExitStack() as files:
        made, image = (_in_memory(name, files) for name in ("object", "image"))
        shape = ("-m", "elf_x86_64", "--oformat", "binary", "-Ttext", hex(address))
        _run(made, image, command=("as", "--64", "-o", _path(made), str(source)))
        _run(made, image, command=("ld", *shape, "-o", _path(image), _path(made)))
        with open(image, "rb", closefd=False) as file:
            return file.read()


def _in_memory(name: str, files: contextlib.ExitStack) -> int:
    fd = os.memfd_create(f"shardio-demo-{name}", os.MFD_CLOEXEC)
    files.callback(os.close, fd)
    return fd


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _run(*files: int, command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=files)
    except FileNotFoundError:
        raise AssemblerError(command[0], "is not installed", "apt-get install binutils") from None
    if done.returncode:
        raise AssemblerError(command[0], done.stderr.strip(), "use GNU binutils for x86-64")
