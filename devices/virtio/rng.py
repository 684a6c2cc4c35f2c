"""virtio-rng, the entropy source (virtio 1.2 section 5.4): fills buffers from the host's generator."""

from __future__ import annotations

import os
from typing import Final

from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.queue import Chain

REQUEST_LIMIT: Final = 64 << 10
"""Bytes given for one request at most, so that a huge one does not hold the loop up; the driver asks
again.
"""


class Rng(VirtioDevice):
    """Entropy from getrandom(2)."""

    device_id = 4
    queue_sizes = (64,)

    def serve(self, index: int, chain: Chain) -> int:
        """Fill the writable buffers, up to `REQUEST_LIMIT` bytes in all."""
        filled = 0
        for buffer in chain.writable:
            length = min(len(buffer), REQUEST_LIMIT - filled)
            buffer[:length] = os.urandom(length)
            filled += length
            if filled == REQUEST_LIMIT:
                break
        return filled
