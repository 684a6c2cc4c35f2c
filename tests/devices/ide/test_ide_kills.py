"""An IDE controller whose shard is killed in the middle of a transfer: no word twice, none missing; what a
thread had in hand is done by the successor. Registers and protocols: ATA/ATAPI-6, clauses 7 and 9.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from shardio.devices import PciBus
from shardio.devices.ide.registers import DRQ, READY
from shardio.devices.pci_ports import IO_WINDOW
from shardio.interrupt import InterruptManager, RecordingBackend
from shardio.memory import GuestMemory
from tests.devices.ide.conftest import Images
from tests.devices.ide.guest import LINES, RAM, SECTOR, TYPE, IdeGuest, IdeHost
from tests.devices.successors import Successors, successors

RANGES = (*(int(span.base) for span in PciBus.further_ranges([{"type": TYPE}])), 0xCF8)
assert int(IO_WINDOW.base) in RANGES


class KilledGuest(IdeGuest):
    """A driver whose controller's shard is killed by `kill`, between two of its accesses or in one."""

    def __init__(self, line: Successors, memory: GuestMemory, backend: RecordingBackend) -> None:
        super().__init__(line.device, memory, backend)
        self.line = line

    def inp(self, port: int, size: int = 1) -> int:
        return self.line.read(*self._place(port), size)

    def out(self, port: int, value: int, size: int = 1) -> None:
        base, offset = self._place(port)
        self.line.write(base, offset, value, size)

    @staticmethod
    def _place(port: int) -> tuple[int, int]:
        base = max(each for each in RANGES if each <= port)
        return base, port - base

    def kill(self) -> None:
        """What it held open goes with it."""
        killed = self.line.device
        for channel in killed.endpoints[1].channels:
            for drive in channel.drives:
                if drive is not None:
                    drive.image.close()
            channel.let_go()
        self.line.start()


@contextmanager
def killed_guest(**images: Any) -> Iterator[KilledGuest]:
    functions = [{"type": TYPE, **images}]
    with GuestMemory(RAM) as memory, RecordingBackend() as backend, InterruptManager(backend) as interrupts:

        def host(store: Any) -> IdeHost:
            host = IdeHost(memory, interrupts)
            host.persistent = store
            return host

        with successors(PciBus, host, functions=functions) as line:
            yield KilledGuest(line, memory, backend)


@pytest.mark.parametrize("taken", [0, 2, 100, 254, 256, 258, 510, 512])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_read_goes_on_word_by_word(images: Images, taken: int, repeated: bool) -> None:
    with killed_guest(hda=str(images.disk)) as guest:
        guest.address(4, 2)
        guest.command(0x20)
        got = guest.read_block(taken)
        guest.kill()
        if repeated and taken:
            assert guest.line.again() == int.from_bytes(got[-2:], "little")
        while guest.status & DRQ:
            got += guest.read_block(SECTOR - len(got) % SECTOR)
        assert guest.status == READY
    assert got == images.sectors[4 * SECTOR : 6 * SECTOR]


@pytest.mark.parametrize("given", [0, 2, 100, 510, 512, 514])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_write_goes_on_word_by_word(images: Images, given: int, repeated: bool) -> None:
    data = bytes(reversed(images.sectors[: 2 * SECTOR]))
    with killed_guest(hda=str(images.disk)) as guest:
        guest.address(4, 2)
        guest.command(0x30)
        guest.write_block(data[:given])
        guest.kill()
        if repeated and given:
            guest.line.again()
        guest.write_block(data[given:])
        assert guest.status == READY
    assert images.disk.read_bytes()[4 * SECTOR : 6 * SECTOR] == data


@pytest.mark.parametrize("width", [1, 4])
def test_other_widths_go_on_too(images: Images, width: int) -> None:
    with killed_guest(hda=str(images.disk)) as guest:
        guest.address(4, 1)
        guest.command(0x20)
        got = guest.read_block(40, width)
        guest.kill()
        again = guest.line.again()
        got += guest.read_block(SECTOR - 40, width)
    assert again == int.from_bytes(got[40 - width : 40], "little")
    assert got == images.sectors[4 * SECTOR : 5 * SECTOR]


@pytest.mark.parametrize("steps", range(1, 6))
def test_an_address_is_what_was_written_of_it(images: Images, steps: int) -> None:
    registers = ((6, 0xE0), (2, 1), (3, 5), (4, 0), (5, 0))
    with killed_guest(hda=str(images.disk)) as guest:
        for number, (register, value) in enumerate(registers, 1):
            guest.set(register, value)
            if number == steps:
                guest.kill()
                guest.line.again()
        guest.command(0x20)
        assert guest.read_block() == images.sectors[5 * SECTOR : 6 * SECTOR]


def test_a_disc_is_read_on(images: Images) -> None:
    with killed_guest(cdrom=str(images.disc)) as guest:
        guest.channel, guest.base, guest.control_port = 1, 0x170, 0x376
        for register, value in ((1, 0), (4, 0xFE), (5, 0xFF)):
            guest.set(register, value)
        guest.command(0xA0)
        packet = bytes((0x28, 0, 0, 0, 0, 3, 0, 0, 2)).ljust(12, b"\0")
        guest.write_block(packet[:6])
        guest.kill()
        guest.write_block(packet[6:])
        got = guest.read_block(guest.get(4) | guest.get(5) << 8)
    assert got == images.blocks[3 * 2048 : 5 * 2048]


@pytest.mark.parametrize(("code", "to_memory"), [(0xC8, True), (0xCA, False)])
def test_dma_that_a_thread_had_in_hand_is_done_by_the_successor(
    images: Images, code: int, to_memory: bool
) -> None:
    with killed_guest(hda=str(images.disk)) as guest:
        guest.enable_master()
        guest.prds((0x8000, SECTOR))
        guest.memory.write(0x8000, b"\xa5" * SECTOR)
        guest.address(1, 1)
        guest.set(7, code)
        guest.line.device.endpoints[1].channels[0].worker.run = lambda *_: None  # it dies before it begins
        guest.start_dma(to_memory=to_memory)
        came = guest.interrupts
        guest.kill()
        assert guest.interrupts == came + 1
        assert guest.stop_dma() & 0x07 == 0x04
        assert guest.status == READY
        memory = guest.memory.read(0x8000, SECTOR)
    assert memory == images.disk.read_bytes()[SECTOR : 2 * SECTOR]


def test_a_flush_that_a_thread_had_in_hand_is_done_by_the_successor(images: Images) -> None:
    with killed_guest(hda=str(images.disk)) as guest:
        guest.line.device.endpoints[1].channels[0].worker.run = lambda *_: None
        assert guest.command(0xE7) == 0x80
        guest.kill()
        assert guest.status == READY


def test_an_interrupt_that_was_not_acknowledged_comes_again(images: Images) -> None:
    with killed_guest(hda=str(images.disk)) as guest:
        guest.set(7, 0xEC)
        came = guest.interrupts
        guest.kill()
        assert guest.interrupts == came + 1
        assert guest.status & DRQ


def test_configuration_and_bus_master_registers_are_what_they_were(images: Images) -> None:
    with killed_guest(hda=str(images.disk)) as guest:
        guest.enable_master()
        guest.out(guest.master + 4, 0x1234_5678, 4)
        guest.set_config(0x40, 0x1234, 2)
        guest.kill()
        assert guest.inp(guest.master + 4, 4) == 0x1234_5678
        assert guest.inp(0xCFC, 2) == 0x1234  # the address register stayed too
        assert guest.config(4, 2) & 5 == 5


assert LINES == (14, 15)
