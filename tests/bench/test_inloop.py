"""The floor of a real exit: accesses answered where KVM_RUN returns, without a worker."""

from __future__ import annotations

import pytest

from shardio.bench.errors import BenchError
from shardio.bench.exits import GUESTS
from shardio.bench.inloop import InLoop
from shardio.errors import ShardioError

pytestmark = pytest.mark.kvm


@pytest.mark.parametrize("guest", GUESTS)
def test_every_guest_goes_on(guest: str) -> None:
    with InLoop(GUESTS[guest].code()) as loop:
        assert loop.exit_ns() > 0


def test_vcpus_run_side_by_side() -> None:
    with InLoop(GUESTS["pio-in"].code(), [-1, -1]) as loop:
        assert loop.exit_ns() > 0


def test_a_read_gives_zero() -> None:
    # again: in $0x80, %al; mov %al, 0x3000; jmp again. Its RAM holds ones there before.
    with InLoop(b"\xe4\x80\xa2\x00\x30\x00\x00\xeb\xf7") as loop:
        loop.memory.write(0x3000, b"\xff")
        loop.exit_ns()

        assert loop.memory.read(0x3000, 1) == b"\0"


def test_a_guest_that_halts_is_an_error() -> None:
    with InLoop(b"\xf4") as loop, pytest.raises(BenchError, match="the guest does not go on"):
        loop.exit_ns()


def test_code_that_does_not_fit_leaves_nothing_open() -> None:
    with pytest.raises(ShardioError):
        InLoop(b"\xf4" * (1 << 20))
