"""A guest moves a 64 MiB disk image through two queues; what it flushed survives the death of everything."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from shardio.dispatcher import ExitInfo
from tests.e2e.support import (
    EXIT_PORT,
    MMIO,
    PATIENCE_S,
    accesses_to,
    add_exit_port,
    command,
    console,
    machine,
    read_until,
    result,
)
from tests.guests.build import guest

pytestmark = pytest.mark.machine

MIB = 1 << 20
IMAGE = 64 * MIB
DATA = 64 * MIB
LINE = 5
RUNNING = 15
READ, WRITE, FLUSH, STAY = 1, 2, 4, 8
BLOCK = "shardio.devices.virtio:VirtioMmioBlock"
MODES = pytest.mark.parametrize("irq", [0, LINE], ids=["polling", "interrupts"])


def make_image(path: Path, size: int = IMAGE) -> list[bytes]:
    """An image of random bytes at `path`: its pieces of 1 MiB."""
    pieces = [os.urandom(MIB) for _ in range(size // MIB)]
    path.write_bytes(b"".join(pieces))
    return pieces


def digest(pieces: Iterable[bytes]) -> str:
    """SHA-256 of the pieces, one after another."""
    sum256 = hashlib.sha256()
    for piece in pieces:
        sum256.update(piece)
    return sum256.hexdigest()


@MODES
def test_64_mib_are_read_and_written_through_two_queues(irq: int, tmp_path: Path) -> None:
    pieces = make_image(tmp_path / "disk")
    with machine(memory="128M", shards=1) as vm:
        vm.load(guest("virtio_block", IRQ=irq, STEPS=READ | WRITE | FLUSH))
        vm.add(BLOCK, mmio=MMIO, irq=LINE, name="disk", shard="disk", path=str(tmp_path / "disk"), queues=2)
        add_exit_port(vm, shard="disk")

        ended = vm.run(PATIENCE_S)
        right, wrong, status, given, interrupts, first_words, flushed = (
            result(vm, offset) for offset in (4, 8, 12, 16, 20, 24, 28)
        )
        in_memory = digest([vm.memory.read(DATA, IMAGE)])
        accesses = accesses_to("disk", vm)
    assert ended == ExitInfo("exit", status=0)
    assert (right, wrong, status, flushed) == (64 + 64 + 1, 0, RUNNING, 1)
    # Each read gives its data and a status byte, each write and the flush a status byte.
    assert given == IMAGE + 64 + 64 + 1
    assert first_words == sum(int.from_bytes(piece[:4], "little") for piece in pieces) & 0xFFFF_FFFF
    assert in_memory == digest(pieces)
    assert digest([(tmp_path / "disk").read_bytes()]) == digest(reversed(pieces))
    # Setting two queues up takes 28 accesses. A request takes none but those of the interrupt's handler.
    assert accesses == 28 + 2 * interrupts
    assert bool(interrupts) == bool(irq)


def test_a_read_only_image_is_read_and_never_written(tmp_path: Path) -> None:
    pieces = make_image(tmp_path / "disk", 4 * MIB)
    with machine(memory="128M", shards=1) as vm:
        vm.load(guest("virtio_block", SIZE=4 * MIB, STEPS=READ | WRITE))
        vm.add(
            BLOCK, mmio=MMIO, name="disk", shard="disk", path=str(tmp_path / "disk"), queues=2, read_only=True
        )
        add_exit_port(vm, shard="disk")

        ended = vm.run(PATIENCE_S)
        right, wrong = result(vm, 4), result(vm, 8)
        in_memory = digest([vm.memory.read(DATA, 4 * MIB)])
    assert ended == ExitInfo("exit", status=0)
    assert (right, wrong) == (4, 4)
    assert in_memory == digest(pieces)
    assert digest([(tmp_path / "disk").read_bytes()]) == digest(pieces)


def test_what_was_flushed_is_in_the_file_after_sigkill_of_the_whole_vm(tmp_path: Path) -> None:
    pieces = make_image(tmp_path / "disk", 16 * MIB)
    (tmp_path / "guest").write_bytes(guest("virtio_block", SIZE=16 * MIB, STEPS=READ | WRITE | FLUSH | STAY))
    (tmp_path / "vm.toml").write_text(f"""
        [machine]
        memory = "96M"
        image = "guest"
        [[device]]
        type = "{BLOCK}"
        mmio = {MMIO}
        irq = {LINE}
        path = "{tmp_path / "disk"}"
        queues = 2
        [[device]]
        type = "shardio.devices:DebugConsole"
        pio = 0x402
        output = "file:{tmp_path / "flushed"}"
        [[device]]
        type = "shardio.devices:ExitPort"
        pio = {EXIT_PORT}
    """)
    with console(tmp_path / "flushed") as flushed, command("run", tmp_path / "vm.toml") as process:
        read_until(flushed, b"\n")
        process.send_signal(signal.SIGKILL)
        process.communicate()

        assert process.returncode == -signal.SIGKILL
        assert digest([(tmp_path / "disk").read_bytes()]) == digest(reversed(pieces))
