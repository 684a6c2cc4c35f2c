"""A port's accesses as the core's type makes them: values, buffers, errors, and the interpreter meanwhile."""

from __future__ import annotations

import array
import contextlib
import inspect
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import FabricError, InvalidAddress, InvalidBuffer
from shardio._core import lib
from shardio.fabric import Outcome, Port
from tests.e2e.support import until
from tests.fabric.support import BASE, MMIO, PIO, Log, bench


@contextlib.contextmanager
def answered(*values: int) -> Iterator[tuple[Port, Log]]:
    """A port whose device gives these values and notes what it sees."""
    with bench() as b:
        device = Log(values)
        owner, _, port = b.connect(device)
        with b.serving(owner):
            yield port, device


WIDTHS = st.sampled_from([1, 2, 4, 8])
VALUES = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 255, 256, 2**30 - 1, 2**30, 2**60 - 1, 2**60, 2**64 - 1])
)


@given(VALUES, WIDTHS)
def test_a_value_read_is_the_device_s_by_register_and_by_buffer(value: int, size: int) -> None:
    cut = value & (1 << 8 * size) - 1
    with answered(value, value) as (port, _):
        data = bytearray(size)
        told = port.read(MMIO, BASE, size)
        port.mmio_read(BASE, data)

    assert told == (Outcome.ANSWERED, cut)
    assert int.from_bytes(data, "little") == cut


@given(VALUES, WIDTHS)
def test_a_value_written_reaches_the_device_by_register_and_by_buffer(value: int, size: int) -> None:
    cut = value & (1 << 8 * size) - 1
    with answered() as (port, device):
        told = port.write(MMIO, BASE, size, value)
        port.mmio_write(BASE, cut.to_bytes(size, "little"))

    assert told is Outcome.ANSWERED
    assert device.seen == [(0, size, cut)] * 2


@pytest.mark.parametrize(
    "make", [bytearray, lambda n: memoryview(bytearray(n)), lambda n: array.array("B", bytes(n))]
)
def test_any_writable_buffer_of_the_width_is_filled(make: Any) -> None:
    with answered(0x04030201) as (port, _):
        data = make(4)
        port.mmio_read(BASE, data)

    assert bytes(data) == b"\1\2\3\4"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda b: array.array("I", b)])
def test_any_buffer_of_the_width_is_written(make: Any) -> None:
    with answered() as (port, device):
        port.mmio_write(BASE, make(b"\1\2\3\4"))

    assert device.seen == [(0, 4, 0x04030201)]


def test_a_numpy_like_index_is_a_number() -> None:
    class Index:
        def __index__(self) -> int:
            return BASE

    with answered(7) as (port, _):
        assert port.read(MMIO, Index(), 4) == (Outcome.ANSWERED, 7)  # type: ignore[arg-type]


REFUSED = [
    (lambda p: p.mmio_read(BASE, b"abcd"), InvalidBuffer, "read-only bytes"),
    (lambda p: p.mmio_read(BASE, 4), InvalidBuffer, "int cannot carry"),
    (lambda p: p.mmio_write(BASE, 4), InvalidBuffer, "int cannot carry"),
    (lambda p: p.mmio_read(BASE, memoryview(bytearray(8))[::2]), InvalidBuffer, "memoryview cannot carry"),
    (lambda p: p.mmio_write(BASE, memoryview(bytearray(8))[::2]), InvalidBuffer, "memoryview cannot carry"),
    (lambda p: p.write_string(MMIO, BASE, 4, None), InvalidBuffer, "NoneType cannot carry"),
    (lambda p: p.mmio_read(BASE, bytearray(3)), FabricError, "no access of 3 bytes"),
    (lambda p: p.mmio_write(BASE, bytes(3)), FabricError, "no access of 3 bytes"),
    (lambda p: p.mmio_read(BASE, bytearray()), FabricError, "no access of 0 bytes"),
    (lambda p: p.mmio_write(BASE, bytes(16)), FabricError, "no access of 16 bytes"),
    (lambda p: p.read(2, BASE, 4), FabricError, "space is 0"),
    (lambda p: p.write(2, BASE, 4, 0), FabricError, "space is 0"),
    (lambda p: p.read(-1, BASE, 4), FabricError, "space is 0"),
    (lambda p: p.read(MMIO, BASE, 2**32 + 4), FabricError, "no access of"),
    (lambda p: p.read_string(2, BASE, 4, 1), FabricError, "space is 0"),
    (lambda p: p.write_string(2, BASE, 4, bytes(4)), FabricError, "space is 0"),
    (lambda p: p.read_string(MMIO, BASE, 3, 1), FabricError, "no string of 3 bytes"),
    (lambda p: p.write_string(MMIO, BASE, 4, b""), FabricError, "no string of 0 bytes"),
    (lambda p: p.write_string(MMIO, BASE, 4, bytes(6)), FabricError, "no string of 6 bytes"),
    (lambda p: p.read_string(MMIO, BASE, 4, 1025), FabricError, "at most 4096 bytes"),
    (lambda p: p.mmio_read(2**64, bytearray(4)), InvalidAddress, "outside the MMIO space"),
    (lambda p: p.mmio_write(-1, bytes(4)), InvalidAddress, "outside the MMIO space"),
    (lambda p: p.read(MMIO, "x", 4), TypeError, "str"),
    (lambda p: p.write(MMIO, BASE, 4, 1.5), TypeError, "float"),
    (lambda p: p.write(MMIO, BASE, 4, 2**64), OverflowError, "int"),
    (lambda p: p.write(MMIO, BASE, 4, -1), OverflowError, "negative"),
    (lambda p: p.read(MMIO, BASE), TypeError, r"read\(\) takes 3 arguments \(2 given\)"),
]


@pytest.mark.parametrize(("access", "error", "says"), REFUSED)
def test_what_is_no_access_is_refused_and_the_port_stays_usable(
    access: Any, error: type[Exception], says: str
) -> None:
    with answered(5) as (port, device):
        with pytest.raises(error, match=says):
            access(port)

        assert port.read(MMIO, BASE, 4) == (Outcome.ANSWERED, 5)
        assert len(device.seen) == 1


def test_a_string_in_a_space_that_is_not_there_reads_no_route() -> None:
    """A space beyond the two (KVM has PIO and MMIO) indexed what lies behind the client's routes."""
    with answered() as (port, _), pytest.raises(FabricError, match="no string"):
        port.read_string(PIO + 7, BASE, 4, 1)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_a_wait_gives_the_interpreter_up_and_the_port_says_that_it_is_at_work(write: bool) -> None:
    told: list[object] = []
    with bench() as b:
        _, _, port = b.connect(Log([1]))
        client = port.view

        def access() -> None:
            told.append(port.write(MMIO, BASE, 4, 1) if write else port.read(MMIO, BASE, 4)[0])

        thread = threading.Thread(target=access)
        thread.start()  # nobody answers: the access waits until it is aborted
        until(lambda: lib.sio_client_pending(client) >> 62 == lib.SIO_PENDING_SYNC, "it waits")
        uses = [
            lambda: port.read(MMIO, BASE, 4), lambda: port.write(MMIO, BASE, 4, 1),
            lambda: port.mmio_read(BASE, bytearray(4)), lambda: port.mmio_write(BASE, bytes(4)),
            lambda: port.read_string(MMIO, BASE, 4, 1), lambda: port.write_string(MMIO, BASE, 4, bytes(4)),
            port.close,
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(FabricError, match="at work"):
                use()
        port.abort()
        thread.join()

    assert told == [Outcome.ABORTED]


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_an_access_holds_on_to_nothing(write: bool) -> None:
    value, data = 2**40 + 12345, bytearray(4)
    with answered() as (port, _):
        for _ in range(2):
            before = sys.getrefcount(Outcome.ANSWERED), sys.getrefcount(data), sys.getrefcount(value)
            for _ in range(500):
                if write:
                    port.write(MMIO, BASE, 8, value)
                    port.mmio_write(BASE, data)
                else:
                    port.read(MMIO, BASE, 8)
                    port.mmio_read(BASE, data)
            after = sys.getrefcount(Outcome.ANSWERED), sys.getrefcount(data), sys.getrefcount(value)
        data.append(0)  # no view of it is left

    assert [abs(a - b) < 50 for a, b in zip(after, before, strict=True)] == [True] * 3


def test_the_methods_are_documented() -> None:
    strings, buffers = ["read_string", "write_string"], ["pio_read", "pio_write", "mmio_read", "mmio_write"]
    for name in ["read", "write", *strings, *buffers]:
        assert inspect.getdoc(getattr(Port, name))
        assert next(iter(inspect.signature(getattr(Port, name)).parameters)) == "self"
