"""The segment: made once, attached by its descriptor, refused when damaged; no memory is an error."""

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio import FabricError, LayoutMismatch
from shardio._core import ffi, lib
from shardio.fabric import Fabric, shared

COUNTS = {"vcpus": 2, "shards": 3, "ranges": 5, "posted_slots": 16}


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    """A small one."""
    with Fabric.create(**COUNTS) as made:
        yield made


def test_a_peer_sees_what_the_creator_wrote(fabric: Fabric) -> None:
    with Fabric.attach(fabric.fd) as peer:
        fabric.view.shard[2].owner_epoch = 7

        assert (peer.vcpus, peer.shards, peer.ranges, peer.posted_slots, peer.size) == (
            2,
            3,
            5,
            16,
            fabric.size,
        )
        assert peer.view.shard[2].owner_epoch == 7


def test_the_creator_sees_what_a_peer_writes(fabric: Fabric) -> None:
    with Fabric.attach(fabric.fd) as peer:
        lib.sio_mailbox(peer.view, 2, 1).data = 9

        assert lib.sio_mailbox(fabric.view, 2, 1).data == 9


def test_what_an_owner_counts_of_interrupts_is_seen(fabric: Fabric) -> None:
    with Fabric.attach(fabric.fd) as peer:
        held, words = peer.view, peer.interrupts(2, 4)
        words[0] += 3
        words[1] += 1
        found, beside = fabric.service(2, 4), fabric.service(2, 3)
        del held, words

    assert (found.interrupts, found.interrupts_dropped) == (3, 1)
    assert (beside.interrupts, beside.interrupts_dropped) == (0, 0)


def test_a_segment_has_no_name(fabric: Fabric) -> None:
    assert os.fstat(fabric.fd).st_nlink == 0


@pytest.mark.parametrize("change", [-1, 1])
def test_nobody_changes_a_segments_size(fabric: Fabric, change: int) -> None:
    with Fabric.attach(fabric.fd) as peer:
        with pytest.raises(PermissionError):
            os.ftruncate(peer.fd, fabric.size + change * mmap.PAGESIZE)
        with pytest.raises(PermissionError):
            fcntl.fcntl(peer.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)

        assert os.fstat(fabric.fd).st_size == fabric.size


def backed_size(fabric: Fabric) -> tuple[int, int]:
    """What is backed from the start, and what comes before all that only tracing needs."""
    untraced = ffi.new("uint64_t *")
    counts = fabric.vcpus, fabric.shards, fabric.ranges, fabric.posted_slots
    return lib.sio_fabric_backed_size(*counts, untraced), untraced[0]


def test_a_segment_is_backed_but_for_histograms_and_what_tracing_needs(fabric: Fabric) -> None:
    backed, untraced = backed_size(fabric)
    assert 0 < backed < untraced < fabric.size
    assert backed <= fabric.memory < untraced
    assert fabric.memory == os.fstat(fabric.fd).st_blocks * 512

    fabric.back_trace()

    assert fabric.memory >= backed + fabric.size - untraced


def test_all_histograms_are_backed_where_a_write_could_fail_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_may_fail_late", lambda _fd: True)
    with Fabric.create(**COUNTS) as made:
        assert made.memory >= backed_size(made)[1]


def test_a_large_machine_takes_memory_for_what_it_touches() -> None:
    """64 vCPUs, 16 shards and 10,000 ranges took 473 MiB, nearly all of it histograms of ranges that a vCPU
    never touched.
    """
    with Fabric.create(vcpus=64, shards=16, ranges=10_000) as made:
        before = made.memory
        seen = [made.waits(vcpu, index) for vcpu in range(0, 64, 9) for index in range(0, 10_000, 99)]
        seen += [made.service(shard, index) for shard in range(16) for index in range(0, 10_000, 99)]

        assert before < 20 * 2**20
        assert not any(each.samples for each in seen)
        assert made.memory == before, "to read what was never written gave it memory"


def test_closing_twice_is_closing_once() -> None:
    made = Fabric.create(**COUNTS)
    made.close()
    made.close()
    assert made.fd == -1


FIELDS = ["magic", "layout_version", "header_size", "total_size", "vcpus", "shards", "ranges", "posted_slots"]


@pytest.mark.parametrize("field", FIELDS)
@given(delta=st.one_of(st.sampled_from([-1, 1]), st.integers(1, 2**32 - 1)))
@settings(max_examples=20)
def test_a_header_with_one_wrong_field_is_refused(field: str, delta: int) -> None:
    with Fabric.create(**COUNTS) as made:
        header = ffi.cast("struct sio_header *", made.view.base)
        wide = 64 if field in ("magic", "total_size") else 32
        setattr(header, field, (getattr(header, field) + delta) % 2**wide)

        with pytest.raises(FabricError):
            Fabric.attach(made.fd)


@pytest.mark.parametrize("rate", [0, 1, 2**64 - 1])
def test_a_header_with_an_impossible_clock_is_refused(fabric: Fabric, rate: int) -> None:
    ffi.cast("struct sio_header *", fabric.view.base).ticks_to_ns_32 = rate

    with pytest.raises(FabricError, match="damaged"):
        Fabric.attach(fabric.fd)


def test_a_peer_of_another_version_is_refused_by_name(fabric: Fabric) -> None:
    ffi.cast("struct sio_header *", fabric.view.base).layout_version = 99

    with pytest.raises(LayoutMismatch, match="layout version") as caught:
        Fabric.attach(fabric.fd)

    assert (caught.value.found, caught.value.expected) == (99, lib.SIO_LAYOUT_VERSION)


@pytest.mark.parametrize("size", [1, 64, 4096, 1 << 20])
def test_a_descriptor_that_is_no_fabric_is_refused(size: int) -> None:
    fd = os.memfd_create("not a fabric")
    try:
        os.ftruncate(fd, size)
        with pytest.raises(FabricError, match="no fabric"):
            Fabric.attach(fd)
    finally:
        os.close(fd)


def test_a_cut_segment_is_refused(fabric: Fabric) -> None:
    fd = os.memfd_create("cut")
    try:
        with mmap.mmap(fabric.fd, 0) as whole:
            os.write(fd, whole[: fabric.size - mmap.PAGESIZE])
        with pytest.raises(FabricError, match="damaged"):
            Fabric.attach(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "counts",
    [
        {"vcpus": 0},
        {"vcpus": lib.SIO_MAX_VCPUS + 1},
        {"shards": 0},
        {"shards": lib.SIO_MAX_SHARDS + 1},
        {"ranges": 0},
        {"ranges": lib.SIO_MAX_RANGES + 1},
        {"posted_slots": 1},
        {"posted_slots": 3},
        {"posted_slots": 2 * lib.SIO_MAX_POSTED},
    ],
)
def test_counts_out_of_bounds_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(FabricError, match="no fabric of"):
        Fabric.create(**{**COUNTS, **counts})


REFUSED = """
    import os, resource, sys
    from shardio import FabricError
    from shardio.fabric import Fabric
    from tests.seccomp import deny

    {limit}
    before = len(os.listdir("/proc/self/fd"))
    try:
        Fabric.create(vcpus=64, shards=8, ranges=256)
    except FabricError as error:
        print(error)
    sys.exit(len(os.listdir("/proc/self/fd")) - before)
"""


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (4096,))", ("MiB of shared memory", "ulimit -f")),
    ],
    ids=["too-large"],
)
def test_a_segment_that_cannot_be_made_is_an_error_with_its_hint(limit: str, told: tuple[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REFUSED).format(limit=limit)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result
    assert all(part in result.stdout for part in told), result.stdout


UNSEALED = """
    import logging, os
    from shardio.fabric import Fabric
    from tests.seccomp import deny

    logging.basicConfig()
    before = set(os.listdir("/dev/shm"))
    deny("memfd_create")
    with Fabric.create(vcpus=2, shards=1) as fabric, Fabric.attach(fabric.fd) as peer:
        fabric.view.vcpu[1].unclaimed_reads = 7
        print(peer.view.vcpu[1].unclaimed_reads, set(os.listdir("/dev/shm")) - before)
"""


def test_without_memfd_a_segment_is_posix_shared_memory_that_has_no_name() -> None:
    line = [sys.executable, "-c", textwrap.dedent(UNSEALED)]
    result = subprocess.run(line, capture_output=True, text=True, check=True)

    assert result.stdout == "7 set()\n"
    assert "memfd_create is refused" in result.stderr


def test_to_count_interrupts_takes_no_memory_for_histograms() -> None:
    """Each device of a shard has such counters, whether it is ever asked or not."""
    with Fabric.create(vcpus=1, shards=1, ranges=10_000) as made:
        before = made.memory

        for index in range(0, 10_000, 50):
            made.interrupts(0, index)[0] += 1
        found = [made.service(0, index).interrupts for index in range(0, 10_000, 50)]

        assert found == [1] * 200
        assert made.memory == before
