"""What every virtio transport keeps: status bits, feature bits, the set-up of a queue, and all of it as
a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import Final

import msgspec

from shardio.devices.virtio.queue import QueueState, VirtQueue

F_INDIRECT_DESC: Final = 1 << 28
F_EVENT_IDX: Final = 1 << 29
F_VERSION_1: Final = 1 << 32
TRANSPORT_FEATURES: Final = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1

NO_VECTOR: Final = 0xFFFF
"""VIRTIO_MSI_NO_VECTOR: no MSI-X vector is assigned."""


def replace_half(address: int, high: bool, word: int) -> int:
    """`address` (64 bits) with one 32-bit half replaced.

    >>> hex(replace_half(0x1_0000_2000, False, 0x3000))
    '0x100003000'
    """
    return (address & 0xFFFFFFFF) | word << 32 if high else (address & ~0xFFFFFFFF) | word


class Status(IntFlag):
    """Device status bits (virtio 1.2 section 2.1)."""

    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    NEEDS_RESET = 64
    FAILED = 128


@dataclass(slots=True)
class QueueSetup:
    """What the driver wrote about one queue: its size in entries and guest physical addresses."""

    max_size: int
    size: int
    desc: int = 0
    driver: int = 0
    device: int = 0
    vector: int = NO_VECTOR
    live: VirtQueue | None = None


class SetupState(msgspec.Struct, frozen=True):
    """`QueueSetup` as a value; `live` is None for a queue that is not enabled."""

    size: int
    desc: int
    driver: int
    device: int
    vector: int
    live: QueueState | None


class CoreState(msgspec.Struct, frozen=True):
    """Everything that the driver set, and where each queue stands. Bits and widths as in `TransportCore`;
    `device`: what the device type keeps (`VirtioDevice.save`).
    """

    status: int
    accepted: int
    generation: int
    features_page: int
    driver_features_page: int
    queue_select: int
    queues: tuple[SetupState, ...]
    device: bytes = b""
