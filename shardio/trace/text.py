"""A trace as lines of text: the time in seconds since it began, who, what, and how long it took."""

from __future__ import annotations

from typing import assert_never

from shardio.trace.values import Access, Doorbell, Interrupt, Life, Lost, Outcome, Record


def line(record: Record, origin_ns: int = 0) -> str:
    """One record as a line, without its end. `origin_ns`: the time that counts as 0.

    >>> line(Interrupt(1_500_000, "raised", 4, shard="io"))
    '    0.001500000 shard io   raised   line 4'
    """
    who, text = _told(record)
    return f"{(record.time_ns - origin_ns) / 1e9:15.9f} {who:<10} {text}"


def _told(record: Record) -> tuple[str, str]:
    match record:
        case Access():
            return _vcpu(record.vcpu), _access(record)
        case Interrupt():
            who = f"shard {record.shard}" if record.vcpu is None else _vcpu(record.vcpu)
            return who, f"{record.what:<8} {'vector' if record.vector else 'line'} {record.number}"
        case Doorbell(index=None):
            return _vcpu(record.vcpu), f"wakes    shard {record.shard}"
        case Doorbell():
            times = f" {record.times} times" if record.times != 1 else ""
            return f"shard {record.shard}", f"doorbell {record.index} of {record.device or '?'}{times}"
        case Life():
            return record.subject, record.event
        case Lost():
            return record.producer, f"lost     {record.count} records"
    assert_never(record)  # type: ignore[arg-type]


def _access(access: Access) -> str:
    direction = "write" if access.write else "read"
    width = f"{access.width}x{access.count}" if access.count else str(access.width)
    value = "" if access.count or not (access.write or access.outcome is Outcome.ANSWERED) else (
        f" {'<-' if access.write else '->'} {access.value:#x}"
    )
    text = f"{direction:<5} {width} {access.space} {access.address:#x}{value} {access.device or '-'}"
    if access.shard is not None:
        text += f" @{access.shard}"
    text += f" {access.outcome}"
    if access.way in ("posted", "coalesced"):
        text += f" {access.way}"
    for name, took in (("wait", access.wait_ns), ("service", access.service_ns)):
        if took is not None:
            text += f" {name} {took / 1000:.3f} us"
    return text


def _vcpu(number: int | None) -> str:
    return "vCPU ?" if number is None else f"vCPU {number}"
