"""A channel: selection, resets, signatures, the interrupt line (ATA/ATAPI-6 clauses 7, 9.2 and 9.12)."""

from __future__ import annotations

import pytest

from shardio.devices.ide.registers import ABRT, BSY, DRQ, ERR, READY
from tests.devices.ide.conftest import Images
from tests.devices.ide.guest import SECTOR, IdeGuest, ide_guest

DISK = (1, 1, 0x00, 0x00)
PACKET_DEVICE = (1, 1, 0x14, 0xEB)


def signature(ide: IdeGuest) -> tuple[int, ...]:
    return tuple(map(ide.get, (2, 3, 4, 5)))


def test_drives_begin_with_their_signature(ide: IdeGuest, cd: IdeGuest) -> None:
    assert (signature(ide), ide.error, ide.status) == (DISK, 1, READY)
    assert (signature(cd), cd.error, cd.status) == (PACKET_DEVICE, 1, 0)


@pytest.mark.parametrize("how", ["SRST", "diagnostic"])
def test_a_reset_brings_the_signature_back(ide: IdeGuest, cd: IdeGuest, how: str) -> None:
    resets = {"SRST": IdeGuest.reset, "diagnostic": lambda guest: guest.command(0x90)}
    for guest in (ide, cd):
        guest.address(0x123456, 9)
        guest.set(1, 7)
        resets[how](guest)

    assert (signature(ide), ide.error, ide.get(6)) == (DISK, 1, 0)
    assert (signature(cd), cd.error, cd.get(6)) == (PACKET_DEVICE, 1, 0)


def test_a_drive_is_busy_while_srst_is_set(ide: IdeGuest) -> None:
    ide.out(ide.control_port, 0x04)
    held = ide.alternate
    ide.set(3, 0x77)
    ide.out(ide.control_port, 0)

    assert (held, ide.alternate) == (BSY, READY)
    assert ide.get(3) == 1  # registers of a busy drive are not written (clause 7.1)


def test_a_reset_ends_a_block_that_is_being_moved(ide: IdeGuest, images: Images) -> None:
    ide.address(3, 1)
    assert ide.command(0x30) & DRQ
    ide.write_block(b"\xff" * 100)
    ide.reset()

    assert ide.status == READY
    ide.write_block(b"\xff" * 412)
    assert images.disk.read_bytes() == images.sectors
    ide.address(3, 1)
    assert ide.read_sectors(0x20, 1) == images.sectors[3 * SECTOR : 4 * SECTOR]


def test_device_reset_is_a_packet_devices_alone(ide: IdeGuest, cd: IdeGuest) -> None:
    cd.command(0xA0)
    cd.set(7, 0x08)

    assert (cd.alternate, signature(cd)) == (0, PACKET_DEVICE)
    assert ide.command(0x08) & ERR
    assert ide.error == ABRT


def test_the_diagnostic_interrupts_and_reaches_both_drives(images: Images, tmp_path: object) -> None:
    with ide_guest(hda=str(images.disk), hdb=str(images.disc)) as ide:
        ide.select(1)
        ide.set(3, 0x55)
        before = ide.interrupts
        ide.set(7, 0x90)
        raised = ide.interrupts - before
        selected = ide.get(6) & 0x10
        ide.select(1)
        found = signature(ide)
    assert (raised, selected, found) == (1, 0, DISK)


def test_both_drives_hear_the_registers_and_the_selected_one_obeys(images: Images) -> None:
    with ide_guest(hda=str(images.disk), hdb=str(images.disc)) as ide:
        ide.address(4, 1, drive=1)
        second = ide.read_sectors(0x20, 1)
        ide.address(4, 1, drive=0)
        first = ide.read_sectors(0x20, 1)
    assert first == images.sectors[4 * SECTOR :][:SECTOR]
    assert second == images.blocks[4 * SECTOR :][:SECTOR]


def test_nobody_is_a_drive_of_status_0(ide: IdeGuest, images: Images) -> None:
    ide.select(1)
    assert (ide.status, ide.alternate) == (0, 0)
    before = ide.interrupts
    ide.set(7, 0xEC)
    assert (ide.status, ide.interrupts) == (0, before)
    ide.select(0)
    assert ide.status == READY
    with ide_guest() as nobody:
        assert [nobody.get(register) for register in range(1, 8)] == [0] * 7
        nobody.set(7, 0x90)
        nobody.reset()
        assert nobody.status == 0


def test_the_line_rises_once_and_falls_with_the_status(ide: IdeGuest) -> None:
    ide.set(7, 0xE7)
    assert ide.interrupts == 1
    _ = ide.alternate
    ide.set(7, 0xE7)  # the command lowers the line (clause 9.2)
    assert ide.interrupts == 2
    assert ide.status == READY


def test_nien_holds_the_line_down_until_it_is_cleared(ide: IdeGuest) -> None:
    ide.out(ide.control_port, 0x02)
    ide.set(7, 0xE7)
    assert ide.interrupts == 0
    ide.out(ide.control_port, 0x00)
    assert ide.interrupts == 1
    _ = ide.status
    ide.out(ide.control_port, 0x02)
    ide.out(ide.control_port, 0x00)
    assert ide.interrupts == 1


def test_the_other_drives_interrupt_waits_until_it_is_selected(images: Images) -> None:
    with ide_guest(hda=str(images.disk), hdb=str(images.disc)) as ide:
        ide.out(ide.control_port, 0x02)
        ide.set(7, 0xE7)
        ide.select(1)
        ide.out(ide.control_port, 0)
        while_away = ide.interrupts
        ide.select(0)
        assert (while_away, ide.interrupts) == (0, 1)


def test_reads_interrupt_for_each_block_and_writes_after_each(ide: IdeGuest) -> None:
    ide.address(0, 3)
    ide.read_sectors(0x20, 3)
    assert ide.interrupts == 3  # clause 9.5
    ide.address(0, 3)
    ide.write_sectors(0x30, bytes(3 * SECTOR))
    assert ide.interrupts == 6  # clause 9.6: none before the first block


def test_commands_are_not_taken_while_data_is_to_be_moved(ide: IdeGuest, images: Images) -> None:
    ide.address(0, 1)
    ide.command(0x20)
    ide.set(7, 0xE7)
    ide.set(3, 0x99)

    assert ide.read_block() == images.sectors[:SECTOR]
    assert ide.get(3) == 0


def test_a_machine_without_lines_has_drives_that_are_polled(images: Images) -> None:
    from shardio.devices import PciBus
    from shardio.interrupt import InterruptManager, RecordingBackend
    from tests.devices.ide.guest import TYPE, IdeHost

    class NoLines(RecordingBackend):
        def allocate(self, *_: object, **__: object) -> object:  # type: ignore[override]
            from shardio.errors import InterruptError

            raise InterruptError("request", "no irqchip", "use irqchip=True")

    bus = PciBus(functions=[{"type": TYPE, "hda": str(images.disk)}])
    with NoLines() as backend, InterruptManager(backend) as interrupts:
        bus.attach(IdeHost(None, interrupts))
        ide = IdeGuest(bus, None, backend)  # type: ignore[arg-type]
        ide.address(1, 1)
        got = ide.read_sectors(0x20, 1)
        bus.detach()
    assert got == images.sectors[SECTOR : 2 * SECTOR]
