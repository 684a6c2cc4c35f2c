"""What a shard is told of a device, and which memory and descriptors it gets with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from shardio.dispatcher.device import DeviceHandle, IrqMode
from shardio.errors import MachineError
from shardio.memory import GuestMemory
from shardio.persistent import persistent_memory
from shardio.range import PioRange
from shardio.shard.protocol import DeviceSpec, RangeSpec, ShareMemory, ShareRing
from shardio.supervisor import DeviceRecord, ShardProcess

if TYPE_CHECKING:
    from shardio.dispatcher.recording import RecordingFile
    from shardio.vcpu import Hypervisor


class Records:
    """`memory`: guest RAM, for devices that do DMA; `hypervisor`: whose ring coalesced writes go through."""

    def __init__(self, memory: GuestMemory | None, hypervisor: Hypervisor | None) -> None:
        self._memory, self._hypervisor = memory, hypervisor
        self.recording: RecordingFile | None = None
        """What the devices that it wants are recorded into, in their shards."""
        self._persistent: dict[str, int] = {}
        """The memory of devices whose state outlives their owner, by name."""

    def forget(self, name: str) -> None:
        """The device of that name is gone, and its state with it."""
        if (fd := self._persistent.pop(name, -1)) >= 0:
            os.close(fd)

    def close(self) -> None:
        """Every device is gone. Idempotent."""
        while self._persistent:
            os.close(self._persistent.popitem()[1])

    def make(self, handle: DeviceHandle, shards: Iterable[ShardProcess], *, coalesced: bool) -> DeviceRecord:
        """The record of a device that has its routes; `shards`, which get it, are given what it shares.

        Raises `MachineError` for DMA where there is no memory.
        """
        request = handle.request
        for shard in shards:
            if request.dma:
                if self._memory is None:
                    raise MachineError(
                        f"device {request.name} does DMA and there is no memory", "give memory="
                    )
                shard.share(ShareMemory(self._memory.size), self._memory.fd)
            if coalesced:
                assert self._hypervisor is not None
                ring = self._hypervisor.coalesced()
                shard.share(ShareRing(ring.page), ring.fd)
        ranges = [
            RangeSpec(
                route.index,
                "pio" if isinstance(span, PioRange) else "mmio",
                int(span.base),
                span.size,
                route.posted,
                coalesced,
            )
            for span, route in zip(handle.spans, handle.routes, strict=True)
        ]
        irq = -1 if request.irq is None else request.irq
        level, followed = request.irq_mode is not IrqMode.EDGE, request.irq_mode is IrqMode.FOLLOWED
        passed, persistent = list(request.pass_fds), -1
        if any(request.persistent):
            if handle.name not in self._persistent:
                self._persistent[handle.name] = persistent_memory(*request.persistent)
            persistent = self._persistent[handle.name]
            passed.append(persistent)
        recorded = -1
        if self.recording is not None and self.recording.wants(handle.name):
            recorded = self.recording.fd
            passed.append(recorded)
        spec = DeviceSpec(
            request.name, request.packed, ranges, request.kind, request.dma, irq, level, passed, followed,
            persistent, *request.persistent, request.capabilities, request.message_modes, recorded,
            request.profile,
        )  # fmt: skip
        return DeviceRecord(spec, passed)
