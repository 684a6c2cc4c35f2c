"""A UART and a debug console whose shard is killed: what the guest sent reaches the host once, what the host
sent reaches the guest once. Registers: PC16550D data sheet, section 8.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shardio.devices import DebugConsole, Uart16550
from shardio.devices.uart_memory import RING_BYTES
from shardio.devices.uart_state import FCR, IER, LCR, LCR_DLAB, LSR, LSR_DR, LSR_THRE, RBR, SCR, THR
from tests.devices.successors import Successors, successors
from tests.devices.support import ManualLoop, RecordingHost

COM1, PORT = 0x3F8, 0x402


class Line:
    """A device with a file for its output, the loop of whoever owns it, and a guest that prints."""

    def __init__(self, kind: Callable[..., Any], output: Path) -> None:
        self.output = output
        self._made = successors(kind, self._host, output=f"file:{output}")
        self.line: Successors = self._made.__enter__()

    def _host(self, store: Any) -> RecordingHost:
        self.loop = ManualLoop()
        self.host = RecordingHost(self.loop, persistent=store)
        return self.host

    def turn(self) -> bytes:
        """A turn of the loop ends; what is in the file then."""
        self.loop.advance(0)
        return self.output.read_bytes()

    def kill(self) -> None:
        """Its descriptors and mappings go with the owner."""
        killed = self.line.device
        killed.output._fd.close()
        self.line.start()
        (killed._let_go if isinstance(killed, DebugConsole) else killed._memory.close)()

    def close(self) -> None:
        self._made.__exit__(None, None, None)

    def send(self, text: bytes) -> None:
        for byte in text:
            assert self.line.read(COM1, LSR) & LSR_THRE
            self.line.write(COM1, THR, byte)


@pytest.fixture
def uart(tmp_path: Path) -> Iterator[Line]:
    line = Line(Uart16550, tmp_path / "out")
    yield line
    line.close()


@pytest.fixture
def debugcon(tmp_path: Path) -> Iterator[Line]:
    line = Line(DebugConsole, tmp_path / "out")
    yield line
    line.close()


def test_what_was_sent_and_not_written_is_written_by_the_successor(uart: Line) -> None:
    uart.send(b"hello")
    assert uart.line.device.data_at == THR  # the short way, but for the first byte
    uart.kill()

    assert uart.turn() == b"hello"


def test_what_was_written_is_not_written_again(uart: Line) -> None:
    uart.send(b"hello")
    uart.turn()
    uart.kill()
    uart.send(b" world")

    assert uart.turn() == b"hello world"


@pytest.mark.parametrize("sent", [b"a", b"ab", b"abc"])
def test_a_byte_that_is_sent_again_by_name_is_sent_once(uart: Line, sent: bytes) -> None:
    uart.send(sent)
    uart.kill()
    uart.line.again()
    uart.send(b"!")

    assert uart.turn() == sent + b"!"


def test_the_same_byte_under_another_name_is_another_byte(uart: Line) -> None:
    uart.send(b"aa")
    uart.kill()
    uart.send(b"aa")

    assert uart.turn() == b"aaaa"


def test_the_ring_turns_round(uart: Line) -> None:
    piece = bytes(range(256)) * 16
    for _ in range(RING_BYTES // len(piece) + 2):
        uart.send(piece)
        uart.turn()
        uart.kill()
    uart.send(b"end")

    assert uart.turn() == piece * (RING_BYTES // len(piece) + 2) + b"end"


def test_a_read_that_is_repeated_gives_the_same_character(uart: Line) -> None:
    uart.line.write(COM1, FCR, 0x01)
    uart.line.device.receive(b"xy")
    first = uart.line.read(COM1, RBR)
    uart.kill()

    assert (first, uart.line.again(), uart.line.read(COM1, RBR)) == (0x78, 0x78, 0x79)
    assert not uart.line.read(COM1, LSR) & LSR_DR


def test_registers_are_what_they_were(uart: Line) -> None:
    uart.line.write(COM1, IER, 0x05)
    uart.line.write(COM1, SCR, 0x5A)
    uart.line.write(COM1, LCR, LCR_DLAB)
    uart.line.write(COM1, 0, 0x21)
    uart.kill()

    assert (uart.line.read(COM1, 0), uart.line.read(COM1, LCR)) == (0x21, LCR_DLAB)
    uart.line.write(COM1, LCR, 0x03)
    assert (uart.line.read(COM1, IER), uart.line.read(COM1, SCR)) == (0x05, 0x5A)


def test_more_than_its_memory_holds_may_be_sent_at_once(uart: Line) -> None:
    sent = bytes(range(256)) * 1024
    uart.line.device.receive(sent)

    assert bytes(uart.line.read(COM1, RBR) for _ in range(300)) == sent[:300]
    uart.kill()
    assert bytes(uart.line.read(COM1, RBR) for _ in range(300)) == sent[300:600]


def test_an_interrupt_that_is_pending_is_raised_again(uart: Line) -> None:
    uart.line.write(COM1, 4, 0x08)
    uart.line.write(COM1, IER, 0x01)
    uart.line.device.receive(b"x")
    assert uart.host.trigger.count == 1
    uart.kill()

    assert uart.host.trigger.count == 1


def test_a_pipe_gets_each_byte_once(tmp_path: Path) -> None:
    """By sendfile(2), which a file that is appended to refuses."""
    os.mkfifo(tmp_path / "out")
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    line = Line(Uart16550, tmp_path / "out")
    for text in (b"one ", b"two ", b"three"):
        line.send(text)
        line.loop.advance(0)
        line.kill()
    found = os.read(reader, 100)
    line.close()
    os.close(reader)

    assert stat.S_ISFIFO(os.stat(tmp_path / "out").st_mode)
    assert found == b"one two three"


def test_a_log_goes_on_where_it_was(debugcon: Line) -> None:
    for byte in b"first line\nsec":
        debugcon.line.write(PORT, 0, byte)
    whole = debugcon.turn()
    debugcon.kill()
    debugcon.line.again()
    for byte in b"ond line\n":
        debugcon.line.write(PORT, 0, byte)

    assert whole == b"first line\n"
    assert debugcon.turn() == b"first line\nsecond line\n"


@pytest.mark.parametrize("sent", range(1, 8))
def test_a_byte_of_a_log_that_is_asked_for_again_is_printed_once(debugcon: Line, sent: int) -> None:
    """Wherever in a line: most of its bytes go the short way, the first and the last do not."""
    text = b"a line\nmore\n"
    for byte in text[:sent]:
        debugcon.line.write(PORT, 0, byte)
    debugcon.kill()
    debugcon.line.again()
    for byte in text[sent:]:
        debugcon.line.write(PORT, 0, byte)

    assert debugcon.turn() == text


def test_a_log_that_nobody_takes_keeps_what_there_is_room_for(debugcon: Line) -> None:
    """A ring of 64 KiB, of which one byte stays free."""
    for _ in range(RING_BYTES):
        debugcon.line.write(PORT, 0, 0x2E)
    dropped = debugcon.line.device.output.dropped
    debugcon.loop.advance(2)

    assert (dropped, debugcon.output.read_bytes()) == (1, b"." * (RING_BYTES - 1))


def test_an_unfinished_line_of_a_log_follows_after_a_while(debugcon: Line) -> None:
    debugcon.line.write(PORT, 0, 0x41)
    before = debugcon.turn()
    debugcon.loop.advance(0.06)

    assert (before, debugcon.output.read_bytes()) == (b"", b"A")


def test_a_line_of_a_log_is_not_cut_by_the_time_of_the_line_before(debugcon: Line) -> None:
    for byte in b"a line\n":
        debugcon.line.write(PORT, 0, byte)
    debugcon.turn()
    debugcon.loop.advance(0.04)
    for byte in b"another":
        debugcon.line.write(PORT, 0, byte)
    debugcon.loop.advance(0.04)

    assert debugcon.output.read_bytes() == b"a line\n"
