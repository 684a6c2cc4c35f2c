"""A controller's state travels, in the middle of a block too; its images are one user's; its ranges."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shardio import PioAddress, PioRange
from shardio.devices import PciBus
from shardio.devices.ide import PiixIde
from shardio.devices.ide.piix import IdeState
from shardio.devices.ide.registers import DRQ, READY
from shardio.devices.virtio.image import RawImage
from shardio.errors import DeviceOptionError, ImageError
from tests.devices.ide.conftest import Images
from tests.devices.ide.guest import SECTOR, TYPE, IdeGuest, ide_guest


def travelled(state: Any) -> IdeState:
    """The state as it comes out of a message."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=IdeState)


def succeed(predecessor: IdeGuest) -> Any:
    """The state of the controller, and its images free for a successor."""
    state = travelled(predecessor.bus.endpoints[1].snapshot())
    predecessor.bus.detach()
    return state


@pytest.mark.parametrize("taken", [0, 100, 101])
def test_a_read_goes_on_in_a_successor(images: Images, taken: int) -> None:
    with ide_guest(hda=str(images.disk)) as first:
        first.address(4, 2)
        first.command(0x20)
        got = first.read_block(taken, width=1)
        state = succeed(first)
    with ide_guest(hda=str(images.disk)) as second:
        second.bus.endpoints[1].restore(state)
        got += second.read_block(SECTOR - taken, width=1)
        assert second.status & DRQ
        got += second.read_block()
        assert second.status == READY
    assert got == images.sectors[4 * SECTOR : 6 * SECTOR]


@pytest.mark.parametrize("given", [0, 100, 101])
def test_a_write_goes_on_in_a_successor(images: Images, given: int) -> None:
    data = bytes(reversed(images.sectors[: 2 * SECTOR]))
    with ide_guest(hda=str(images.disk)) as first:
        first.address(4, 2)
        first.command(0x30)
        first.write_block(data[:given], width=1)
        state = succeed(first)
    with ide_guest(hda=str(images.disk)) as second:
        second.bus.endpoints[1].restore(state)
        second.write_block(data[given:SECTOR], width=1)
        assert second.status & DRQ
        second.write_block(data[SECTOR:])
        assert second.status == READY
    assert images.disk.read_bytes()[4 * SECTOR : 6 * SECTOR] == data


def test_dma_that_waits_is_done_by_a_successor(images: Images) -> None:
    with ide_guest(hda=str(images.disk)) as first:
        first.set_config(4, 1, 2)
        first.prds((0x8000, 512))
        first.address(1, 1)
        first.set(7, 0xC8)
        first.start_dma(to_memory=True)
        state = succeed(first)
    with ide_guest(hda=str(images.disk)) as second:
        second.prds((0x8000, 512))
        second.bus.endpoints[1].restore(state)
        second.enable_master()
        assert second.memory.read(0x8000, 512) == images.sectors[SECTOR : 2 * SECTOR]


def test_an_image_has_one_writer(images: Images) -> None:
    other = RawImage(str(images.disk))
    other.lock("device other")
    with pytest.raises(ImageError, match="device other"), ide_guest(hda=str(images.disk)):
        pass
    other.close()
    with ide_guest(hda=str(images.disk)):
        pass


def test_readers_share_an_image(images: Images) -> None:
    options = {"hda": str(images.disk), "hdb": str(images.disk), "read_only": True, "cdrom": str(images.disc)}
    with ide_guest(**options), ide_guest(**options) as ide:
        ide.address(0, 1, drive=1)
        assert ide.read_sectors(0x20, 1) == images.sectors[:SECTOR]


def test_a_serial_number_is_short(images: Images) -> None:
    with pytest.raises(DeviceOptionError, match="18 ASCII"):
        PiixIde(hda=str(images.disk), serial="x" * 19)


def test_a_missing_image_opens_none(images: Images) -> None:
    with pytest.raises(ImageError):
        PiixIde(hda=str(images.disk), hdb=str(images.disk) + ".none")


def test_the_bus_has_the_ports_of_its_endpoints(ide: IdeGuest) -> None:
    spans = PciBus.further_ranges([{"type": TYPE}])

    assert spans[:2] == [PioRange(0x1F0, 8), PioRange(0x3F6, 1)]
    assert len({id(ide.bus.handlers_for(span)) for span in spans}) == len(spans)
    assert ide.bus.handlers_for(PioRange(0xCF8, 8)).read(0, 4) == ide.bus.host.read(0, 4)
    assert PciBus.further_ranges([]) == []
    answer = bytearray(1)
    ide.bus.pio_read(PioAddress(0x1F0), 7, memoryview(answer))
    assert answer[0] == READY


def test_configuration_space_tells_of_a_piix3(ide: IdeGuest) -> None:
    assert ide.config(0) == 0x7010_8086
    assert ide.config(8) >> 8 == 0x010180
    assert ide.config(0x20) == 0xC001  # given a place before anybody asks
    assert ide.config(0x40) == 0x8000_8000  # both channels are decoded
    ide.set_config(0x20, 0xFFFF_FFFF)
    assert ide.config(0x20) == 0xFFFF_FFF1  # 16 ports
    assert ide.config(0x10) == 0
