"""Which device goes to which shard, and which process to which CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from shardio.errors import MachineError

DEFAULT_SHARDS = 2
"""Shards for devices that name none, where the machine has that many CPUs."""


class Placement:
    """Shards by name, in the order of their numbers; devices that name none are spread over the unnamed ones."""

    def __init__(self, shards: int | None, explicit: Iterable[str]) -> None:
        """`shards`: how many in all, at least (None: chosen); `explicit`: the names that devices ask for."""
        self.names: list[str] = list(dict.fromkeys(explicit))
        wanted = min(DEFAULT_SHARDS, os.cpu_count() or 1) if shards is None else shards
        number = 0
        while len(self.names) < wanted:
            name = f"shard{number}"
            if name not in self.names:
                self.names.append(name)
            number += 1
        self._devices = dict.fromkeys(self.names, 0)

    def place(self, shard: str | None, replicas: int = 1) -> tuple[int, ...]:
        """The numbers of the shards for a device: the one that it names (and the next ones for its replicas), or those with
        the fewest devices. Raises `MachineError` for more replicas than shards, or a name that nobody knows.
        """
        if replicas < 1 or replicas > len(self.names):
            raise MachineError(f"{replicas} replicas on {len(self.names)} shards", "ask for as many replicas as there are shards")
        if shard is None:
            by_load = sorted(range(len(self.names)), key=lambda i: (self._devices[self.names[i]], i))
            chosen = tuple(by_load[:replicas])
        else:
            if shard not in self._devices:
                raise MachineError(f"no shard named {shard!r}", f"use one of {', '.join(self.names)}")
            first = self.names.index(shard)
            chosen = tuple((first + i) % len(self.names) for i in range(replicas))
        for number in chosen:
            self._devices[self.names[number]] += 1
        return chosen

    def add_shard(self, name: str) -> int:
        """One more shard; its number."""
        self.names.append(name)
        self._devices[name] = 0
        return len(self.names) - 1


def pins(pin: bool | None, vcpus: int, shards: int) -> tuple[Sequence[int | None], Sequence[int | None]]:
    """The CPU of each vCPU worker and of each shard, None where it may run anywhere.

    Pinned by default only where everyone has a CPU of its own; with `pin=True` CPUs are shared, vCPUs and shards apart
    where that can be.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if pin is False or (pin is None and len(cpus) < vcpus + shards):
        return [None] * vcpus, [None] * shards
    return [cpus[i % len(cpus)] for i in range(vcpus)], [cpus[(vcpus + i) % len(cpus)] for i in range(shards)]
