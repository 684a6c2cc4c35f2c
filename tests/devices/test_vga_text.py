"""VgaText: the screen in guest RAM, and the registers that guests set and wait for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardio.devices.vga_text import MEMORY, VgaText
from shardio.memory import GuestMemory
from tests.devices.support import Ports, RecordingHost


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory(1 << 20) as memory:
        yield memory


@pytest.fixture
def vga(memory: GuestMemory) -> VgaText:
    """A VGA over that memory."""
    device, host = VgaText(), RecordingHost()
    host.memory = memory  # type: ignore[assignment]
    device.attach(host)
    return device


def put(memory: GuestMemory, cell: int, text: bytes) -> None:
    memory.write(MEMORY + 2 * cell, b"".join(bytes((byte, 0x07)) for byte in text))


def crtc(ports: Ports, index: int, value: int) -> None:
    ports.write(0x14, value << 8 | index, size=2)


def test_codes_below_space_are_the_glyphs_of_the_code_page(vga: VgaText, memory: GuestMemory) -> None:
    """IBM's code page 437: a guest could have the host's terminal obey them otherwise."""
    memory.write(MEMORY, b"\x01\x07\x1b\x07\x7f\x07")

    assert vga.screen() == "☺←⌂"


def test_the_screen_is_the_text_in_ram(vga: VgaText, memory: GuestMemory) -> None:
    put(memory, 0, b"top")
    put(memory, 2 * 80 + 3, b"third\xb3row")

    assert vga.screen() == "top\n\n   third│row"
    assert VgaText().screen() == ""


def test_it_begins_where_the_crt_controller_says(vga: VgaText, memory: GuestMemory) -> None:
    ports = Ports(vga, 0x3C0)
    put(memory, 0x3FF0, b"at the memory's e")  # 16 cells, and then the first one
    put(memory, 0, b"nd")
    crtc(ports, 0x0C, 0x3F)
    crtc(ports, 0x0D, 0xF0)

    assert vga.screen() == "at the memory's nd"


def test_a_row_may_have_40_columns(vga: VgaText, memory: GuestMemory) -> None:
    put(memory, 40, b"second")
    crtc(Ports(vga, 0x3C0), 0x01, 39)

    assert vga.screen() == "\nsecond"


def test_the_cursor_is_told(vga: VgaText) -> None:
    ports = Ports(vga, 0x3C0)
    crtc(ports, 0x0E, 0x01)
    crtc(ports, 0x0F, 0x45)

    assert vga.cursor() == divmod(0x145, 80)


@pytest.mark.parametrize("port", [0x04, 0x0E, 0x14])
def test_indexed_registers_hold_what_is_written(vga: VgaText, port: int) -> None:
    ports = Ports(vga, 0x3C0)
    for index, value in ((3, 0x5A), (7, 0xA5)):
        ports.write(port, index)
        ports.write(port + 1, value)

    ports.write(port, 3)
    assert (ports.read(port), ports.read(port + 1), ports.read(port, size=2)) == (3, 0x5A, 0x5A03)


def test_attributes_are_an_index_and_data_at_one_port(vga: VgaText) -> None:
    ports = Ports(vga, 0x3C0)
    ports.write(0x00, 0x11)  # an index, of which nothing came
    _ = ports.read(0x1A)  # begins anew
    ports.write(0x00, 0x10)
    ports.write(0x00, 0x0C)

    assert (ports.read(0x00), ports.read(0x01)) == (0x10, 0x0C)


def test_both_retraces_come_and_go(vga: VgaText) -> None:
    ports = Ports(vga, 0x3C0)

    assert [ports.read(0x1A) & 9 for _ in range(4)] == [9, 0, 9, 0]


def test_the_palette_is_read_as_it_was_written(vga: VgaText) -> None:
    ports = Ports(vga, 0x3C0)
    ports.write(0x08, 255)
    for value in (0x11, 0x22, 0xFF, 0x33):
        ports.write(0x09, value)
    ports.write(0x07, 255)

    assert [ports.read(0x09) for _ in range(4)] == [0x11, 0x22, 0x3F, 0x33]
    assert ports.read(0x08) == 0


def test_miscellaneous_output_says_colour_and_is_kept(vga: VgaText) -> None:
    ports = Ports(vga, 0x3C0)
    assert ports.read(0x0C) & 1
    ports.write(0x02, 0xE3)
    assert ports.read(0x0C) == 0xE3
