"""A software vCPU's worker: a Python interpreter that enters one function of the core and stays there.

`start` is the VMM's side, `main` the worker's. It needs no more of Python than to map what it shares: Unicorn
wants malloc and thread-local storage, which a process cloned as KVM's workers are does not have.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from shardio._core import ffi, lib

_MAIN: Final = """import sys
sys.path[:] = {path!r}
from shardio.soft.process import main
main({start!r})"""
_PACKAGES: Final = str(Path(__file__).parents[2])


class Start(msgspec.Struct, frozen=True):
    """What a worker is told: its vCPU, the library's path, and descriptors.

    `shards`: the doorbell of each shard by number; `doorbells`: the eventfds of the guest's doorbells.
    """

    index: int
    library: str
    record: int
    raising: int
    memory: int
    rom: int
    fabric: int
    event: int
    shards: Mapping[int, int]
    doorbells: Sequence[int]

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors."""
        named = (self.record, self.raising, self.memory, self.rom, self.fabric, self.event)
        return tuple(fd for fd in (*named, *self.shards.values(), *self.doorbells) if fd >= 0)


def start(what: Start) -> subprocess.Popen[bytes]:
    """Start a worker. Raises `OSError`.

    Signals are blocked until the worker has set up its handlers: the kick of an early `pause` would end the
    interpreter, and so would a Ctrl-C, which goes to every process of the terminal.
    """
    path = [*sys.path, _PACKAGES]  # without site, an editable install has no finder
    main_text = _MAIN.format(path=path, start=msgspec.json.encode(what))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return subprocess.Popen(
            [sys.executable, "-S", "-c", main_text], stdin=subprocess.DEVNULL, pass_fds=what.fds
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main(encoded: bytes) -> None:
    """Run the vCPU; the process ends in there."""
    from shardio.fabric.segment import Fabric

    told = msgspec.json.decode(encoded, type=Start)
    shards = ffi.new("int32_t[]", [told.shards.get(number, -1) for number in range(lib.SIO_MAX_SHARDS)])
    none = [-1] * (lib.SIO_SOFT_DOORBELLS - len(told.doorbells))
    doorbells = ffi.new("int32_t[]", [*told.doorbells, *none])
    path = ffi.new("char[]", os.fsencode(told.library))
    fabric = Fabric.attach(told.fabric)
    record = _mapped(told.record)
    begin = ffi.new("struct sio_soft_start *")
    begin.unicorn = path
    begin.machine = ffi.cast("struct sio_soft_machine *", record)
    begin.raise_page = ffi.cast("struct sio_raise *", _mapped(told.raising))
    begin.fabric = fabric.view
    begin.memory = ffi.cast("uint8_t *", _mapped(told.memory))
    begin.rom = ffi.cast("uint8_t *", _mapped(told.rom)) if told.rom >= 0 else ffi.NULL
    begin.index = told.index
    begin.shard_doorbell, begin.doorbell_fd = shards, doorbells
    begin.event = told.event
    lib.sio_soft_run(begin)


def _mapped(fd: int) -> Any:
    mapping = mmap.mmap(fd, os.fstat(fd).st_size)
    _KEPT.append(mapping)
    return ffi.from_buffer(mapping)


_KEPT: Final[list[mmap.mmap]] = []


