"""Where KVM answers, no device can: `shardio.reserved` against the KVM at hand, and what a machine does."""

from __future__ import annotations

import pytest

from shardio import MmioRange, PioRange, RangeTaken
from shardio.reserved import _BOARD, _LOCAL_APIC, Reserved
from tests.e2e.devices import Recorder
from tests.e2e.support import PATIENCE_S, add_exit_port, machine
from tests.guests.build import guest
from tests.kvm.tiny_vmm import EXIT_PORT, tiny_vmm

pytestmark = pytest.mark.kvm

WORD = 4
"""Bytes of the widest access of the guest "unclaimed"; its narrowest has one."""
in_kernel = pytest.mark.parametrize("reserved", [*_LOCAL_APIC, *_BOARD], ids=lambda found: str(found.span))


def left_for(address: int, kind: type[PioRange | MmioRange], irqchip: bool = True) -> set[int]:
    """The widths of accesses at `address` that KVM left to its VMM; each was made once as read and write."""
    where = {"PORT" if kind is PioRange else "ADDRESS": address}
    with tiny_vmm(irqchip=irqchip) as vmm:
        vmm.load(guest("unclaimed", **where))
        vmm.run()
        return {size for _, _, at, size, _ in vmm.exits if at == address and at != EXIT_PORT}


@in_kernel
def test_kvm_leaves_nothing_where_it_answers(reserved: Reserved) -> None:
    span = reserved.span

    assert 1 not in left_for(int(span.base), type(span)) | left_for(int(span.last), type(span))


@in_kernel
def test_kvm_leaves_all_beside_where_it_answers(reserved: Reserved) -> None:
    span = reserved.span

    beside = [left_for(int(address), type(span)) for address in (span.base - WORD, span.last + 1)]

    assert beside == [{1, 2, 4}] * 2


@in_kernel
def test_kvm_without_its_controllers_leaves_all(reserved: Reserved) -> None:
    assert left_for(int(reserved.span.base), type(reserved.span), irqchip=False) == {1, 2, 4}


@in_kernel
def test_a_machine_refuses_a_device_there(reserved: Reserved) -> None:
    space = "pio" if isinstance(reserved.span, PioRange) else "mmio"
    with machine() as vm, pytest.raises(RangeTaken, match="irqchip") as refused:
        vm.add(Recorder, name="mine", size=1, **{space: int(reserved.span.base)})

    assert (refused.value.device, refused.value.requested.base) == ("mine", reserved.span.base)


@pytest.mark.parametrize(("irqchip", "port", "base", "size"), [(True, 0x62, 0x60, 8), (False, 0x20, 0x20, 4)])
def test_a_device_around_them_or_in_their_stead_is_reached(
    irqchip: bool, port: int, base: int, size: int
) -> None:
    with machine(irqchip=irqchip) as vm:
        vm.load(guest("unclaimed", PORT=port))
        device = vm.add(Recorder, pio=base, size=size)
        add_exit_port(vm)
        vm.start()
        vm.wait(PATIENCE_S)
        seen = device.call("log")

    assert {(write, at, width) for write, at, width, _ in seen} >= {
        (write, port - base, width) for write in (0, 1) for width in (1, 2, 4)
    }
