"""Whatever a guest writes to the controller, no access raises, and a reset brings the drives back."""

from __future__ import annotations

import random

import pytest

from shardio.devices.ide.registers import BSY, READY
from tests.devices.ide.conftest import BLOCKS, SECTORS, Images
from tests.devices.ide.guest import SECTOR, IdeGuest

COMMANDS = (
    0x00, 0x08, 0x10, 0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x42, 0x70, 0x90, 0x91, 0xA0,
    0xA1, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xE5, 0xE7, 0xEC, 0xEF,
)  # fmt: skip
PACKETS = (0x00, 0x03, 0x12, 0x1A, 0x25, 0x28, 0x43, 0x46, 0x4A, 0x5A, 0xA8, 0xBE)


def strike(guest: IdeGuest, chance: random.Random) -> None:
    """One access, or a few that belong together, which a driver might make, and might not."""
    match chance.randrange(9):
        case 0 | 1:
            value = chance.choice((0, 1, 0x40, 0xE0, 0xF0, 0xFF, chance.randrange(256)))
            guest.set(chance.randrange(1, 7), value)
        case 2 | 3:
            guest.set(7, chance.choice((*COMMANDS, chance.randrange(256))))
        case 4:
            for _ in range(chance.choice((1, 6, 128, 256, 300))):
                guest.inp(guest.base, chance.choice((1, 2, 2, 2, 4)))
        case 5:
            packet = bytes([chance.choice(PACKETS)]) + chance.randbytes(11)
            guest.write_block(packet[: chance.choice((12, 12, 7))])
            for _ in range(chance.choice((0, 200))):
                guest.out(guest.base, chance.randrange(1 << 16), 2)
        case 6:
            guest.out(guest.control_port, chance.choice((0, 2, 0x80, 4)))
        case 7:
            size = chance.choice((1, 2, 4))
            guest.out(guest.master + chance.choice((0, 2, 4, 6)), chance.randrange(1 << 8 * size), size)
        case 8:
            guest.prds((chance.choice((0x8000, 0x3F000, 0xFFFF_FFFE)), chance.randrange(1 << 16)))
            guest.start_dma(to_memory=bool(chance.getrandbits(1)))
    _ = guest.get(chance.randrange(1, 8)), guest.alternate


@pytest.mark.parametrize("seed", range(8))
def test_no_access_raises_and_a_reset_mends(ide: IdeGuest, cd: IdeGuest, images: Images, seed: int) -> None:
    chance = random.Random(seed)
    ide.enable_master()
    for _ in range(1500):
        strike(chance.choice((ide, cd)), chance)
        if chance.randrange(200) == 0:
            ide.bus.endpoints[1].restore(ide.bus.endpoints[1].snapshot())
    for guest in (ide, cd):
        guest.out(guest.master, 0)
        guest.reset()

    assert (ide.status, cd.status & BSY) == (READY, 0)
    ide.address(SECTORS - 1, 1)
    assert ide.read_sectors(0x20, 1) == images.disk.read_bytes()[-SECTOR:]
    assert cd.packet(0x25)[0] == (BLOCKS - 1).to_bytes(4, "big") + (2048).to_bytes(4, "big")
    assert images.disc.read_bytes() == images.blocks
    assert len(images.disk.read_bytes()) == SECTORS * SECTOR
