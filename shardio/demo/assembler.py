"""Makes the demo's flat image from its assembly source, with the system's assembler and linker."""

from __future__ import annotations

import subprocess
import tempfile
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
    with tempfile.TemporaryDirectory(prefix="shardio-demo-") as folder:
        made, image = Path(folder, "object"), Path(folder, "image")
        _run("as", "--64", "-o", str(made), str(source))
        _run(
            "ld",
            "-m",
            "elf_x86_64",
            "--oformat",
            "binary",
            "-Ttext",
            hex(address),
            "-o",
            str(image),
            str(made),
        )
        return image.read_bytes()


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise AssemblerError(command[0], "is not installed", "apt-get install binutils") from None
    if done.returncode:
        raise AssemblerError(command[0], done.stderr.strip(), "use GNU binutils for x86-64")
