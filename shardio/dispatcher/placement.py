"""Which device goes to which shard, and which process to which CPU."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence

import msgspec

from shardio._core import lib
from shardio.dispatcher.kinds import is_text
from shardio.errors import MachineError

DEFAULT_SHARDS = 2
"""Shards for devices that name none, where the host has that many CPUs."""


class Shard(msgspec.Struct, frozen=True, weakref=True):
    """A device-owner process of one machine: `name`, and the CPU that it is pinned to (None: see `pin` of
    `Machine` and `Dispatcher`).
    """

    name: str
    cpu: int | None = None


_owners: dict[int, tuple[weakref.ref[Shard], weakref.ref[object], str]] = {}
"""By the `id` of each Shard that was given to a dispatcher: both, and what messages call the dispatcher."""


def take_shards(shards: object, owner: object, noun: str) -> None:
    """The `Shard`s among `shards` are `owner`'s until `give_shards_back`, or until nobody holds it.

    Raises `MachineError` for one that is another's: it is one process, not a pattern for several.
    """
    mine = [shard for shard in shards if isinstance(shard, Shard)] if isinstance(shards, Sequence) else []
    for shard in mine:
        held, other, whose = _owners.get(id(shard), (None, None, ""))
        if held is None or other is None or held() is not shard or other() in (None, owner):
            continue
        raise MachineError(
            f"shard {shard.name!r} is another {whose}'s", f"give each {noun} a Shard of its own, or a name"
        )
    for shard in mine:
        _owners[id(shard)] = weakref.ref(shard), weakref.ref(owner), noun


def give_shards_back(owner: object) -> None:
    """`owner`, which is closed, has no shards any more; nor has anyone who is gone."""
    for key, (shard, other, _) in tuple(_owners.items()):
        if shard() is None or other() in (None, owner):
            _owners.pop(key, None)


def check_shards(shards: object) -> None:
    """Raises `MachineError` unless it is what `Machine` takes: None, a number, or `Shard`s and names."""
    if shards is None:
        return
    if isinstance(shards, str) or not isinstance(shards, int | Sequence):
        raise MachineError(f"shards={shards!r}", "give their number, or a list of Shards and names")
    count = shards if isinstance(shards, int) else len([shard_name(shard) for shard in shards])
    if not 1 <= count <= lib.SIO_MAX_SHARDS:
        raise MachineError(f"{count} shards", f"use 1 to {lib.SIO_MAX_SHARDS}")


def shard_name(shard: object) -> str:
    """The name of a `Shard`, or the name itself. Raises `MachineError` for what is neither."""
    name = shard.name if isinstance(shard, Shard) else shard
    if not isinstance(name, str) or not is_text(name):
        raise MachineError(f"no shard {shard!r}", "give a Shard, or a name")
    return name


class Placement:
    """Shards by name, in the order of their numbers; devices that name none go where the fewest are."""

    def __init__(self, shards: int | Sequence[Shard | str] | None, named: Iterable[str]) -> None:
        """`shards`: `Machine`'s argument; `named`: what devices ask for.

        Raises `MachineError` for more shards than a fabric holds, or two of one name.
        """
        given = [] if shards is None or isinstance(shards, int) else list(shards)
        declared = [Shard(shard) if isinstance(shard, str) else shard for shard in given]
        self.names: list[str] = [shard.name for shard in declared]
        if len(set(self.names)) < len(self.names):
            raise MachineError("two shards have one name", "give each Shard its own")
        self.cpus: list[int | None] = [shard.cpu for shard in declared]
        self._devices: list[int] = [0] * len(declared)
        for name in dict.fromkeys(named):
            if name not in self.names:
                self.add_shard(name)
        default = min(DEFAULT_SHARDS, os.cpu_count() or 1) if shards is None else 1
        number = 0
        while len(self.names) < (shards if isinstance(shards, int) else default):
            if f"shard{number}" not in self.names:
                self.add_shard(f"shard{number}")
            number += 1

    def place(self, shard: str | None, replicas: int = 1) -> tuple[int, ...]:
        """The numbers of the shards for a device: the one that it names and, for replicas, the next ones.

        Without a name: those with the fewest devices. Raises `MachineError` for more replicas than shards, or
        a name that nobody knows.
        """
        if not 1 <= replicas <= len(self.names):
            hint = "ask for as many replicas as there are shards"
            raise MachineError(f"{replicas} replicas on {len(self.names)} shards", hint)
        if shard is None:
            chosen = tuple(sorted(range(len(self.names)), key=lambda i: (self._devices[i], i))[:replicas])
        elif shard in self.names:
            first = self.names.index(shard)
            chosen = tuple((first + i) % len(self.names) for i in range(replicas))
        else:
            raise MachineError(f"no shard named {shard!r}", f"use one of {', '.join(self.names)}")
        for number in chosen:
            self._devices[number] += 1
        return chosen

    def release(self, chosen: Iterable[int]) -> None:
        """A device that was placed there is gone."""
        for number in chosen:
            self._devices[number] -= 1

    def add_shard(self, name: str) -> None:
        """One more shard, with the next number."""
        self.names.append(name)
        self.cpus.append(None)
        self._devices.append(0)


def pins(
    pin: bool | None, vcpus: int, shard_cpus: Sequence[int | None]
) -> tuple[Sequence[int | None], Sequence[int | None]]:
    """The CPU of each vCPU worker and of each shard, None where it may run anywhere.

    Pinned by default only where everyone has a CPU of its own; with `pin=True` CPUs are shared, vCPUs and
    shards apart where that can be. A shard's own choice (`shard_cpus`) stands in any case.
    """
    cpus, shards = sorted(os.sched_getaffinity(0)), len(shard_cpus)
    if pin is False or (pin is None and len(cpus) < vcpus + shards):
        return [None] * vcpus, shard_cpus
    chosen = [cpus[(vcpus + i) % len(cpus)] if own is None else own for i, own in enumerate(shard_cpus)]
    return [cpus[i % len(cpus)] for i in range(vcpus)], chosen
