"""A guest finds a virtio device on PCI, takes MSI-X messages from it, and moves its BAR while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardio import Machine
from shardio.config import build, load_config
from shardio.dispatcher import ExitInfo
from tests.e2e.support import PATIENCE_S, add_exit_port, machine, result
from tests.guests.build import guest

pytestmark = pytest.mark.machine

ENDED = ExitInfo("exit", status=0)
WINDOW = 0xE000_0000
RNG = "shardio.devices.virtio:VirtioPciRng"
BAR_MASK = 0xFFFF_C000
ALL_ONES = 0xFFFF_FFFF
RUNNING = 15
CAPABILITIES = 0b111110 | 1 << 0x11  # five virtio structures, MSI-X


def run(count: int, irq: int, **presets: int) -> tuple[list[int], dict[str, int]]:
    """The results of `virtio_pci` and its exits."""
    with machine(shards=1) as vm:
        vm.load(guest("virtio_pci", COUNT=count, IRQ=irq, **presets))
        vm.add(
            "shardio.devices:PciBus",
            pio=0xCF8,
            mmio=WINDOW,
            shard="pci",
            functions=[{"type": RNG}, {"type": RNG, "slot": 3}],
        )
        add_exit_port(vm, shard="pci")
        assert vm.run(PATIENCE_S) == ENDED
        return results(vm), vm.statistics().vcpus[0].exits


def results(vm: Machine) -> list[int]:
    """What the guest found, in the order of its header."""
    return [result(vm, offset) for offset in range(4, 40, 4)]


@pytest.mark.parametrize(("irq", "messages"), [(0, 0), (1, 60)], ids=["polling", "MSI-X"])
def test_requests_are_served_before_and_after_the_bar_moves(irq: int, messages: int) -> None:
    found, _ = run(count=30, irq=irq)

    assert found == [60, 60 * 32, 0x1044_1AF4, BAR_MASK, ALL_ONES, RUNNING, messages, 1, CAPABILITIES]


@pytest.mark.parametrize("irq", [0, 1], ids=["polling", "MSI-X"])
def test_no_request_leaves_the_guest_wherever_the_bar_is(irq: int) -> None:
    (_, few), (_, many) = (run(count=count, irq=irq) for count in (1, 60))

    assert few == many


def test_a_bar_may_move_by_less_than_its_size() -> None:
    found, _ = run(count=5, irq=1, BAR=WINDOW + 0x8000, MOVED=WINDOW + 0x4000)

    # The old place is not the device's any more, and nobody else's.
    assert found[:2] == [10, 320]
    assert found[4] == ALL_ONES


def test_a_configuration_places_functions(tmp_path: Path) -> None:
    (tmp_path / "guest").write_bytes(guest("virtio_pci", COUNT=2))
    (tmp_path / "vm.toml").write_text(f"""
        [machine]
        image = "guest"
        [[device]]
        type = "shardio.devices:PciBus"
        pio = 0xcf8
        mmio = {WINDOW}
        functions = [{{ type = "{RNG}", slot = 3, line = 10 }}]
        [[device]]
        type = "shardio.devices:ExitPort"
        pio = 0xf4
        raw = true
    """)

    with build(load_config(tmp_path / "vm.toml")) as vm:
        ended = vm.run(PATIENCE_S)
        done = results(vm)[0]
    assert ended == ENDED
    assert done == 4
