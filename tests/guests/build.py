"""Guest programs from their assembly sources, as flat binaries, with the system's `as`, `ld` and `objcopy`.

>>> image = guest("pio_loop", COUNT=10, PORT=0x3F8)
>>> hex(parameters("pio_loop")["count"])
'0x1014'

Each guest's header tells its one behaviour, its parameters and its results; `common.inc` tells the memory
map. Built files are kept under build/guests/, by the hash of all that went into them.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
CACHE = SOURCES.parent.parent / "build" / "guests"

LOAD_ADDRESS = 0x1000
"""Where every guest is loaded and entered."""
RESULTS = 0x9000
RESULTS_SIZE = 64
"""Bytes of results of each vCPU, from `RESULTS` on; the first word is 1 when the vCPU is done."""
BUFFERS = 0x3_0000
BUFFER_SIZE = 0x1000
"""Bytes of string buffer of each vCPU, from `BUFFERS` on."""

_PRESET = re.compile(r"^ *param [^,]+, ([^,]+),", re.MULTILINE)
_COMMON_PRESETS = {"VCPUS", "EXIT_PORT", "EXIT_CODE"}


def guest(name: str, **defs: int) -> bytes:
    """The flat binary of `name`, its parameters preset by their --defsym names in `defs`.

    Raises `ValueError` for a preset that the guest does not have.
    """
    known = set(_PRESET.findall((SOURCES / f"{name}.S").read_text())) | _COMMON_PRESETS
    unknown = [preset for preset in defs if re.sub(r"^R[0-7]_", r"R\\n\\()_", preset) not in known]
    if unknown:
        raise ValueError(f"guest {name} has no preset {unknown[0]}: use {', '.join(sorted(known))}")
    return (_built(name, tuple(sorted(defs.items()))) / "image").read_bytes()


def program(text: str) -> bytes:
    """The flat binary of a short program in assembly, to be loaded at `LOAD_ADDRESS`."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "program.S"
        source.write_text(text)
        _assemble(source, (), Path(scratch))
        return (Path(scratch) / "image").read_bytes()


def parameters(name: str) -> dict[str, int]:
    """The guest address of each parameter (32 bits, little-endian) of `name`, in the block's order."""
    listing = (_built(name, ()) / "symbols").read_text()
    found = [line.split() for line in listing.splitlines()]
    # The linker's own symbols, and _start, begin with an underscore.
    symbols = {label: int(value, 16) for value, _, label in found if not label.startswith("_")}
    return dict(sorted(symbols.items(), key=lambda item: item[1]))


def elf32(name: str, folder: Path, **defs: int) -> Path:
    """An ELF of 32 bits with symbols and lines, for a debugger: its code is that of `guest(name, **defs)`."""
    presets = [word for preset, value in defs.items() for word in ("--defsym", f"{preset}={value}")]
    made, linked = folder / f"{name}.o", folder / f"{name}.elf"
    _tool("as", "--32", "-g", "-I", str(SOURCES), *presets, "-o", str(made), str(SOURCES / f"{name}.S"))
    _tool("ld", "-m", "elf_i386", "-Ttext", hex(LOAD_ADDRESS), "-o", str(linked), str(made))
    return linked


def guest_symbols(name: str) -> dict[str, int]:
    """The guest address of each label of `name`, local ones too."""
    listing = _tool("nm", str(_built(name, ()) / "linked"))
    found = (line.split() for line in listing.splitlines())
    return {words[2]: int(words[0], 16) for words in found if len(words) == 3}


def result_address(vcpu: int, offset: int = 0) -> int:
    """The guest address of a result of `vcpu`."""
    return RESULTS + RESULTS_SIZE * vcpu + offset


def buffer_address(vcpu: int) -> int:
    """The guest address of the string buffer of `vcpu`."""
    return BUFFERS + BUFFER_SIZE * vcpu


@cache
def _built(name: str, defs: tuple[tuple[str, int], ...]) -> Path:
    """The folder with the files of one build; made whole, so that two test processes may race for it."""
    source = SOURCES / f"{name}.S"
    included = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.inc")))
    text = source.read_bytes() + included + repr(defs).encode()
    folder = CACHE / f"{name}-{hashlib.sha256(text).hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        _assemble(source, defs, made)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _assemble(source: Path, defs: tuple[tuple[str, int], ...], made: Path) -> None:
    presets = [word for name, value in defs for word in ("--defsym", f"{name}={value}")]
    _tool("as", "--64", "-I", str(SOURCES), *presets, "-o", str(made / "object"), str(source))
    # Real mode code reaches its data by 16-bit addresses: the whole image is one section at its load address.
    layout = ("-m", "elf_x86_64", "-Ttext", hex(LOAD_ADDRESS))
    _tool("ld", *layout, "-o", str(made / "linked"), str(made / "object"))
    _tool("objcopy", "-O", "binary", "-j", ".text", str(made / "linked"), str(made / "image"))
    (made / "symbols").write_text(_tool("nm", "--extern-only", "--defined-only", str(made / "linked")))


def _tool(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return done.stdout
