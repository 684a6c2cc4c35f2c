"""`shardio.interrupt.doorbell`: what KVM_IOEVENTFD cannot do cannot be written down."""

from __future__ import annotations

import pytest

from shardio.interrupt import Doorbell


@pytest.mark.parametrize(
    ("offset", "length", "datamatch"),
    [(-1, 4, None), (0, 3, None), (0, 16, 0), (0, 2, 1 << 16), (0, 4, -1), (0, 0, 0)],
)
def test_impossible_doorbells_are_refused(offset: int, length: int, datamatch: int | None) -> None:
    with pytest.raises(ValueError, match=r"doorbell (offset|length|datamatch)"):
        Doorbell(offset, length, datamatch)


@pytest.mark.parametrize("length", [0, 1, 2, 4, 8])
def test_every_length_of_kvm_is_possible(length: int) -> None:
    assert Doorbell(0x50, length).datamatch is None
