"""Real exits by the form of the device, writes that are not waited for, QEMU; and the software CPU's. Each
row of the table is held to its gate.
"""

from __future__ import annotations

import pytest

from shardio.bench import exits, writes
from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.errors import BenchError
from shardio.bench.peers import qemu
from shardio.errors import HostError, KvmError

MEASURES = {
    **{case.title: case.measure for case in (*exits.QUICK, *exits.CASES)},
    "writes that are not waited for": writes.measure,
    "QEMU": qemu.measure,
}


@pytest.mark.parametrize("what", MEASURES)
def test_exit(keep: Keep, cpus: tuple[int, int], effort: Effort, what: str) -> None:
    try:
        figures = keep(lambda: MEASURES[what](effort))
    except (BenchError, HostError, KvmError) as error:
        pytest.skip(str(error))

    assert all(figure.value > 0.1 for figure in figures)
