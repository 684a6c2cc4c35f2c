"""Real KVM exits: PIO in and out, MMIO read and write, rep outsb, by the form of the device; writes that are
not waited for (posted, coalesced, ioeventfd); the table's row, held to its gate; QEMU.
"""

from __future__ import annotations

import pytest

from shardio.bench import exits, writes
from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.peers import qemu
from shardio.errors import HostError, KvmError

CASES = [(guest, "register") for guest in exits.GUESTS] + [("pio-in", "native"), ("pio-in", "view")]


@pytest.mark.parametrize(("guest", "device"), CASES)
def test_exit(keep: Keep, cpus: tuple[int, int], effort: Effort, guest: str, device: str) -> None:
    try:
        figures = keep(lambda: [exits.measure(guest, device, effort)])
    except (HostError, KvmError) as error:
        pytest.skip(str(error))

    assert figures[0].value > 0.5


def test_two_vcpus_on_one_device(keep: Keep, cpus: tuple[int, int], effort: Effort) -> None:
    try:
        figures = keep(lambda: [exits.measure("pio-in", "register", effort, vcpus=2)])
    except (HostError, KvmError) as error:
        pytest.skip(str(error))

    assert figures[0].value > 0.5


def test_the_row(keep: Keep, cpus: tuple[int, int], effort: Effort) -> None:
    try:
        keep(lambda: exits.row(cpus, effort))
    except (HostError, KvmError) as error:
        pytest.skip(str(error))


def test_writes_that_are_not_waited_for(keep: Keep, cpus: tuple[int, int], effort: Effort) -> None:
    try:
        figures = keep(lambda: writes.measure(effort))
    except (HostError, KvmError) as error:
        pytest.skip(str(error))

    assert [figure.name for figure in figures] == ["kvm-posted", "kvm-coalesced", "kvm-doorbell"]


def test_qemu(keep: Keep, effort: Effort) -> None:
    try:
        figures = keep(lambda: qemu.measure(effort))
    except (BenchError, HostError, KvmError) as error:
        pytest.skip(str(error))

    assert figures[0].value > 0.1
