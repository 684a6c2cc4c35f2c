"""Printing: a byte is a read of LSR and a write of THR, called locally, beside the shortest handler's two
calls.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from shardio.bench.devices import Register
from shardio.devices import Uart16550

LSR, THR = 5, 0
BYTES, ROUNDS = 1000, 500
"""A round's bytes are fewer than gather in a turn of the loop."""


def printed(device: Any) -> None:
    """Prints as a polling driver does."""
    for _ in range(BYTES):
        device.read(LSR, 1)
        device.write(THR, 1, 65)


def test_uart(benchmark: Any) -> None:
    loop, device = asyncio.new_event_loop(), Uart16550(output="null")
    device.attach(SimpleNamespace(name="uart", loop=loop, trigger=None))

    def turn() -> None:
        """A turn of the loop, whose first byte is printed at once."""
        loop.run_until_complete(asyncio.sleep(0))
        device.write(THR, 1, 65)

    benchmark.pedantic(printed, args=(device,), setup=turn, rounds=ROUNDS)
    sent = device.statistics().sent
    device.detach()
    loop.close()

    assert sent > 0
    assert sent % (BYTES + 1) == 0


def test_shortest_handler(benchmark: Any) -> None:
    device = Register()

    benchmark.pedantic(printed, args=(device,), rounds=ROUNDS)

    assert device.value == 65
