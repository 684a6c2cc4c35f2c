"""shardio.get_include(): header and source, built by gcc and g++, against the contract in shardio.h."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shardio
from shardio import Dispatcher, MutDeviceMmio, PioRange
from shardio._core import lib
from shardio.fabric import Port
from tests.fabric.support import BASE, MMIO, PIO, PORT, Log, bench

INCLUDE = Path(shardio.get_include())
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "native_vcpu" / "vcpu_loop.c"
ANSWERED, NOT_ANSWERED, ABORTED = range(3)
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers"]


class Counter(MutDeviceMmio):
    """Adds up what is written."""

    value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value += value


def build(compiler: list[str], output: Path, *sources: Path) -> Path:
    subprocess.run(
        [*compiler, "-O1", *WARNINGS, f"-I{INCLUDE}", *sources, INCLUDE / "shardio.c", "-o", output],
        check=True,
    )
    return output


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The calls of shardio.h in a shared library."""
    path = tmp_path_factory.mktemp("include") / "libshardio.so"
    calls = ctypes.CDLL(str(build(["cc", "-std=gnu11", "-shared", "-fPIC"], path)))
    calls.shardio_error.restype = ctypes.c_char_p
    return calls


class Opened:
    """A port that was opened through the header: `status`, and its calls."""

    def __init__(self, native: Any, opener: str, argument: object) -> None:
        self.native = native
        self.pointer = ctypes.c_void_p(1)
        self.status = getattr(native, opener)(ctypes.byref(self.pointer), argument)

    def read(self, space: int, address: int, size: int) -> tuple[int, int]:
        value = ctypes.c_uint64(0x55)
        at = ctypes.c_uint64(address)
        return self.native.shardio_read(self.pointer, space, at, size, ctypes.byref(value)), value.value

    def write(self, space: int, address: int, size: int, value: int) -> int:
        return int(
            self.native.shardio_write(
                self.pointer, space, ctypes.c_uint64(address), size, ctypes.c_uint64(value)
            )
        )

    def string(self, direction: str, size: int, data: bytes, count: int) -> tuple[int, bytes]:
        held = ctypes.create_string_buffer(data, len(data))
        call = getattr(self.native, f"shardio_{direction}_string")
        status = call(self.pointer, PIO, ctypes.c_uint64(PORT), size, held, ctypes.c_size_t(count))
        return status, held.raw

    def close(self) -> None:
        self.native.shardio_close(self.pointer)


def described(port: Port) -> bytes:
    """Its text over duplicates of its descriptors, which whoever opens it takes."""
    vcpu, _, _, *bells = port.text.split(",")
    fabric, record, *doorbells = (os.dup(fd) for fd in port.descriptors)
    pairs = (f"{bell.partition('=')[0]}={fd}" for bell, fd in zip(bells, doorbells, strict=True))
    return ",".join((vcpu, str(fabric), str(record), *pairs)).encode()


def let_go(text: bytes) -> None:
    """Closes the descriptors of a text that nobody took."""
    for part in text.decode().split(",")[1:]:
        os.close(int(part.rpartition("=")[2]))


@pytest.fixture
def opened(native: Any) -> Iterator[Any]:
    """A function that opens a port; all are closed at the end."""
    ports: list[Opened] = []

    def make(port: Port) -> Opened:
        ports.append(Opened(native, "shardio_open", described(port)))
        assert ports[-1].status == 0
        return ports[-1]

    yield make
    for port in ports:
        port.close()


LANGUAGES = {"c": ["cc", "-std=gnu11"], "c++": ["c++", "-x", "c++", "-std=gnu++11"]}


@pytest.mark.parametrize("compiler", LANGUAGES.values(), ids=LANGUAGES)
def test_the_example_adds_and_posts_in_a_shard(compiler: list[str], tmp_path: Path) -> None:
    program = build(compiler, tmp_path / "vcpu_loop", EXAMPLE)
    with Dispatcher(vcpus=1, shards=1) as dispatcher:
        counter = dispatcher.add(Counter, mmio=0xD000_0000, size=0x1000)
        dispatcher.add(Counter, mmio=0xD000_1000, size=0x1000, posted=True)
        port = dispatcher.port(0)

        line = [program, port.text, "100"]
        done = subprocess.run(line, pass_fds=port.descriptors, capture_output=True, text=True, timeout=20)

        assert (done.returncode, done.stdout) == (0, "vCPU 0: counter 100, log 4950\n"), done.stderr
        assert counter.call("read", 0, 4) == 100
        assert sum(device.writes for device in dispatcher.statistics().devices) == 200


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_read_gives_what_the_device_has(opened: Any, size: int) -> None:
    with bench() as b:
        device = Log([0x1122_3344_5566_7788])
        owner, _, client = b.connect(device)
        port = opened(client)

        with b.serving(owner):
            answer = port.read(MMIO, BASE + 8, size)

        assert answer == (ANSWERED, 0x1122_3344_5566_7788 & (1 << 8 * size) - 1)
        assert device.seen == [(8, size, None)]


@pytest.mark.parametrize("posted", [False, True], ids=["synchronous", "posted"])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_write_arrives_cut_to_its_width(opened: Any, size: int, posted: bool) -> None:
    with bench() as b:
        device = Log()
        owner, _, client = b.connect(device, posted=posted)
        port = opened(client)

        with b.serving(owner):
            outcome = port.write(MMIO, BASE + 8, size, 0x1122_3344_5566_7788)
            port.read(MMIO, BASE, 1)

        assert outcome == ANSWERED
        assert device.seen[0] == (8, size, 0x1122_3344_5566_7788 & (1 << 8 * size) - 1)


def test_strings_go_whole_in_both_directions(opened: Any) -> None:
    with bench() as b:
        device = Log([1, 2, 3])
        owner, _, client = b.connect(device, PioRange(PORT, 4))
        port = opened(client)

        with b.serving(owner):
            read = port.string("read", 2, bytes(6), 3)
            written = port.string("write", 1, b"abc", 3)

        assert read == (ANSWERED, b"\1\0\2\0\3\0")
        assert written[0] == ANSWERED
        assert [value for _, size, value in device.seen if size == 1] == list(b"abc")


def test_nobodys_address_reads_all_ones_and_drops_writes(opened: Any) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())
        port = opened(client)

        assert port.read(MMIO, 0x9_0000, 2) == (NOT_ANSWERED, 0xFFFF)
        assert port.write(MMIO, 0x9_0000, 2, 1) == NOT_ANSWERED


def test_no_width_or_space_of_an_access_is_refused(opened: Any) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())
        port = opened(client)

        assert [port.read(MMIO, BASE, 3)[0], port.read(2, BASE, 4)[0]] == [-errno.EINVAL] * 2
        assert [port.write(MMIO, BASE, 16, 0), port.write(7, BASE, 4, 0)] == [-errno.EINVAL] * 2
        assert port.string("read", 4, bytes(8), 1025)[0] == -errno.EINVAL
        assert port.string("write", 4, bytes(8), 0)[0] == -errno.EINVAL


def test_a_closed_dispatcher_ends_the_loop(opened: Any) -> None:
    with bench() as b:
        _, _, client = b.connect(Log())
        port = opened(client)
        client.abort()

        assert port.read(MMIO, BASE, 1)[0] == ABORTED
        assert port.write(MMIO, BASE, 1, 1) == ABORTED


def test_a_port_has_one_user_at_a_time(native: Any, opened: Any) -> None:
    with bench() as b:
        owner, _, client = b.connect(Log([5]))
        port = opened(client)
        text = described(client)

        again = Opened(native, "shardio_open", text)
        native.shardio_close(port.pointer)
        port.pointer = None
        with b.serving(owner):
            after = client.read(MMIO, BASE, 1)

        let_go(text)
        assert (again.status, again.pointer.value) == (-errno.EBUSY, None)
        assert after[1] == 5


def test_a_port_that_another_process_uses_is_refused(native: Any) -> None:
    with bench() as b, subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        _, _, client = b.connect(Log())
        lib.sio_port_exchange(client._record.view, lib.SIO_PORT_FREE, other.pid)
        text = described(client)

        status = Opened(native, "shardio_open", text).status
        other.communicate()

        let_go(text)
        assert status == -errno.EBUSY


def test_a_port_whose_user_died_is_free(opened: Any) -> None:
    with bench() as b:
        owner, _, client = b.connect(Log([5]))
        dead = subprocess.Popen(["true"])
        dead.wait()
        lib.sio_port_exchange(client._record.view, lib.SIO_PORT_FREE, dead.pid)
        port = opened(client)

        with b.serving(owner):
            assert port.read(MMIO, BASE, 1) == (ANSWERED, 5)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        *(
            (text, errno.EINVAL)
            for text in (b"", b"0", b"0,1", b"0,1,2,", b"0,1,2,3", b"-1,1,2", b"0,1,2,0=x")
        ),
        (b"9999,1,2", errno.EINVAL),
        (b"0,999998,999999", errno.EBADF),
    ],
)
def test_what_describes_no_port_is_refused(native: Any, text: bytes, error: int) -> None:
    port = Opened(native, "shardio_open", text)

    assert (port.status, port.pointer.value) == (-error, None)
    assert native.shardio_error(port.status)


def test_descriptors_of_something_else_are_refused(native: Any) -> None:
    with open(os.devnull, "r+b") as null:
        port = Opened(native, "shardio_open", f"0,{null.fileno()},{null.fileno()}".encode())

    assert port.status == -errno.EPROTO


def test_a_port_is_sent_to_a_program_that_inherits_nothing(native: Any, tmp_path: Path) -> None:
    path = tmp_path / "port"
    with bench() as b, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        owner, _, client = b.connect(Log([7]))
        listening.bind(str(path))
        listening.listen()

        def hand_over() -> None:
            connection, _ = listening.accept()
            with connection:
                client.send(connection)

        sender = threading.Thread(target=hand_over)
        sender.start()
        port = Opened(native, "shardio_open_path", str(path).encode())
        sender.join()
        with b.serving(owner):
            answer = port.read(MMIO, BASE, 4)
        port.close()

        assert (port.status, answer) == (0, (ANSWERED, 7))


def test_a_socket_without_a_port_is_an_error(native: Any, tmp_path: Path) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here:
        there.close()
        assert Opened(native, "shardio_open_from", here.fileno()).status == -errno.EPIPE
    assert Opened(native, "shardio_open_path", str(tmp_path / "none").encode()).status == -errno.ENOENT
