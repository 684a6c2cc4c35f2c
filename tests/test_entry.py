"""Entry states as values: what there is, and what is refused before a machine begins."""

from __future__ import annotations

import pytest

from shardio.boot import Entry
from shardio.entry import CODE32, boot_tables, flat_table
from shardio.errors import MachineError


@pytest.mark.parametrize(
    ("mode", "address", "registers", "said"),
    [
        ("virtual", 0, {}, "no entry mode 'virtual'; use one of real, protected, long"),
        ("real", 1 << 20, {}, "real mode cannot begin at 0x100000"),
        ("protected", 0, {"eax": 1}, "no register named 'eax' in protected mode; use one of rax,"),
        ("real", 0, {"cs": 8}, "no register named 'cs' in real mode"),
        ("long", 0, {"rax": 1 << 64}, "rax = 0x10000000000000000 is not of 64 bits"),
        ("long", 0, {"rax": -1}, "rax = -0x1 is not of 64 bits"),
        ("protected", 0, {"cs": 0}, "cs = 0x0 selects nothing"),
        ("protected", 0, {"ds": 0x0C}, "ds = 0xc selects nothing"),
        ("protected", 0, {"ds": 0xFE8}, "ds = 0xfe8 selects nothing"),
        ("protected", 0, {"cs": 0x10}, "code and data have one selector"),
    ],
)
def test_what_is_no_entry_is_refused(
    mode: str, address: int, registers: dict[str, int], said: str
) -> None:
    with pytest.raises(MachineError, match=said):
        Entry(mode, address, registers)


def test_the_flat_table_has_its_segments_at_the_selectors() -> None:
    table = flat_table(CODE32, 0x20, 0x10)

    # Intel SDM volume 3, 3.4.5: limit 0xfffff in pages, base 0; code, data that can be written, a busy TSS.
    assert table[0x20:0x28].hex() == "ffff0000009bcf00"
    assert table[0x10:0x18].hex() == "ffff00000093cf00"
    assert table[0x28:0x38].hex() == "67000000008b0000" + "00" * 8
    assert table[:0x10] + table[0x18:0x20] == bytes(0x18)


@pytest.mark.parametrize(("mode", "pages"), [("real", 0), ("protected", 1), ("long", 16)])
def test_each_mode_takes_pages_for_its_tables(mode: str, pages: int) -> None:
    assert boot_tables(mode) == range(0x9_0000, 0x9_0000 + pages * 0x1000)
