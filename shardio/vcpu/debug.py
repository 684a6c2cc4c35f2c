"""What a debugger asks of a vCPU when it lets it go on, and why the vCPU stands still again."""

from __future__ import annotations

import msgspec

HARDWARE_BREAKPOINTS = 4
"""Debug registers of an x86 processor: Intel SDM volume 3, 18.2."""


class Watch(msgspec.Struct, frozen=True):
    """`size` bytes of guest memory at linear `address`; `kind`: "write", "read" or "access"."""

    address: int
    size: int
    kind: str


class DebugPlan(msgspec.Struct, frozen=True):
    """How a vCPU goes on: one instruction (`step`), or until it comes to something. All addresses are linear.

    `planted`: breakpoints whose instruction is in guest memory (`Vcpu.trap`), `breakpoints`: those that the
    CPU is to know, `hardware`: those for its debug registers. `wrote`: guest memory has been written since
    it stood still.
    """

    step: bool = False
    planted: frozenset[int] = frozenset()
    breakpoints: frozenset[int] = frozenset()
    hardware: frozenset[int] = frozenset()
    watches: tuple[Watch, ...] = ()
    wrote: bool = False


class DebugStop(msgspec.Struct, frozen=True):
    """Why a vCPU stands still for a debugger. `kind`: "halt" (it was told to), "step", "breakpoint",
    "hardware" (a breakpoint in a debug register), "watch", "trap" (the guest's own INT1 or INT3) or "fault"
    (an exit that ends it). `watch`: what was met; `detail`: the fault's text.
    """

    kind: str
    watch: Watch | None = None
    detail: str = ""
