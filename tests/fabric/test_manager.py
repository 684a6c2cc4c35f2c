"""An owner that dispatches through a manager of the user's: an `IoManager`, or one of another make."""

from __future__ import annotations

import pytest

from shardio import InvalidDevice, IoManager, MmioRange, PioRange
from shardio.fabric import Outcome
from tests.fabric.support import BASE, MMIO, PIO, PORT, Log, bench


class Flat:
    """A manager of another make: bytes by address."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}

    def pio_read(self, addr: int, data: memoryview) -> None:
        data[:] = bytes(self.bytes.get(addr + n, 0) for n in range(len(data)))

    def pio_write(self, addr: int, data: memoryview) -> None:
        self.bytes.update({addr + n: byte for n, byte in enumerate(data)})


def test_devices_answer_by_their_own_ranges() -> None:
    manager, low, high = IoManager(), Log([5]), Log([6])
    manager.register_mmio(MmioRange(BASE + 8, 8), low)
    manager.register_mmio(MmioRange(BASE + 16, 8), high)
    with bench() as b:
        span = MmioRange(BASE, 0x20)
        owner, client = b.owner(), b.client()
        owner.set_manager(b.map.add(span, (0,)).index, span, manager)
        b.map.publish()
        with b.serving(owner):
            answers = [client.read(MMIO, BASE + 12, 4), client.read(MMIO, BASE + 16, 2)]
            client.write(MMIO, BASE + 17, 1, 9)
            nobody = client.read(MMIO, BASE, 4), client.write(MMIO, BASE, 4, 1)

    assert answers == [(Outcome.ANSWERED, 5), (Outcome.ANSWERED, 6)]
    assert (low.seen, high.seen) == ([(4, 4, None)], [(0, 2, None), (1, 1, 9)])
    assert nobody == ((Outcome.NOT_ANSWERED, 0xFFFFFFFF), Outcome.NOT_ANSWERED)


@pytest.mark.parametrize("posted", [False, True])
def test_a_manager_of_another_make(posted: bool) -> None:
    manager = Flat()
    with bench() as b:
        span = PioRange(PORT, 4)
        owner, client = b.owner(), b.client()
        owner.set_manager(b.map.add(span, (0,), posted=posted).index, span, manager, posted=posted)
        b.map.publish()
        with b.serving(owner):
            client.write(PIO, PORT + 1, 2, 0x1234)
            answer = client.read(PIO, PORT, 4)

    assert answer == (Outcome.ANSWERED, 0x123400)


def test_what_dispatches_another_space_is_refused() -> None:
    told = r"Flat cannot answer MMIO .* mmio_read\(address, data\)"
    with bench() as b, pytest.raises(InvalidDevice, match=told):
        b.owner().set_manager(0, MmioRange(BASE, 4), Flat())
