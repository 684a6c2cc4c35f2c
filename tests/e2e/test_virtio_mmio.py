"""Guests drive virtio devices over MMIO: by doorbells and irqfds, in good faith and in bad."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from shardio import Machine
from shardio.dispatcher import ExitInfo
from tests.e2e.support import (
    MMIO,
    PATIENCE_S,
    accesses_to,
    add_exit_port,
    console,
    machine,
    read_until,
    result,
    until,
)
from tests.guests.build import BUFFERS, guest

pytestmark = pytest.mark.machine

LINE = 5
RUNNING = 15
NEEDS_RESET = 0x40
ENDED = ExitInfo("exit", status=0)
MODES = pytest.mark.parametrize("irq", [0, LINE], ids=["polling", "interrupts"])


def add_virtio(vm: Machine, kind: str, **options: Any) -> None:
    """The device at `MMIO`, in the shard that has the exit port too."""
    vm.add(f"shardio.devices.virtio:{kind}", mmio=MMIO, irq=LINE, shard="virtio", name="virtio", **options)
    add_exit_port(vm, shard="virtio")


# ---- entropy ----


def test_a_polling_guest_gets_entropy_without_one_exit_a_request() -> None:
    few, many = (_entropy(count=count, irq=0) for count in (1, 200))

    assert few.accesses == many.accesses
    assert (few.done, many.done) == (1, 200)
    assert many.filled == 200 * 32


def test_an_interrupted_guest_leaves_for_its_own_acknowledgement_only() -> None:
    few, many = (_entropy(count=count, irq=LINE) for count in (1, 101))

    assert (few.interrupts, many.interrupts) == (1, 101)
    # Each handler reads and acknowledges the device's cause.
    assert many.accesses - few.accesses == 2 * 100


def test_two_runs_get_different_bytes() -> None:
    assert _entropy(count=1, irq=0).data != _entropy(count=1, irq=0).data


class _Entropy:
    """What `virtio_rng` left behind."""

    def __init__(self, vm: Machine) -> None:
        self.done, self.filled, self.status, self.device_id, self.interrupts = (
            result(vm, offset) for offset in (4, 8, 12, 16, 20)
        )
        self.data = vm.memory.read(BUFFERS, 32)
        self.accesses = accesses_to("virtio", vm)


def _entropy(count: int, irq: int, irq_mode: str = "edge") -> _Entropy:
    with machine(memory="2M", shards=1) as vm:
        vm.load(guest("virtio_rng", COUNT=count, IRQ=irq))
        add_virtio(vm, "VirtioMmioRng", irq_mode=irq_mode)
        assert vm.run(PATIENCE_S) == ENDED
        found = _Entropy(vm)
    assert (found.status, found.device_id) == (RUNNING, 4)
    return found


@pytest.mark.parametrize("irq_mode", ["edge", "level"])
def test_either_kind_of_line_completes_every_request(irq_mode: str) -> None:
    found = _entropy(count=50, irq=LINE, irq_mode=irq_mode)

    assert (found.done, found.filled) == (50, 50 * 32)
    assert found.interrupts >= 50


# ---- console ----


@MODES
def test_console_speaks_and_hears(irq: int, tmp_path: Path) -> None:
    said = b"what the host types\n"
    with console(tmp_path / "out") as output, machine(shards=1) as vm:
        os.mkfifo(tmp_path / "in")
        vm.load(guest("virtio_console", COUNT=len(said), IRQ=irq))
        add_virtio(
            vm,
            "VirtioMmioConsole",
            source=f"file:{tmp_path / 'in'}",
            output=f"file:{tmp_path / 'out'}",
            columns=132,
        )
        vm.start()
        greeting = read_until(output, b"\n")
        (tmp_path / "in").write_bytes(said)
        echo = read_until(output, b"\n")
        ended = vm.wait(PATIENCE_S)
        shape = result(vm, 12)
    assert greeting == b"the guest is here\n"
    assert echo == said
    assert ended == ENDED
    assert shape == 25 << 16 | 132


# ---- net ----


@MODES
def test_two_machines_play_ball_over_a_cable(irq: int) -> None:
    cable = uuid.uuid4().hex
    ends = [f"@shardio-{cable}-{side}" for side in "ab"]
    count = 20
    with machine(shards=1) as sender, machine(shards=1) as returner:
        for vm, local, peer, returns in ((sender, *ends, 0), (returner, *reversed(ends), 1)):
            vm.load(guest("virtio_net", COUNT=count, IRQ=irq, RETURNS=returns))
            add_virtio(vm, "VirtioMmioNet", local=local, peer=peer)
        returner.start()
        until(lambda: result(returner, 12) == 1, "the other machine listens")
        sender.start()

        ended = [vm.wait(PATIENCE_S) for vm in (sender, returner)]
        right = [result(vm, 4) for vm in (sender, returner)]
        wrong = [result(vm, 8) for vm in (sender, returner)]
        lengths = [result(vm, 16) for vm in (sender, returner)]
    assert ended == [ENDED, ENDED]
    assert right == [count, count]
    assert wrong == [0, 0]
    assert lengths == [72, 72]


# ---- a driver that lies ----


# One of each step; tests/devices/virtio/test_queue_lies.py has the others.
LIES = {
    "descriptor table outside RAM": {"TABLE": 0xC000_0000},
    "chain that loops": {"FLAGS": 1},
    "buffer outside RAM": {"ADDRESS_LOW": 0xC000_0000},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_lying_driver_is_stopped_and_may_begin_again(lie: dict[str, int]) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("virtio_hostile", **lie))
        add_virtio(vm, "VirtioMmioRng")

        ended = vm.run(PATIENCE_S)
        after_lie, filled, at_end = (result(vm, offset) for offset in (4, 8, 12))
        (shard,) = vm.statistics().shards
    assert ended == ENDED
    assert after_lie & NEEDS_RESET
    assert filled == 16
    assert at_end == RUNNING
    assert (shard.spawns, shard.quarantined) == (1, False)


def test_what_is_no_lie_is_served() -> None:
    with machine(shards=1) as vm:
        vm.load(guest("virtio_hostile", LOOKS=2))
        add_virtio(vm, "VirtioMmioRng")

        ended = vm.run(PATIENCE_S)
        after = result(vm, 4)
    assert ended == ENDED
    assert after == RUNNING
