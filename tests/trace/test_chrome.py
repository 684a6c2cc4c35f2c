"""The file for Perfetto, read by the format's rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shardio.trace import Access, Doorbell, Interrupt, Life, Lost, Record
from shardio.trace.chrome import ChromeWriter
from shardio.trace.values import Outcome, Way
from tests.trace.reading import Chart, read

UPTIME = 2**53 + 1
"""Nanoseconds of an uptime of 104 days: a float of microseconds would not tell one from the next."""


def access(time_ns: int, **changes: Any) -> Access:
    """A read of 4 bytes that takes 1000 ns, 200 of them in the device, from 300 on."""
    told: dict[str, Any] = {
        "vcpu": 0, "device": "uart", "shard": "io", "space": "pio", "address": 0x3F8, "width": 4,
        "write": False, "value": 7, "outcome": Outcome.ANSWERED, "way": Way.WAITED, "wait_ns": 1000,
        "service_time_ns": time_ns + 300, "service_ns": 200,
    }  # fmt: skip
    return Access(time_ns, **told | changes)


def chart(path: Path, *records: Record) -> Chart:
    """What a viewer shows of these records."""
    file = path / "trace.json"
    with file.open("w") as stream:
        writer = ChromeWriter(stream)
        writer.write(list(records))
        writer.finish()
    return read(file)


def test_an_access_is_a_slice_on_its_vcpu_and_on_its_device_and_a_flow_there_and_back(tmp_path: Path) -> None:
    seen = chart(tmp_path, access(UPTIME))

    [vcpu], [device] = seen.on("vCPU 0"), seen.on("uart @io")
    assert (vcpu.end - vcpu.begin, device.end - device.begin) == (1, device.end - device.begin)
    assert int(vcpu.begin * 1000) == UPTIME
    assert int(device.begin * 1000) == UPTIME + 300
    assert int(device.end * 1000) == UPTIME + 500
    assert seen.flows == {1: [vcpu, device, vcpu]}
    assert vcpu.arguments == {
        "device": "uart", "address": "0x3f8", "width": 4, "value": "0x7", "outcome": "answered",
        "way": "waited",
    }  # fmt: skip


def test_a_posted_writes_flow_ends_at_its_device(tmp_path: Path) -> None:
    late = access(100, write=True, way=Way.POSTED, wait_ns=20, service_time_ns=5000)
    seen = chart(tmp_path, late, access(200))

    first, second = seen.on("vCPU 0")
    served_second, served_first = seen.on("uart @io")
    assert seen.flows == {1: [first, served_first], 2: [second, served_second, second]}


def test_an_access_that_no_device_claims_is_on_its_vcpu_alone(tmp_path: Path) -> None:
    nowhere = access(
        100, device=None, shard=None, outcome=Outcome.UNCLAIMED, way=Way.NOWHERE, service_time_ns=None,
        service_ns=None,
    )  # fmt: skip
    seen = chart(tmp_path, nowhere)

    [only] = seen.slices
    assert only.name == "unclaimed read 0x3f8"
    assert seen.flows == {}


def test_a_coalesced_write_is_on_its_device_alone(tmp_path: Path) -> None:
    write = access(100, vcpu=None, write=True, way=Way.COALESCED, wait_ns=None, service_time_ns=100)
    seen = chart(tmp_path, write)

    assert [seen.tracks[each.track] for each in seen.slices] == ["uart @io"]
    assert seen.flows == {}


def test_accesses_that_take_no_time_still_have_flows_that_bind(tmp_path: Path) -> None:
    seen = chart(tmp_path, access(100, wait_ns=0, service_time_ns=100, service_ns=0))

    assert len(seen.flows[1]) == 3


def test_vcpus_devices_and_replicas_have_tracks_of_their_own(tmp_path: Path) -> None:
    seen = chart(tmp_path, access(100), access(150, vcpu=1, shard="other"), access(5000, device="rtc"))

    assert set(seen.tracks.values()) == {"vCPU 0", "vCPU 1", "uart @io", "uart @other", "rtc @io"}
    assert {seen.processes[pid] for pid, _ in seen.tracks} == {"vCPUs", "devices"}


def test_what_is_no_access_is_an_instant(tmp_path: Path) -> None:
    seen = chart(
        tmp_path,
        Interrupt(1, "raised", 4, shard="io"), Interrupt(2, "delivered", 4, vcpu=0),
        Interrupt(3, "delivered", 0x20, vcpu=0, vector=True), Doorbell(4, "io", vcpu=1),
        Doorbell(5, "io", device="net", index=2, times=3), Life(6, "shard io", "died"), Lost(7, "vCPU 0", 9),
    )  # fmt: skip

    assert [(seen.tracks[track], name) for track, name in seen.instants] == [
        ("interrupts @io", "raised 4"), ("vCPU 0", "line 4 delivered"), ("vCPU 0", "vector 32 delivered"),
        ("vCPU 1", "wakes io"), ("net @io", "doorbell 2"), ("shard io", "died"),
        ("vCPU 0", "9 records lost"),
    ]  # fmt: skip


def test_names_may_hold_anything(tmp_path: Path) -> None:
    seen = chart(tmp_path, access(1, device='a "quoted"\n\\ name'))

    assert 'a "quoted"\n\\ name @io' in seen.tracks.values()
