"""What a vCPU of KVM takes when it goes on: exceptions and interrupts (KVM_SET_VCPU_EVENTS)."""

from __future__ import annotations

from typing import Any

from shardio.errors import VcpuError
from shardio.kvm.vcpu import Vcpu

_LAST_EXCEPTION = 31
_VECTORS = 256


def pending_exception(vcpu: Vcpu) -> int | None:
    """The vector of an exception or interrupt that is to be delivered, None without one. KVM does not tell of
    #BP and #OF.
    """
    events = vcpu.get_events()
    if events.exception.injected or events.exception.pending:
        return int(events.exception.nr)
    return int(events.interrupt.nr) if events.interrupt.injected else None


def raise_exception(vcpu: Vcpu, vector: int, error_code: int | None = None) -> None:
    """Have `vector` delivered, and nothing else. One above 31 goes as an external interrupt does, which
    returns to `rip` whatever the hardware; KVM has no exceptions there.

    Raises `VcpuError` for what is no vector.
    """
    if not 0 <= vector < _VECTORS:
        raise VcpuError(vcpu.index, f"has no vector {vector}", "use 0 to 255")
    events = _without_exception(vcpu)
    if vector <= _LAST_EXCEPTION:
        events.exception.injected, events.exception.nr = 1, vector
        events.exception.has_error_code = error_code is not None
        events.exception.error_code = error_code or 0
    else:
        events.interrupt.injected, events.interrupt.nr, events.interrupt.soft = 1, vector, 0
    vcpu.set_events(events)


def cancel_exception(vcpu: Vcpu) -> None:
    """No exception is delivered."""
    vcpu.set_events(_without_exception(vcpu))


def _without_exception(vcpu: Vcpu) -> Any:
    events = vcpu.get_events()
    events.exception.injected = events.exception.pending = 0
    return events
