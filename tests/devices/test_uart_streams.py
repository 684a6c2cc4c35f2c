"""Uart16550 between a guest and the host's files, pipes and terminals, on a real event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace

import pytest

from shardio.devices import DebugConsole, DeviceOptionError, LogDevice, Uart16550
from tests.devices.support import Ports, RecordingHost

RBR, FCR, MCR, LSR = 0, 2, 4, 5
DATA = bytes(range(256)) * 8


async def guest_reads(com1: Ports, count: int) -> bytes:
    """A polling guest: takes what is there, then lets the loop run."""
    received = bytearray()
    while len(received) < count:
        while com1.read(LSR) & 1:
            received.append(com1.read(RBR))
        await asyncio.sleep(0)
    return bytes(received)


def run(options, count, fcr=0x01, before=lambda com1: None):
    """What a guest receives from a UART with these options."""

    async def main():
        uart = Uart16550(**{"output": "null", **options})
        com1 = Ports(uart, 0x3F8)
        uart.attach(RecordingHost(asyncio.get_running_loop(), pass_fds=True))
        await asyncio.sleep(0)
        com1.write(FCR, fcr)
        before(com1)
        received = await asyncio.wait_for(guest_reads(com1, count), 20)
        statistics = uart.statistics()
        uart.detach()
        assert statistics.overruns == 0
        return received

    return asyncio.run(main())


@pytest.mark.parametrize("fcr", [0x00, 0x01, 0x07, 0xC7])
def test_input_from_a_file_is_whole(tmp_path, fcr):
    (tmp_path / "keys").write_bytes(DATA)
    assert run({"input": f"file:{tmp_path}/keys"}, len(DATA), fcr) == DATA


@pytest.mark.parametrize("fcr", [0x00, 0x07])
def test_input_from_a_pipe_is_whole_and_ends(fcr):
    reader, writer = os.pipe()
    os.write(writer, DATA)
    os.close(writer)
    assert run({"input": f"fd:{reader}"}, len(DATA), fcr) == DATA
    os.close(reader)


def test_input_that_no_loop_can_watch_is_read_all_the_same():
    assert run({"input": "file:/dev/zero"}, 64) == bytes(64)


def test_input_without_a_byte_ends_at_once():
    async def main():
        uart = Uart16550(output="file:/dev/null", input="file:/dev/null")
        com1 = Ports(uart, 0x3F8)
        uart.attach(RecordingHost(asyncio.get_running_loop(), pass_fds=True))
        com1.write(RBR, 0x41)
        for _ in range(3):
            await asyncio.sleep(0)
        status = com1.read(LSR)
        uart.detach()
        return status

    assert asyncio.run(main()) & 0x61 == 0x60  # no data, transmitter empty


def test_input_from_a_socket_is_whole():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(DATA)
        assert run({"input": f"fd:{ours.fileno()}"}, len(DATA)) == DATA
        assert ours.getblocking()


def test_input_from_a_fifo_outlives_its_writers(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def two_writers(com1):
        for text in (b"first ", b"second"):
            writer = os.open(path, os.O_WRONLY)
            os.write(writer, text)
            os.close(writer)

    assert run({"input": f"file:{path}"}, 12, before=two_writers) == b"first second"


def test_input_and_output_share_one_pty(capfd):
    async def main():
        uart = Uart16550(output="pty", input="pty")
        com1 = Ports(uart, 0x3F8)
        uart.attach(RecordingHost(asyncio.get_running_loop(), pass_fds=True))
        terminal = os.open(uart.output.pty_path, os.O_RDWR | os.O_NOCTTY)
        os.write(terminal, b"typed")
        received = await asyncio.wait_for(guest_reads(com1, 5), 20)
        for byte in b"shown":
            com1.write(RBR, byte)
        await asyncio.sleep(0)
        shown = b"".join(os.read(terminal, 1) for _ in range(5))
        os.close(terminal)
        uart.detach()
        return received, shown

    assert asyncio.run(main()) == (b"typed", b"shown")
    assert "the serial port is /dev/pts/" in capfd.readouterr().err


def test_no_more_is_read_than_the_receiver_holds():
    reader, writer = os.pipe()
    os.write(writer, DATA)

    async def main():
        uart = Uart16550(output="null", input=f"fd:{reader}")
        com1 = Ports(uart, 0x3F8)
        com1.write(FCR, 0x01)
        uart.attach(RecordingHost(asyncio.get_running_loop(), pass_fds=True))
        for _ in range(10):
            await asyncio.sleep(0)
        uart.detach()

    asyncio.run(main())
    os.close(writer)
    assert os.read(reader, 4096) == DATA[16:]
    os.close(reader)


def test_loopback_stops_the_input_and_leaving_it_goes_on(tmp_path):
    (tmp_path / "keys").write_bytes(DATA)

    def through_loopback(com1):
        com1.write(MCR, 0x10)
        com1.write(MCR, 0x00)

    assert run({"input": f"file:{tmp_path}/keys"}, len(DATA), before=through_loopback) == DATA


def test_received_data_interrupts_without_any_access():
    reader, writer = os.pipe()

    async def main():
        uart = Uart16550(output="null", input=f"fd:{reader}")
        com1 = Ports(uart, 0x3F8)
        interrupted = asyncio.Event()
        host = RecordingHost(asyncio.get_running_loop(), pass_fds=True)
        host.trigger = SimpleNamespace(trigger=interrupted.set)
        uart.attach(host)
        com1.write(MCR, 0x08)
        com1.write(1, 0x01)
        os.write(writer, b"A")
        await asyncio.wait_for(interrupted.wait(), 20)
        assert com1.read(2) == 0x04
        uart.detach()

    asyncio.run(main())
    os.close(reader)
    os.close(writer)


def test_output_holds_the_guest_back_when_its_reader_does_not_read():
    reader, writer = os.pipe()

    async def main():
        uart = Uart16550(output=f"fd:{writer}")
        uart.output._limit = 100
        com1 = Ports(uart, 0x3F8)
        com1.write(FCR, 0x01)
        uart.attach(RecordingHost(asyncio.get_running_loop(), pass_fds=True))
        sent = 0
        while com1.read(LSR) & 0x20:
            com1.write(RBR, sent & 0xFF)
            sent += 1
        received = os.read(reader, 1 << 20)
        while not com1.read(LSR) & 0x20:
            await asyncio.sleep(0)
        uart.detach()
        return sent, received + os.read(reader, 1 << 20)

    sent, received = asyncio.run(main())
    os.close(reader)
    os.close(writer)
    assert received == bytes(number & 0xFF for number in range(sent))


def test_detach_flushes_the_transmit_fifo_too(tmp_path):
    uart = Uart16550(output=f"file:{tmp_path}/out")
    uart.write(FCR, 1, 0x01)
    uart.can_send = lambda: False
    for byte in b"last words":
        uart.write(RBR, 1, byte)
    uart.detach()
    assert (tmp_path / "out").read_bytes() == b"last words"


def test_what_is_sent_gathers_and_goes_out_in_order_at_the_loops_turn(tmp_path):
    async def main():
        uart = Uart16550(output=f"file:{tmp_path}/out")
        uart.attach(RecordingHost(asyncio.get_running_loop()))
        for byte in b"one ":
            uart.write(RBR, 1, byte)
        early = (tmp_path / "out").read_bytes()
        await asyncio.sleep(0)
        turn = (tmp_path / "out").read_bytes()
        for byte in b"two":
            uart.write(RBR, 1, byte)
        sent = uart.statistics().sent
        uart.detach()
        return early, turn, sent

    assert asyncio.run(main()) == (b"", b"one ", 7)
    assert (tmp_path / "out").read_bytes() == b"one two"


def test_no_more_than_4_kib_gather(tmp_path, host):
    """A host whose loop never turns: what is sent must not pile up in memory."""
    uart = Uart16550(output=f"file:{tmp_path}/out")
    uart.attach(host)
    data = bytes(number & 0xFF for number in range(10000))
    for byte in data:
        uart.write(RBR, 1, byte)
        assert len(uart.gathered) <= 4096
    written = (tmp_path / "out").read_bytes()
    uart.detach()

    assert len(written) >= 8192
    assert written == data[: len(written)]
    assert (tmp_path / "out").read_bytes() == data


def test_output_to_a_fifo_needs_no_reader_and_reaches_the_one_that_comes(tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main():
        uart = Uart16550(output=f"file:{path}")
        uart.attach(RecordingHost(asyncio.get_running_loop()))
        for byte in b"early":
            uart.write(RBR, 1, byte)
        await asyncio.sleep(0)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        early = os.read(reader, 100)
        os.close(reader)
        for byte in b"late":
            uart.write(RBR, 1, byte)
        await asyncio.sleep(0)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        late = os.read(reader, 100)
        uart.detach()
        os.close(reader)
        return early, late

    assert asyncio.run(main()) == (b"early", b"late")


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda fd: Uart16550(output=f"fd:{fd}"), "output"),
        (lambda fd: Uart16550(output="null", input=f"fd:{fd}"), "input"),
        (lambda fd: DebugConsole(output=f"fd:{fd}"), "output"),
        (lambda fd: LogDevice(output=f"fd:{fd}"), "output"),
    ],
)
def test_a_descriptor_that_was_not_handed_over_is_refused(host, make, option):
    """It is open, but it is the shard's own: its fabric's, say, whose header bytes would overwrite."""
    reader, writer = os.pipe()
    host.passed_fds = {reader: reader}
    with pytest.raises(DeviceOptionError, match=rf"{option} = 'fd:{writer}'; hand the descriptor over"):
        make(writer).attach(host)
    os.close(reader)
    os.close(writer)


def test_a_descriptor_is_found_by_the_vmms_number():
    reader, writer = os.pipe()

    async def main():
        host = RecordingHost(asyncio.get_running_loop())
        host.passed_fds = {1000007: writer}
        uart = Uart16550(output="fd:1000007")
        uart.attach(host)
        uart.write(RBR, 1, 0x41)
        uart.detach()

    asyncio.run(main())
    os.close(writer)
    assert os.read(reader, 10) == b"A"
    os.close(reader)


def test_an_input_that_cannot_be_opened_is_named_with_the_hint(tmp_path):
    uart = Uart16550(output="null", input=f"file:{tmp_path}/missing")
    with pytest.raises(DeviceOptionError, match=r"input = .*missing.*No such file"):
        uart.attach(RecordingHost())


class Counting(Uart16550):
    """Counts the accesses that reach Python."""

    entered = 0

    def read_slowly(self, offset, size):
        self.entered += 1
        return super().read_slowly(offset, size)

    def write_slowly(self, offset, size, value):
        self.entered += 1
        super().write_slowly(offset, size, value)


def test_a_guest_that_prints_by_polling_enters_python_once_in_a_turn_of_the_loop(tmp_path):
    async def main():
        uart = Counting(output=f"file:{tmp_path}/out")
        uart.attach(RecordingHost(asyncio.get_running_loop()))
        entered = []
        for _ in range(2):
            uart.entered = 0
            for byte in b"a line\n":
                status = uart.read(LSR, 1)
                assert status == 0x60
                uart.write(RBR, 1, byte)
            entered.append(uart.entered)
            await asyncio.sleep(0)
        uart.detach()
        return entered

    assert asyncio.run(main()) == [1, 1]
    assert (tmp_path / "out").read_bytes() == b"a line\na line\n"
