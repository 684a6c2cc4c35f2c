"""ByteOutput: files, pipes, sockets and terminals, none of which may block the shard or lose a byte."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import tty

import pytest

from shardio.devices import DeviceOptionError
from shardio.devices.byte_fd import ByteFd
from shardio.devices.byte_output import ByteOutput
from tests.devices.support import RecordingHost


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def drain(fd, count):
    data = b""
    while len(data) < count:
        data += os.read(fd, 1 << 16)
    return data


def make(spec, **limits):
    return ByteOutput(spec, device="Device", **limits)


def test_a_file_is_appended_to(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"old ")
    output = make(f"file:{path}")
    output.write(b"new")
    output.close()
    assert path.read_bytes() == b"old new"


def test_a_file_that_cannot_be_opened_is_named_with_the_hint(tmp_path):
    with pytest.raises(DeviceOptionError, match=r"missing/log.*No such file"):
        make(f"file:{tmp_path}/missing/log").open()


def test_null_counts_and_keeps_nothing():
    output = make("null")
    output.write(b"123")
    output.close()
    assert (output.written, output.backlog) == (3, 0)


def test_stdout_and_stderr_are_the_processes_own(capfd):
    for spec, text in (("stdout", b"to out"), ("stderr", b"to err")):
        output = make(spec)
        output.write(text)
        output.close()
    assert capfd.readouterr() == ("to out", "to err")


def test_a_redirected_stdout_keeps_its_offset(tmp_path):
    with (tmp_path / "out").open("wb", buffering=0) as file:
        file.write(b"before ")
        output = make(f"fd:{file.fileno()}")
        output.write(b"from the device ")
        output.close()
        file.write(b"after")
    assert (tmp_path / "out").read_bytes() == b"before from the device after"


def test_the_descriptors_own_flags_stay_as_they_are(pipe):
    reader, writer = pipe
    before = fcntl.fcntl(writer, fcntl.F_GETFL)
    output = make(f"fd:{writer}")
    output.write(b"x")
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == before
    output.close()
    assert os.read(reader, 10) == b"x"


def test_a_full_pipe_does_not_block_and_the_loop_flushes_it_in_order(pipe):
    reader, writer = pipe
    output = make(f"fd:{writer}")
    data = b"".join(b"%08d" % number for number in range(1 << 15))

    async def write_then_read():
        loop = asyncio.get_running_loop()
        output.attach(RecordingHost(loop, pass_fds=True))
        for at in range(0, len(data), 4096):
            output.write(data[at : at + 4096])
        assert output.backlog > 0
        received = await loop.run_in_executor(None, drain, reader, len(data))
        output.close()
        return received

    assert asyncio.run(write_then_read()) == data
    assert (output.written, output.dropped) == (len(data), 0)


def test_full_holds_back_at_the_limit_and_on_room_ends_it(pipe):
    reader, writer = pipe
    output = make(f"fd:{writer}", limit=1000)

    async def fill_then_drain():
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        output.attach(RecordingHost(loop, pass_fds=True))
        output.on_room = room.set
        output.write(bytes(1 << 17))
        assert output.full
        await loop.run_in_executor(None, drain, reader, 1 << 17)
        await room.wait()
        assert not output.full
        output.close()

    asyncio.run(fill_then_drain())


def test_close_flushes_what_a_slow_reader_has_not_taken(pipe):
    reader, writer = pipe
    output = make(f"fd:{writer}")
    output.write(bytes(1 << 18))

    async def close_while_reading():
        reading = asyncio.get_running_loop().run_in_executor(None, drain, reader, 1 << 18)
        await asyncio.to_thread(output.close)
        return await reading

    assert len(asyncio.run(close_while_reading())) == 1 << 18
    assert output.dropped == 0


def test_close_gives_up_when_nobody_reads(pipe):
    output = make(f"fd:{pipe[1]}", stall_ms=0)
    output.write(bytes(1 << 17))
    backlog = output.backlog
    output.close()
    assert output.dropped == backlog > 0


def test_a_broken_pipe_drops_and_reports_once(pipe, caplog):
    reader, writer = os.pipe()
    output = make(f"fd:{writer}")
    output.open()
    os.close(reader)
    os.close(writer)
    output.write(b"gone")
    output.write(b"gone too")
    output.close()
    assert output.dropped == 12
    assert len(caplog.records) == 1


def test_a_socket_keeps_its_flags_and_takes_a_backlog():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output = make(f"fd:{ours.fileno()}")

        async def write_then_read():
            loop = asyncio.get_running_loop()
            output.attach(RecordingHost(loop, pass_fds=True))
            output.write(bytes(1 << 20))
            assert ours.getblocking()
            received = await loop.run_in_executor(None, drain, theirs.fileno(), 1 << 20)
            output.close()
            return received

        assert len(asyncio.run(write_then_read())) == 1 << 20


def test_a_pty_gives_its_path_and_what_is_written():
    output = make("pty")
    output.open()
    terminal = os.open(output.pty_path, os.O_RDWR | os.O_NOCTTY)
    output.write(b"hello\n")
    assert drain(terminal, 6) == b"hello\n"
    os.close(terminal)
    output.close()


def test_a_pty_that_nobody_reads_drops_the_oldest():
    output = make("pty", limit=100)
    output.write(bytes(1 << 20))
    assert output.backlog == 100
    assert not output.full
    assert output.dropped > 0
    output.close()


def test_a_terminal_that_cannot_be_opened_anew_is_still_not_blocked():
    master, slave = os.openpty()
    tty.setraw(slave)
    guarded = ByteFd(os.dup(slave), guarded=True)
    sent = 0
    while taken := guarded.write(bytes(1000)):
        sent += taken
    assert sent > 100
    assert os.get_blocking(slave)
    guarded.close()
    os.close(master)
    os.close(slave)


def test_a_writer_without_flow_control_is_bounded(pipe, caplog):
    """A guest's log to a reader that does not read: the backlog must not grow with what the guest prints."""
    output = make(f"fd:{pipe[1]}", limit=1000, stall_ms=0)
    for _ in range(200):
        output.write(bytes(1000))

    assert output.backlog <= 3000
    assert output.written + output.backlog + output.dropped == 200_000
    assert len(caplog.records) == 1
    output.close()


@pytest.mark.parametrize(("limit", "full"), [(99, True), (100, True), (101, False)])
def test_it_is_full_from_the_limit_on(pipe, limit, full):
    _, writer = pipe
    output = make(f"fd:{writer}", limit=limit, stall_ms=0)
    output.open()
    output._backlog += bytes(100)
    assert output.full is full
    output._backlog.clear()
    output.close()
