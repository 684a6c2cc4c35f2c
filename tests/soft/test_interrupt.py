"""`SoftBackend`: what a handle stands for, and what a shard's trigger leaves in the raise page."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shardio._core import ffi, lib
from shardio.errors import InterruptError
from shardio.interrupt import InterruptManager, LegacyConfig, MsiConfig
from shardio.interrupt.messages import Allocate, Allocated
from shardio.interrupt.proxy import ProxyBackend
from shardio.interrupt.server import InterruptServer
from shardio.memory import GuestMemory
from shardio.soft.interrupt import SoftBackend
from shardio.soft.record import Record


@pytest.fixture
def record() -> Iterator[Record]:
    with GuestMemory(0x1000) as memory, Record(memory, 1, apic=True) as made:
        yield made


@pytest.fixture
def backend(record: Record) -> Iterator[SoftBackend]:
    with SoftBackend(record) as made:
        yield made


def words(record: Record) -> tuple[int, int]:
    """The first word of edges and of levels."""
    page = ffi.cast("uint64_t *", record.page)
    return int(page[8]), int(page[8 + lib.SIO_RAISE_HANDLES // 64])


def test_an_edge_sets_its_bit(record: Record, backend: SoftBackend) -> None:
    with InterruptManager(backend) as interrupts:
        line = interrupts.edge(LegacyConfig(4))
        line.enable()
        line.trigger()

        assert words(record) == (1 << 1, 0)


def test_a_level_rises_and_falls(record: Record, backend: SoftBackend) -> None:
    with InterruptManager(backend) as interrupts:
        line = interrupts.level(LegacyConfig(10))
        line.enable()
        line.trigger()
        high = words(record)[1]
        line.mask()
        masked = words(record)[1]
        line.unmask()
        line.deassert()

        assert (high, masked, words(record)[1]) == (1 << 1, 0, 0)


@pytest.mark.parametrize("gsi", [24, 254, -1])
def test_lines_that_are_none_are_refused(backend: SoftBackend, gsi: int) -> None:
    with pytest.raises(InterruptError, match="no such line"):
        backend.allocate(gsi)


def test_a_machine_without_a_board_has_lines_once_a_controller_is_there(record: Record) -> None:
    with SoftBackend(record, board=False) as backend:
        with pytest.raises(InterruptError, match="no lines without controllers"):
            backend.allocate(5)
        record.view.controllers = lib.SIO_WIRED_PIC

        assert backend.allocate(5).gsi == 5


def test_a_message_has_no_level_and_a_line_no_message(backend: SoftBackend) -> None:
    line = backend.allocate(4)
    with pytest.raises(InterruptError, match="messages are edges"):
        backend.allocate(None, level=True)
    with pytest.raises(InterruptError, match="carries no message"):
        backend.set_route(line.handle, MsiConfig(0xFEE0_0000, 0x31))


def test_handles_run_out_and_come_back(backend: SoftBackend) -> None:
    held = [backend.allocate(None) for _ in range(lib.SIO_RAISE_HANDLES - 1)]
    with pytest.raises(InterruptError, match="are in use"):
        backend.allocate(None)
    backend.free(held[5].handle)

    assert backend.allocate(None).handle == held[5].handle


def test_a_shard_raises_by_the_page_that_it_was_given(record: Record, backend: SoftBackend) -> None:
    server = InterruptServer(backend)
    reply, _ = server.handle(Allocate(4))
    assert isinstance(reply, Allocated)
    assert reply.page


def test_a_shards_edge_is_in_the_page(record: Record, backend: SoftBackend) -> None:
    server = InterruptServer(backend)

    def call(request: object) -> tuple[object, list[int]]:
        reply, fds = server.handle(request)  # type: ignore[arg-type]
        return reply, [os.dup(fd) for fd in fds]

    proxy = ProxyBackend(call)  # type: ignore[arg-type]
    with InterruptManager(proxy) as interrupts:
        line = interrupts.edge(LegacyConfig(4))
        line.enable()
        line.trigger()
        edges = words(record)[0]
    proxy.close()
    server.close()

    assert edges == 1 << 1
