"""A guest powers its machine off, and resets it."""

from __future__ import annotations

import pytest

from shardio.devices import AcpiPower, Counter
from shardio.dispatcher import ExitInfo
from tests.e2e.support import MMIO, PATIENCE_S, machine
from tests.guests.build import guest

pytestmark = pytest.mark.machine


@pytest.mark.parametrize(("port", "value", "ended"), [
    (0x600, 5 << 2 | 0x20, ExitInfo("exit", status=0)), (0x602, 1, ExitInfo("reset")),
])  # fmt: skip
def test_the_machine_ends_as_the_guest_asks(port: int, value: int, ended: ExitInfo) -> None:
    with machine(shards=1) as vm:
        vm.load(guest("mmio_loop", COUNT=1, EXIT_PORT=port, EXIT_CODE=value))
        vm.add(Counter, mmio=MMIO)
        vm.add(AcpiPower, pio=0x600)

        assert vm.run(PATIENCE_S) == ended
