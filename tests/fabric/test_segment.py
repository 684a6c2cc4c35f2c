"""The segment: made once, attached by its descriptor, refused when damaged; a full /dev/shm is an error."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from types import FrameType

import posix_ipc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio import FabricError, LayoutMismatch
from shardio._core import ffi, lib
from shardio.fabric import Fabric

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


def test_a_segment_has_no_name_and_no_access_for_others(fabric: Fabric) -> None:
    assert os.fstat(fabric.fd).st_nlink == 0
    assert os.fstat(fabric.fd).st_mode & 0o777 == 0o600


def test_a_segment_never_had_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix_ipc, "SharedMemory", lambda *_, **__: pytest.fail("a name was made"))

    Fabric.create(**COUNTS).close()


class Interrupted(Exception):
    """What the signal's handler raises."""


def interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted


@pytest.fixture
def no_nameless_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A /dev/shm that makes no file without a name."""
    real = os.open

    def refusing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refusing)


@pytest.mark.usefixtures("no_nameless_files")
def test_without_nameless_files_the_name_is_gone_too() -> None:
    with Fabric.create(**COUNTS) as fabric:
        assert os.fstat(fabric.fd).st_nlink == 0
        assert os.fstat(fabric.fd).st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("no_nameless_files")
def test_a_signal_while_there_is_a_name_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    real = posix_ipc.SharedMemory

    def interrupted(name: str, *arguments: int, **options: int) -> posix_ipc.SharedMemory:
        memory = real(name, *arguments, **options)
        signal.raise_signal(signal.SIGUSR1)
        return memory

    monkeypatch.setattr(posix_ipc, "SharedMemory", interrupted)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            Fabric.create(**COUNTS)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert [name for name in os.listdir("/dev/shm") if name.startswith(f"shardio-{os.getpid()}-")] == []
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_segment_is_fully_backed(fabric: Fabric) -> None:
    assert os.fstat(fabric.fd).st_blocks * 512 >= fabric.size


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


FULL = """
    import os, sys
    from shardio import FabricError
    from shardio.fabric import Fabric

    try:
        Fabric.create(vcpus=64, shards=8, ranges=256)
    except FabricError as error:
        print(error)
    sys.exit(len(os.listdir("/dev/shm")))
"""


def test_a_full_shared_memory_is_an_error_with_its_cure_and_leaves_nothing() -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
    ):
        pytest.skip("no private mount namespace can be made here (unshare -m): it needs CAP_SYS_ADMIN")
    script = 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$0" -c "$1"'

    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, textwrap.dedent(FULL)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result
    assert "/dev/shm" in result.stdout
    assert "MiB" in result.stdout or "bytes" in result.stdout
