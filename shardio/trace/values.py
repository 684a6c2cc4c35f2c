"""What a trace consists of, as frozen values. Times are nanoseconds of CLOCK_MONOTONIC, durations too."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Outcome(StrEnum):
    """How a traced access ended."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """Its device failed, or nobody answered in its place: the guest read all-ones, its write was dropped."""
    UNCLAIMED = "unclaimed"
    CROSSING = "crossing"
    """It ran past its range's end."""
    QUARANTINED = "quarantined"
    ABORTED = "aborted"
    """The machine stopped while it waited."""


class Way(StrEnum):
    """How an access reached its device."""

    WAITED = "waited"
    """The vCPU waited for the answer."""
    POSTED = "posted"
    COALESCED = "coalesced"
    """Through the hypervisor's ring, without an exit: nobody knows which vCPU made it."""
    NOWHERE = "nowhere"
    """It was sent to no shard."""


class Record(msgspec.Struct, frozen=True):
    """Base of all: `time_ns`, when it began."""

    time_ns: int


class Access(Record, frozen=True):
    """One access. `vcpu`: None where nobody knows; `device`: None where it has none; `width` in bytes, of a
    string (`count` elements, else 0) each element's, and `value` is 0 then.

    `wait_ns`: how long the vCPU was occupied with it; `service_ns`: how long its shard was, with the device's
    handler and the reply, from `service_time_ns` on. None where that side of it has not been traced.
    """

    vcpu: int | None
    device: str | None
    shard: str | None
    space: str
    address: int
    width: int
    write: bool
    value: int
    outcome: Outcome
    way: Way
    count: int = 0
    wait_ns: int | None = None
    service_time_ns: int | None = None
    service_ns: int | None = None


class Interrupt(Record, frozen=True):
    """A device of `shard` has "raised" or "lowered" the line or message `number` (its GSI), or a vCPU has
    "delivered" one: the lines that it raised in its VM's controllers, or, for `vector`, the vector that it
    takes. What the kernel delivers by itself is not seen.
    """

    what: str
    number: int
    shard: str | None = None
    vcpu: int | None = None
    vector: bool = False


class Doorbell(Record, frozen=True):
    """A vCPU wakes the shard, which sleeps; or (`index`) a device's doorbell of this index was rung so many
    `times`.
    """

    shard: str
    vcpu: int | None = None
    device: str | None = None
    index: int | None = None
    times: int = 1


class Life(Record, frozen=True):
    """A worker or a shard began, died, or was mended: `subject` is "vCPU 0" or "shard io"."""

    subject: str
    event: str


class Lost(Record, frozen=True):
    """Records that `producer` has written over before they were collected, or left unfinished."""

    producer: str
    count: int
