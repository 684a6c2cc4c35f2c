"""`Kept`: a part of a struct keeps the whole in memory, which cffi alone does not do."""

from __future__ import annotations

import gc
import weakref

import pytest

from shardio._core import ffi
from shardio.kvm.kept import Kept, plain


def sregs() -> Kept:
    return Kept(ffi.new("struct kvm_sregs *"))


def test_a_part_keeps_the_whole() -> None:
    whole = ffi.new("struct kvm_sregs *")
    alive = weakref.ref(whole)
    part = Kept(whole).cs
    del whole
    gc.collect()

    assert alive() is not None
    part.base = 0x1234_5678
    assert part.base == 0x1234_5678
    del part
    assert alive() is None


def test_fields_are_read_and_written_by_kvm_s_names() -> None:
    found = sregs()
    found.cr0, found.cs.selector = 0x11, 0xF000
    other = sregs()
    other.cs = found.cs

    assert (found.cdata.cr0, other.cdata.cs.selector) == (0x11, 0xF000)
    with pytest.raises(AttributeError):
        found.no_such = 1


def test_what_is_plain_stays_as_it_is() -> None:
    found = sregs()

    assert plain(found) is found.cdata
    assert plain(7) == 7
    assert "cr0" in dir(found)
