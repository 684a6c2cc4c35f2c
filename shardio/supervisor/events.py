"""What happens in a dispatcher while it runs, as frozen values: see `Dispatcher.events`."""

from __future__ import annotations

import msgspec


class Event(msgspec.Struct, frozen=True):
    """Base of all events."""


class ShardDied(Event, frozen=True):
    """A shard's process ended: `cause` is the signal's name or the exit status."""

    shard: str
    pid: int
    cause: str


class ShardHung(Event, frozen=True):
    """A shard is killed because `vcpu` waited too long for it: for which `device`, in which `access`; at
    which `step` of a device's life it was, and its Python `stacks`.
    """

    shard: str
    vcpu: int
    device: str
    access: str
    step: str
    stacks: str


class ShardRecovered(Event, frozen=True):
    """A successor holds all devices of a shard that died, `seconds` after its death was noticed."""

    shard: str
    pid: int
    seconds: float


class RangesQuarantined(Event, frozen=True):
    """A request has killed two owners: nobody answers its range any more. `devices` have the ranges."""

    shard: str
    devices: tuple[str, ...]


class ShardQuarantined(Event, frozen=True):
    """A shard has died too often (`deaths`) and gets no successor; nobody answers for its `devices`."""

    shard: str
    deaths: int
    devices: tuple[str, ...]


class ShardWaitedFor(Event, frozen=True):
    """A vCPU has waited for a shard that has no deadline: it hangs, or is at a debugger's prompt. `stopped`:
    by a signal or a tracer. Told once for each access.
    """

    shard: str
    pid: int
    vcpu: int
    stopped: bool


class HandlerFailed(Event, frozen=True):
    """A device's handler raised; told once for each place in its code. `error`: direction, type and text."""

    shard: str
    device: str
    error: str


class WorkerReplaced(Event, frozen=True):
    """A vCPU's worker was killed by `signal` (0: unknown) and another one resumed its vCPU."""

    vcpu: int
    signal: int


class VcpuEnded(Event, frozen=True):
    """A vCPU has ended, or the process that used an external one has. `detail`: why."""

    vcpu: int
    pid: int
    detail: str


class HookFailed(Event, frozen=True):
    """The function given to `Machine.on_exit` failed at an exit of this vCPU: the machine ends."""

    vcpu: int
    error: str


class ExitRequested(Event, frozen=True):
    """A device asked to end the machine with this exit `status`."""

    status: int


class ResetRequested(Event, frozen=True):
    """A device asked to reset the machine."""


class Failed(Event, frozen=True):
    """Something could not be started or mended: the machine ends with this `error`."""

    error: str
