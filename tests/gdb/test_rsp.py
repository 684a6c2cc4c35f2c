"""The protocol's framing, against every way to cut a stream and anything between packets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.gdb.rsp import (
    INTERRUPT,
    MOST_BYTES,
    NACK,
    Again,
    Broken,
    Event,
    Framer,
    Interrupt,
    Packet,
    escape,
    frame,
)

bodies = st.binary(max_size=60)
noise = st.binary(max_size=10).map(lambda data: bytes(byte for byte in data if byte not in b"$\x03-"))


def fed(stream: bytes, cuts: list[int]) -> list[Event]:
    """What comes of a stream that is handed over in pieces."""
    framer, found, at = Framer(), [], 0
    for cut in (*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)):
        found += framer.feed(stream[at:cut])
        at = max(at, cut)
    return found


@given(st.lists(st.tuples(noise, bodies), max_size=5), st.lists(st.integers(0, 1000), max_size=8))
def test_packets_arrive_whole_however_the_stream_is_cut(
    parts: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(before + frame(escape(body)) for before, body in parts)
    assert fed(stream, cuts) == [Packet(body) for _, body in parts]


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=4))
def test_anything_may_come_and_a_good_packet_behind_its_end_is_found(data: bytes, cuts: list[int]) -> None:
    found = fed(data + b"#00" + frame(b"g"), cuts)
    assert found[-1] in (Packet(b"g"), Broken(), Interrupt(), Again())
    assert fed(data + b"#00#00" + frame(b"g") + frame(b"g"), cuts)[-1] == Packet(b"g")


@given(bodies, st.integers(0, 255))
def test_a_wrong_checksum_makes_no_packet(body: bytes, wrong: int) -> None:
    good = frame(escape(body))
    framed = good[:-2] + b"%02x" % wrong
    assert fed(framed, []) == ([Packet(body)] if framed == good else [Broken()])


@pytest.mark.parametrize("digits", [b"zz", b"+5", b" 5", b"\xff\xff"])
def test_a_checksum_that_is_no_number_makes_no_packet(digits: bytes) -> None:
    assert fed(b"$g#" + digits + frame(b"?"), []) == [Broken(), Packet(b"?")]


def test_a_packet_that_is_too_long_is_broken_and_costs_no_memory() -> None:
    framer = Framer()
    assert framer.feed(b"$" + b"a" * (4 * MOST_BYTES)) == []
    assert len(framer._body or b"") == MOST_BYTES + 1
    assert framer.feed(b"#00") == [Broken()]


def test_what_is_no_packet() -> None:
    assert fed(b"+" + INTERRUPT + NACK + b"+", []) == [Interrupt(), Again()]


def test_an_interrupt_byte_inside_a_packet_is_data() -> None:
    assert fed(frame(b"X0,1:" + INTERRUPT), []) == [Packet(b"X0,1:\x03")]
