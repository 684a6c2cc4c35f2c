"""Makes values of raw records: an access is one value, although its vCPU and its shard each recorded their
side of it.

Facts. Both sides name the message that carried the access: the vCPU, the shard, and the sequence number of
the request or the position in the posted ring. The two records are written within microseconds of each other
where the vCPU waits, unless the host has given the shard's CPU to another program; a posted write may be
served much later, and a record may be lost.

Consequences. A record is held back until its other side has come, and for `HOLD_NS` at most. What is given
out together is in the order of its times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shardio._core import lib
from shardio.trace.rings import NO_RANGE, Clock, Raw
from shardio.trace.values import Access, Doorbell, Interrupt, Outcome, Record, Way

HOLD_NS = 1_000_000_000
_OUTCOMES = {
    lib.SIO_TRACE_ANSWERED: Outcome.ANSWERED,
    lib.SIO_TRACE_REFUSED: Outcome.REFUSED,
    lib.SIO_TRACE_UNCLAIMED: Outcome.UNCLAIMED,
    lib.SIO_TRACE_CROSSING: Outcome.CROSSING,
    lib.SIO_TRACE_QUARANTINED: Outcome.QUARANTINED,
    lib.SIO_TRACE_ABORTED: Outcome.ABORTED,
}
_SPACES = ("pio", "mmio")
_POSTED = lib.SIO_TRACE_POSTED
_Key = tuple[int, int, int, int]


class Join:
    """`device(range)` names a device, None where there is none; `shard(number)` a shard. What begins before
    the tick `began` is an earlier trace's.
    """

    def __init__(
        self, clock: Clock, device: Callable[[int], str | None], shard: Callable[[int], str], began: int = 0
    ) -> None:
        self._clock = clock
        self._device = device
        self._shard = shard
        self._began = began
        self._accesses: dict[_Key, Raw] = {}
        self._services: dict[_Key, Raw] = {}
        self._ready: list[Record] = []

    def anew(self) -> Join:
        """Another one, that holds nothing."""
        return Join(self._clock, self._device, self._shard, self._began)

    def add(self, records: Iterable[Raw]) -> None:
        """Records of any rings, those of one ring in their order."""
        for raw in records:
            if raw.begin < self._began:
                continue
            match raw.kind:
                case lib.SIO_TRACE_ACCESS:
                    self._add_access(raw)
                case lib.SIO_TRACE_SERVICE:
                    self._add_service(raw)
                case _ if (made := self._other(raw)) is not None:
                    self._ready.append(made)

    def take(self, now_ns: int | None) -> list[Record]:
        """What is not to be held back any more at this time; None: all."""
        for held, value in ((self._accesses, self._of_client), (self._services, self._of_owner)):
            for key, raw in list(held.items()):
                if now_ns is None or self._clock.ns(raw.end) + HOLD_NS < now_ns:
                    del held[key]
                    self._ready.append(value(raw))
        ready, self._ready = self._ready, []
        ready.sort(key=lambda record: record.time_ns)
        return ready

    def _add_access(self, raw: Raw) -> None:
        if raw.outcome >= lib.SIO_TRACE_UNCLAIMED and raw.outcome != lib.SIO_TRACE_ABORTED:
            self._ready.append(self._of_client(raw))
        elif (service := self._services.pop(_key(raw), None)) is not None:
            self._ready.append(self._of_client(raw, service))
        else:
            self._hold(self._accesses, raw, self._of_client)

    def _add_service(self, raw: Raw) -> None:
        if raw.flags & lib.SIO_TRACE_COALESCED:
            self._ready.append(self._of_owner(raw))
        elif (access := self._accesses.pop(_key(raw), None)) is not None:
            self._ready.append(self._of_client(access, raw))
        else:
            self._hold(self._services, raw, self._of_owner)

    def _hold(self, held: dict[_Key, Raw], raw: Raw, value: Callable[[Raw], Record]) -> None:
        if (before := held.pop(_key(raw), None)) is not None:  # told twice, by a shard that lies
            self._ready.append(value(before))
        held[_key(raw)] = raw

    def _of_client(self, raw: Raw, service: Raw | None = None) -> Access:
        ns, space = self._clock.ns, _SPACES[bool(raw.flags & lib.SIO_TRACE_MMIO)]
        begin, unsent = ns(raw.begin), raw.range == NO_RANGE
        way = Way.NOWHERE if unsent else Way.POSTED if raw.flags & _POSTED else Way.WAITED
        outcome = _OUTCOMES.get(raw.outcome, Outcome.REFUSED)
        served = None if service is None else ns(service.begin)
        if service is not None and way is Way.POSTED:  # whether its handler failed, its shard alone knows
            outcome = _OUTCOMES.get(service.outcome, Outcome.REFUSED)
        return Access(
            begin, raw.vcpu, self._device(raw.range),
            None if unsent else self._shard(raw.shard), space, raw.address, raw.size,
            bool(raw.flags & lib.SIO_TRACE_WRITE), raw.value, outcome, way, raw.elements, ns(raw.end) - begin,
            served, None if service is None or served is None else ns(service.end) - served,
        )  # fmt: skip

    def _of_owner(self, raw: Raw) -> Access:
        ns, space = self._clock.ns, _SPACES[bool(raw.flags & lib.SIO_TRACE_MMIO)]
        begin = ns(raw.begin)
        way = Way.COALESCED if raw.flags & lib.SIO_TRACE_COALESCED else Way.WAITED
        return Access(
            begin, None if raw.vcpu == lib.SIO_TRACE_NO_VCPU else raw.vcpu,
            self._device(raw.range), self._shard(raw.shard), space, raw.address, raw.size,
            bool(raw.flags & lib.SIO_TRACE_WRITE), raw.value, _OUTCOMES.get(raw.outcome, Outcome.REFUSED),
            Way.POSTED if raw.flags & _POSTED else way, raw.elements, None, begin, ns(raw.end) - begin,
        )  # fmt: skip

    def _other(self, raw: Raw) -> Record | None:
        time_ns = self._clock.ns(raw.begin)
        match raw.kind:
            case lib.SIO_TRACE_RAISED:
                what = "raised" if raw.value else "lowered"
                return Interrupt(time_ns, what, raw.address, shard=self._shard(raw.shard))
            case lib.SIO_TRACE_DELIVERED if raw.size:
                return Interrupt(time_ns, "delivered", raw.value, vcpu=raw.vcpu, vector=True)
            case lib.SIO_TRACE_DELIVERED:
                lines = [line for line in range(64) if raw.value >> line & 1]
                self._ready += [
                    Interrupt(time_ns, "delivered", line, vcpu=raw.vcpu) for line in lines[1:]
                ]
                return Interrupt(time_ns, "delivered", lines[0], vcpu=raw.vcpu) if lines else None
            case lib.SIO_TRACE_DOORBELL:
                return Doorbell(time_ns, self._shard(raw.shard), vcpu=raw.vcpu)
            case lib.SIO_TRACE_RUNG:
                shard, device = self._shard(raw.shard), self._device(raw.range)
                return Doorbell(time_ns, shard, None, device, raw.address, raw.value)
        return None  # of a shard that lies


def _key(raw: Raw) -> _Key:
    return raw.vcpu, raw.shard, raw.flags & _POSTED, raw.message
