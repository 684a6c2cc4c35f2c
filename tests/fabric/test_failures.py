"""Handlers that fail: told once for each place, however often a guest runs into it; the access is refused."""

from __future__ import annotations

import pytest

from shardio import InvalidResult, IoManager, MmioRange, MutDeviceMmio
from shardio.fabric import Outcome
from tests.fabric.support import BASE, MMIO, bench

TIMES = 1000


class Failing(MutDeviceMmio):
    """Raises, at places that differ by offset; at +0x10 and beyond it returns what is no number."""

    def read(self, offset: int, size: int) -> object:
        if offset == 0:
            raise ValueError("first")
        if offset == 4:
            raise ValueError("second")
        return None if offset == 0x10 else 1.5

    def write(self, offset: int, size: int, value: int) -> None:
        self.read(offset, size)
        int("no number")


def test_each_place_is_told_once() -> None:
    told: list[tuple[str, int]] = []
    with bench() as b:
        owner, client = b.owner(on_error=lambda _, error, write: told.append((str(error), write))), b.client()
        b.add(owner, Failing())
        with b.serving(owner):
            for _ in range(TIMES):
                outcomes = {
                    client.read(MMIO, BASE, 4),
                    client.read(MMIO, BASE + 4, 4),
                    (client.write(MMIO, BASE, 4, 1), 0xFFFFFFFF),
                    (client.write(MMIO, BASE + 8, 4, 1), 0xFFFFFFFF),
                }
                assert outcomes == {(Outcome.NOT_ANSWERED, 0xFFFFFFFF)}
        assert b.fabric.service(0, 0).refused == 4 * TIMES

    number = "invalid literal for int() with base 10: 'no number'"
    assert told == [("first", 0), ("second", 0), ("first", 1), (number, 1)]


def test_another_device_at_the_same_range_is_told_of_anew() -> None:
    told: list[str] = []
    with bench() as b:
        owner, client = b.owner(on_error=lambda _, error, write: told.append(str(error))), b.client()
        route = b.add(owner, Failing())
        for _ in range(2):
            with b.serving(owner):
                client.read(MMIO, BASE, 4)
            owner.set_handler(route.index, MmioRange(BASE, 0x100), Failing())

    assert told == ["first", "first"]


def test_more_places_than_are_kept_in_mind_are_told_all_the_same() -> None:
    places = 200
    lines = "\n".join(f"    if offset == {n}: raise ValueError({n})" for n in range(places))
    space: dict[str, object] = {}
    exec(f"def read(self, offset, size):\n{lines}", space)
    told: set[int] = set()
    with bench() as b:
        owner = b.owner(on_error=lambda _, error, write: told.add(error.args[0]))
        b.add(owner, type("Many", (MutDeviceMmio,), {"read": space["read"]})())
        client = b.client()
        with b.serving(owner):
            for n in range(places):
                client.read(MMIO, BASE + n, 1)

    assert told == set(range(places))


@pytest.mark.parametrize(("offset", "shown"), [(0x10, "None"), (0x14, "1.5")])
def test_what_is_no_number_is_named(offset: int, shown: str) -> None:
    told: list[BaseException] = []
    with bench() as b:
        owner, client = b.owner(on_error=lambda _, error, write: told.append(error)), b.client()
        b.add(owner, Failing())
        with b.serving(owner):
            answers = {client.read(MMIO, BASE + offset, 2) for _ in range(10)}

    manager = IoManager()
    manager.register_mmio(MmioRange(BASE, 0x100), Failing())
    with pytest.raises(InvalidResult) as alone:
        manager.mmio_read(BASE + offset, bytearray(2))

    hint = "return an int (it is cut to the access's width)"
    assert [str(error) for error in told] == [f"Failing.read({offset:#x}, 2) returned {shown}; {hint}"]
    assert str(alone.value) == str(told[0])
    assert answers == {(Outcome.NOT_ANSWERED, 0xFFFF)}
