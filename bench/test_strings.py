"""String I/O: a whole `rep outs` or `rep ins` in one exchange, by its length and the form of the handler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shardio.bench.messages import Handlers
from shardio.bench.pair import Pair, Setting
from shardio.fabric import Client, Outcome

BASE, MMIO = 0xD000_0000, 1


@pytest.fixture
def client(cpus: tuple[int, int], request: pytest.FixtureRequest) -> Iterator[Client]:
    setting = Setting([Handlers(0, MMIO, BASE, 0x1000, request.param)])
    with Pair([setting], cpus):
        yield setting.client()


@pytest.mark.parametrize("client", ["native", "register", "view"], indirect=True)
@pytest.mark.parametrize("length", [1, 64, 4096])
def test_write_string(benchmark: Any, client: Client, length: int) -> None:
    data = bytes(length)

    outcome = benchmark(client.write_string, MMIO, BASE, 1, data)

    assert outcome is Outcome.ANSWERED


@pytest.mark.parametrize("client", ["native", "register", "view"], indirect=True)
@pytest.mark.parametrize("length", [1, 64, 4096])
def test_read_string(benchmark: Any, client: Client, length: int) -> None:
    outcome, data = benchmark(client.read_string, MMIO, BASE, 1, length)

    assert outcome is Outcome.ANSWERED
    assert len(data) == length
