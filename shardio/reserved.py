"""Addresses that KVM answers itself: a device there never sees an access.

Facts. With the in-kernel interrupt controllers and PIT, KVM looks at their registers before it leaves the
guest (virt/kvm/kvm_main.c, `kvm_io_bus_read`); nothing tells the VMM. With the split irqchip that is so for
the local APIC alone. Real mode needs four pages of memory on some processors (`Vm.set_identity_map_addr`,
`Vm.set_tss_addr`), whatever the irqchip.

Consequences. A device is refused where such registers take its range's first or last address: it would lose
all of itself, or one end. A range that goes on at both sides of them is a window with a hole in it, as the
address space of a PC has them, and is taken: a PCI window around the IOAPIC, a keyboard controller whose
ports have the PIT's 0x61 in between.
"""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

from shardio.range import MmioRange, PioRange

LOCAL_APIC: Final = 0xFEE0_0000
"""Guest address of each vCPU's local APIC (KVM's in-kernel interrupt controller)."""
IO_APIC: Final = 0xFEC0_0000
REAL_MODE_PAGES: Final = 0xFEFF_C000
"""Guest address of KVM's own pages for real mode: an identity map and, a page further, a TSS of three."""

_ELSEWHERE = "place it elsewhere"
_WITHOUT = _ELSEWHERE + ", or leave these addresses to devices by the option irqchip: {}"


class Reserved(NamedTuple):
    """Addresses that KVM answers: the `span`, what answers there, and the `hint` for a device there."""

    span: PioRange | MmioRange
    answers: str
    hint: str = _ELSEWHERE

    @property
    def who(self) -> str:
        """What answers, and where."""
        return f"{self.answers} ({self.span})"


_ALWAYS = (Reserved(MmioRange(REAL_MODE_PAGES, 0x4000), "KVM's memory for real mode"),)
_LOCAL_APIC = (
    Reserved(MmioRange(LOCAL_APIC, 0x1000), "the in-kernel local APIC", _WITHOUT.format("false")),
)
_BOARD = tuple(
    Reserved(span, f"the in-kernel {who}", _WITHOUT.format('false or "split"'))
    for span, who in (
        (MmioRange(IO_APIC, 0x100), "IOAPIC"),
        (PioRange(0x20, 2), "PIC"),
        (PioRange(0xA0, 2), "PIC"),
        (PioRange(0x4D0, 2), "PIC"),
        (PioRange(0x40, 4), "PIT"),
        (PioRange(0x61, 1), "PIT"),
    )
)


def reserved_by_soft(span: PioRange | MmioRange, apic: bool) -> Reserved | None:
    """Who answers in place of a device at `span` on a software CPU: its local APIC alone, where there is one.

    >>> reserved_by_soft(MmioRange(LOCAL_APIC + 0x100, 4), True).who
    'the local APIC (MMIO [0xfee00000, 0xfee00fff])'
    """
    local = Reserved(MmioRange(LOCAL_APIC, 0x1000), "the local APIC", _WITHOUT.format("false"))
    return local if apic and (span.base in local.span or span.last in local.span) else None


def reserved_by_kvm(span: PioRange | MmioRange, irqchip: bool | str) -> Reserved | None:
    """Who answers in place of a device at `span`, None where it is reached; `irqchip` as in `Machine`.

    >>> reserved_by_kvm(PioRange(0x20, 2), True).who
    'the in-kernel PIC (PIO [0x20, 0x21])'
    >>> reserved_by_kvm(PioRange(0x20, 2), "split"), reserved_by_kvm(PioRange(0x60, 5), True)
    (None, None)
    """
    parts = (_ALWAYS, _LOCAL_APIC if irqchip else (), _BOARD if irqchip is True else ())
    for reserved in itertools.chain(*parts):
        if span.base in reserved.span or span.last in reserved.span:
            return reserved
    return None
