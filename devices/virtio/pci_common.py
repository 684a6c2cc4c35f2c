"""`CommonConfig`: struct virtio_pci_common_cfg (virtio 1.2 section 4.1.4.3) in front of a `TransportCore`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from shardio.devices.virtio.state import NO_VECTOR
from shardio.devices.virtio.transport import TransportCore

# Offsets of the fields.
DEVICE_FEATURE_SELECT: Final = 0x00
DEVICE_FEATURE: Final = 0x04
DRIVER_FEATURE_SELECT: Final = 0x08
DRIVER_FEATURE: Final = 0x0C
CONFIG_VECTOR: Final = 0x10
NUM_QUEUES: Final = 0x12
STATUS: Final = 0x14
CONFIG_GENERATION: Final = 0x15
QUEUE_SELECT: Final = 0x16
QUEUE_SIZE: Final = 0x18
QUEUE_VECTOR: Final = 0x1A
QUEUE_ENABLE: Final = 0x1C
QUEUE_NOTIFY_OFF: Final = 0x1E
QUEUE_DESC: Final = 0x20
QUEUE_DRIVER: Final = 0x28
QUEUE_DEVICE: Final = 0x30

_ADDRESSES: Final = {QUEUE_DESC: "desc", QUEUE_DRIVER: "driver", QUEUE_DEVICE: "device"}


class CommonConfig:
    """The registers, each answered at its own width alone, and `config_vector`."""

    def __init__(self, core: TransportCore, vectors: int, on_reset: Callable[[], object]) -> None:
        """`vectors`: entries of the MSI-X table; `on_reset`: called when the driver has reset the device."""
        self.core = core
        self.config_vector = NO_VECTOR
        self._vectors = vectors
        self._on_reset = on_reset
        self._reads: dict[tuple[int, int], Callable[[], int]] = {
            (DEVICE_FEATURE_SELECT, 4): lambda: core.features_page,
            (DEVICE_FEATURE, 4): core.features_word,
            (DRIVER_FEATURE_SELECT, 4): lambda: core.driver_features_page,
            (DRIVER_FEATURE, 4): core.accepted_word,
            (CONFIG_VECTOR, 2): lambda: self.config_vector,
            (NUM_QUEUES, 2): lambda: len(core.queues),
            (STATUS, 1): lambda: core.status,
            (CONFIG_GENERATION, 1): lambda: core.generation & 0xFF,
            (QUEUE_SELECT, 2): lambda: core.queue_select,
            (QUEUE_SIZE, 2): lambda: core.queue.size if core.queue else 0,
            (QUEUE_VECTOR, 2): lambda: core.queue.vector if core.queue else NO_VECTOR,
            (QUEUE_ENABLE, 2): lambda: int(core.queue is not None and core.queue.live is not None),
            (QUEUE_NOTIFY_OFF, 2): lambda: core.queue_select if core.queue else 0,
        }
        self._writes: dict[tuple[int, int], Callable[[int], None]] = {
            (DEVICE_FEATURE_SELECT, 4): lambda page: setattr(core, "features_page", page),
            (DRIVER_FEATURE_SELECT, 4): lambda page: setattr(core, "driver_features_page", page),
            (DRIVER_FEATURE, 4): core.accept_features,
            (CONFIG_VECTOR, 2): self._set_config_vector,
            (STATUS, 1): self._write_status,
            (QUEUE_SELECT, 2): lambda index: setattr(core, "queue_select", index),
            (QUEUE_SIZE, 2): lambda size: core.set_queue("size", size),
            (QUEUE_VECTOR, 2): self._set_queue_vector,
            # A 0 does nothing: it would need VIRTIO_F_RING_RESET (section 4.1.4.3.2), which is not offered.
            (QUEUE_ENABLE, 2): core.write_enable,
        }
        for at, name in _ADDRESSES.items():
            self._reads[at, 8] = self._address_reader(name, 0)
            self._reads[at, 4] = self._address_reader(name, 0)
            self._reads[at + 4, 4] = self._address_reader(name, 32)
            self._writes[at, 8] = partial(core.set_queue, name)
            self._writes[at, 4] = core.half_writer(name, high=False)
            self._writes[at + 4, 4] = core.half_writer(name, high=True)

    def read(self, offset: int, size: int) -> int:
        """The field at `offset`, of `size` bytes; 0 where no field of that width begins."""
        field = self._reads.get((offset, size))
        return field() & ((1 << 8 * size) - 1) if field is not None else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Write the field; dropped where no field of that width begins, or it is read-only."""
        field = self._writes.get((offset, size))
        if field is not None:
            field(value)

    def _address_reader(self, name: str, shift: int) -> Callable[[], int]:
        return lambda: getattr(self.core.queue, name) >> shift if self.core.queue else 0

    def _write_status(self, value: int) -> None:
        self.core.write_status(value)
        if value & 0xFF == 0:
            self.config_vector = NO_VECTOR
            self._on_reset()

    def _set_config_vector(self, vector: int) -> None:
        self.config_vector = self._valid(vector)

    def _set_queue_vector(self, vector: int) -> None:
        queue = self.core.queue
        if queue is not None:
            queue.vector = self._valid(vector)

    def _valid(self, vector: int) -> int:
        """The driver reads NO_VECTOR back where a vector cannot be had (section 4.1.5.1.2.1)."""
        return vector if vector < self._vectors else NO_VECTOR
