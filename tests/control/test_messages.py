"""shardio.control.messages: what is packed comes back, what is malformed is refused."""

from __future__ import annotations

import msgspec
import pytest

from shardio.address import Space
from shardio.control import messages
from shardio.control.messages import HEADER, Done, Refused, Request, Status
from shardio.dispatcher.statistics import ExitInfo, MachineStatistics
from shardio.errors import MachineError
from shardio.fabric.statistics import LastAccess
from shardio.vcpu import VcpuState, VcpuStatistics
from shardio.vcpu.interface import ExitCounts

LAST = LastAccess(Space.PIO, 0x80, 1, False, 7)
VCPU = VcpuStatistics(
    state=VcpuState.RUNNING, exits=ExitCounts({"IO": 3}), string_exits=0, interrupted=0, running_ns=5,
    waiting_ns=6, spawns=1, unclaimed_reads=1, unclaimed_writes=0, crossing=0,
    last_unclaimed=LAST, last_crossing=None, lost_wakeups=0, malformed=0, pid=17, repairs=ExitCounts({}),
)  # fmt: skip
STATUS = Status("router", 17, "running", 9, ExitInfo("exit", status=3), MachineStatistics((VCPU,), (), ()))


@pytest.mark.parametrize("reply", [STATUS, Done(), Refused("no", "mend it")])
def test_reply_comes_back(reply: messages.Reply) -> None:
    body = messages.packed(reply)[HEADER.size :]

    assert messages.unpacked_reply(body) == reply


def test_request_comes_back_behind_its_length() -> None:
    packed = messages.packed(Request("stop"))

    assert HEADER.unpack(packed[: HEADER.size]) == (len(packed) - HEADER.size,)
    assert messages.unpacked_request(packed[HEADER.size :]) == Request("stop")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "malformed"),
        (b"\xff\xff", "malformed"),
        (msgspec.msgpack.encode([1, 2]), "malformed"),
        (msgspec.msgpack.encode({"command": "status"}), "malformed"),
        (msgspec.msgpack.encode({"command": "explode", "version": 1}), "malformed"),
        (msgspec.msgpack.encode({"dance": 1, "version": 7}), "version 7, and the machine's is 1"),
    ],
)
def test_request_that_makes_no_sense_is_refused(body: bytes, part: str) -> None:
    with pytest.raises(MachineError, match=part):
        messages.unpacked_request(body)


def test_reply_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(MachineError, match="makes no sense"):
        messages.unpacked_reply(b"\x81")


def test_statistics_are_json() -> None:
    assert '"exits":{"IO":3}' in messages.json(STATUS)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 33, "a\0"])
def test_a_name_that_the_socket_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(MachineError, match="cannot be called"):
        messages.address(1, name)
