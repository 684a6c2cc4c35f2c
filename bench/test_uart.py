"""Printing: a byte is a read of LSR and a write of THR, called locally, beside the shortest handler's two
calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from shardio.bench.devices import Register
from shardio.devices import Uart16550

LSR, THR = 5, 0
BYTES = 1000
"""A round; less than gathers in a turn of the loop."""


@pytest.fixture
def uart() -> Iterator[tuple[Uart16550, Callable[[], None]]]:
    """A UART in a loop, and what takes a turn of it and prints the turn's first byte."""
    loop = asyncio.new_event_loop()
    device = Uart16550(output="null")
    device.attach(SimpleNamespace(name="uart", loop=loop, trigger=None))

    def turn() -> None:
        loop.run_until_complete(asyncio.sleep(0))
        device.write(THR, 1, 65)

    yield device, turn
    device.detach()
    loop.close()


def printing(device: Any) -> Callable[[], None]:
    """Prints `BYTES` bytes as a polling driver does."""

    def run() -> None:
        for _ in range(BYTES):
            device.read(LSR, 1)
            device.write(THR, 1, 65)

    return run


def test_uart(benchmark: Any, uart: tuple[Uart16550, Callable[[], None]]) -> None:
    device, turn = uart

    benchmark.pedantic(printing(device), setup=turn, rounds=500)

    assert device.statistics().sent == 500 * (BYTES + 1)


def test_shortest_handler(benchmark: Any) -> None:
    device = Register()

    benchmark.pedantic(printing(device), rounds=500)

    assert device.value == 65
