"""Bus-master DMA (Programming Interface for Bus Master IDE Controller, revision 1.0)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardio.devices.ide.registers import ABRT, BSY, DRQ, ERR, READY
from tests.devices.ide.conftest import Images
from tests.devices.ide.guest import RAM, SECTOR, IdeGuest, ide_guest

ACTIVE, ERROR, INTERRUPT = 1, 2, 4
READ_DMA, WRITE_DMA, READ_DMA_EXT, WRITE_DMA_EXT = 0xC8, 0xCA, 0x25, 0x35
BUFFER = 0x8000


@pytest.fixture
def dma(ide: IdeGuest) -> IdeGuest:
    """The driver, with bus mastering on."""
    ide.enable_master()
    return ide


@pytest.mark.parametrize("code", [READ_DMA, READ_DMA_EXT])
def test_a_disk_fills_guest_memory(dma: IdeGuest, images: Images, code: int) -> None:
    dma.prds((BUFFER, 1024), (0x20000, 512))
    dma.wide_address(9, 3)
    dma.set(7, code)
    dma.start_dma(to_memory=True)

    assert dma.stop_dma() == INTERRUPT
    assert dma.status == READY
    got = dma.memory.read(BUFFER, 1024) + dma.memory.read(0x20000, 512)
    assert got == images.sectors[9 * SECTOR : 12 * SECTOR]
    assert dma.interrupts == 1


@pytest.mark.parametrize("code", [WRITE_DMA, WRITE_DMA_EXT])
def test_guest_memory_fills_a_disk(dma: IdeGuest, images: Images, code: int) -> None:
    data = bytes(reversed(images.sectors[: 3 * SECTOR]))
    dma.memory.write(BUFFER, data[:1024])
    dma.memory.write(0x20000, data[1024:])
    dma.prds((BUFFER, 1024), (0x20000, 512))
    dma.start_dma(to_memory=False)  # before the command: either may come first
    dma.wide_address(9, 3)
    dma.set(7, code)

    assert dma.stop_dma() == INTERRUPT
    assert dma.status == READY
    assert images.disk.read_bytes()[9 * SECTOR : 12 * SECTOR] == data


def test_a_disc_fills_guest_memory(dma: IdeGuest, images: Images) -> None:
    cd = dma.of(1)
    cd.prds((BUFFER, 4096))
    cd.set(1, 0x01)
    cd.command(0xA0)
    cd.write_block(bytes((0x28, 0, 0, 0, 0, 7, 0, 0, 2, 0, 0, 0)))
    cd.start_dma(to_memory=True)

    assert cd.stop_dma() == INTERRUPT
    assert (cd.get(2), cd.status) == (3, READY)
    assert cd.memory.read(BUFFER, 4096) == images.blocks[7 * 2048 : 9 * 2048]


def test_an_answer_goes_by_dma_too(dma: IdeGuest) -> None:
    cd = dma.of(1)
    cd.prds((BUFFER, 36))
    cd.set(1, 0x01)
    cd.command(0xA0)
    cd.write_block(bytes((0x12, 0, 0, 0, 36, 0, 0, 0, 0, 0, 0, 0)))
    cd.start_dma(to_memory=True)

    assert cd.stop_dma() == INTERRUPT
    assert cd.memory.read(BUFFER + 8, 8) == b"SHARDIO "


@pytest.mark.parametrize(("code", "to_memory"), [(READ_DMA, True), (WRITE_DMA, False)])
def test_nothing_moves_before_bus_mastering_is_on(
    ide: IdeGuest, images: Images, code: int, to_memory: bool
) -> None:
    ide.set_config(4, 0x0001, 2)
    ide.prds((BUFFER, 512))
    ide.address(2, 1)
    ide.set(7, code)
    ide.start_dma(to_memory=to_memory)
    waiting = ide.inp(ide.master + 2), ide.alternate
    untouched = ide.memory.read(BUFFER, 512), images.disk.read_bytes()

    assert waiting == (ACTIVE, READY | DRQ)
    assert untouched == (bytes(512), images.sectors)
    ide.enable_master()
    assert ide.stop_dma() == INTERRUPT
    assert ide.memory.read(BUFFER, 512) == images.disk.read_bytes()[1024:1536]


def test_a_table_that_is_longer_leaves_the_bus_master_active(dma: IdeGuest) -> None:
    dma.prds((BUFFER, 1024), (0x20000, 512))
    dma.address(0, 1)
    dma.set(7, READ_DMA)
    dma.start_dma(to_memory=True)

    assert dma.stop_dma() == ACTIVE | INTERRUPT  # section 3.1
    assert dma.inp(dma.master + 2) == INTERRUPT


def test_a_table_that_is_shorter_interrupts_nobody(dma: IdeGuest, images: Images) -> None:
    dma.prds((BUFFER, 512))
    dma.address(0, 2)
    dma.set(7, READ_DMA)
    dma.start_dma(to_memory=True)

    assert dma.stop_dma() == 0  # section 3.1
    assert dma.alternate == READY | DRQ
    assert dma.memory.read(BUFFER, 512) == images.sectors[:512]
    dma.reset()
    assert dma.status == READY


@pytest.mark.parametrize("entry", [(RAM, 512), (RAM - 256, 512), (0xFFFF_F000, 512)])
@pytest.mark.parametrize(("code", "to_memory"), [(READ_DMA, True), (WRITE_DMA, False)])
def test_memory_that_is_none_is_an_error(
    dma: IdeGuest, images: Images, entry: tuple[int, int], code: int, to_memory: bool
) -> None:
    dma.prds(entry)
    dma.address(0, 1)
    dma.set(7, code)
    dma.start_dma(to_memory=to_memory)

    assert dma.stop_dma() == ERROR | INTERRUPT
    assert (dma.status, dma.error) == (READY | ERR, ABRT)
    assert images.disk.read_bytes() == images.sectors


def test_a_table_that_is_in_no_memory_is_an_error(dma: IdeGuest) -> None:
    dma.out(dma.master + 4, 0xFFFF_FFFC, 4)
    dma.address(0, 1)
    dma.set(7, READ_DMA)
    dma.start_dma(to_memory=True)

    assert dma.stop_dma() & ERROR


def test_the_wrong_direction_is_an_error(dma: IdeGuest, images: Images) -> None:
    dma.prds((BUFFER, 512))
    dma.address(0, 1)
    dma.set(7, WRITE_DMA)
    dma.start_dma(to_memory=True)

    assert dma.stop_dma() & ERROR
    assert images.disk.read_bytes() == images.sectors


def test_the_registers_are_what_the_interface_says(dma: IdeGuest) -> None:
    dma.out(dma.master + 2, 0x60)
    assert dma.inp(dma.master + 2) == 0x60  # the drives' own bits
    dma.out(dma.master + 2, 0x00)
    dma.out(dma.master + 4, 0x1234_5677, 4)
    assert dma.inp(dma.master + 4, 4) == 0x1234_5674
    dma.out(dma.master + 6, 0xABCD, 2)
    assert dma.inp(dma.master + 4, 4) == 0xABCD_5674
    dma.out(dma.master, 0xF8)
    assert dma.inp(dma.master) == 0x08


def test_a_count_of_0_is_64_kib(dma: IdeGuest, images: Images) -> None:
    dma.prds((0x10000, 0))
    dma.address(0, 128)
    dma.set(7, READ_DMA)
    dma.start_dma(to_memory=True)

    assert dma.stop_dma() == INTERRUPT
    assert dma.memory.read(0x10000, 0x10000) == images.sectors[:0x10000]


def test_registers_answer_only_where_the_bar_is(ide: IdeGuest) -> None:
    assert ide.inp(ide.master) == 0xFF  # I/O decoding is off
    ide.enable_master()
    assert ide.inp(ide.master) == 0
    ide.set_config(0x20, 0xC101)
    assert (ide.inp(ide.master), ide.inp(0xC100)) == (0xFF, 0)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs when the test lets it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize(("code", "to_memory"), [(READ_DMA, True), (WRITE_DMA, False)])
def test_a_drive_is_busy_while_a_thread_moves_the_data(
    loop: asyncio.AbstractEventLoop, images: Images, code: int, to_memory: bool
) -> None:
    async def run() -> tuple[bytes, int]:
        with ide_guest(loop, hda=str(images.disk)) as ide:
            ide.enable_master()
            ide.prds((BUFFER, 512))
            ide.address(5, 1)
            ide.set(7, code)
            ide.start_dma(to_memory=to_memory)
            async with asyncio.timeout(20):
                while not ide.inp(ide.master + 2) & INTERRUPT:
                    await asyncio.sleep(0)
            return ide.memory.read(BUFFER, 512), ide.status

    got, status = loop.run_until_complete(run())
    assert status == READY
    assert got == images.disk.read_bytes()[5 * SECTOR : 6 * SECTOR]


@pytest.mark.parametrize("code", [0xE7, 0x40])
def test_a_reset_and_a_snapshot_wait_for_the_thread(
    loop: asyncio.AbstractEventLoop, images: Images, code: int
) -> None:
    with ide_guest(loop, hda=str(images.disk)) as ide:
        ide.address(0, 8)
        ide.set(7, code)
        busy = ide.alternate
        ide.bus.snapshot()
        settled = ide.alternate
        ide.set(7, code)
        ide.reset()
        assert (busy, settled, ide.alternate) == (BSY, READY, READY)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lba=st.integers(0, 280),
    sizes=st.lists(st.integers(1, 1024).map(lambda n: 2 * n), min_size=1, max_size=9),
)
def test_whatever_the_table_the_bytes_are_the_disks(
    dma: IdeGuest, images: Images, lba: int, sizes: list[int]
) -> None:
    sectors = max(1, sum(sizes) // SECTOR)
    places = [0x4000 + 0x1000 * n for n in range(len(sizes))]
    dma.reset()
    dma.prds(*zip(places, sizes, strict=True))
    dma.address(min(lba, 300 - sectors), sectors)
    dma.set(7, READ_DMA)
    dma.start_dma(to_memory=True)
    dma.stop_dma()
    first = min(lba, 300 - sectors) * SECTOR
    got = b"".join(dma.memory.read(at, size) for at, size in zip(places, sizes, strict=True))

    wanted = images.sectors[first : first + sectors * SECTOR]
    assert got[: len(wanted)] == wanted[: len(got)]
