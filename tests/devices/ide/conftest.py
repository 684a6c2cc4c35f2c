"""A disk of 300 sectors on the primary channel, a disc of 40 blocks on the secondary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.devices.ide.guest import IdeGuest, ide_guest, image_of

SECTORS = 300
BLOCKS = 40


class Images(NamedTuple):
    """Files, and what is in them at the start."""

    disk: Path
    disc: Path
    sectors: bytes
    blocks: bytes


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """The two images."""
    disk, disc = tmp_path / "disk.img", tmp_path / "disc.iso"
    return Images(disk, disc, image_of(disk, SECTORS), image_of(disc, BLOCKS, 2048))


@pytest.fixture
def ide(images: Images) -> Iterator[IdeGuest]:
    """The driver of the channel with the disk."""
    with ide_guest(hda=str(images.disk), cdrom=str(images.disc)) as guest:
        yield guest


@pytest.fixture
def cd(ide: IdeGuest) -> IdeGuest:
    """The driver of the channel with the CD-ROM drive."""
    return ide.of(1)
