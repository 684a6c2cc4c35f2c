"""What the software CPU does for a debugger and KVM here may not: reads of watched memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.support import machine
from tests.gdb.client import connected
from tests.guests.build import LOAD_ADDRESS

pytest.importorskip("unicorn", reason="the software CPU needs it")

WATCHED = 0x3000
CODE = b"\x90\x90\xa0\x00\x30\xa2\x00\x30\xeb\xfe"
"""nop; nop; mov al, [0x3000]; mov [0x3000], al; jmp $"""
BEHIND_READ, BEHIND_WRITE = LOAD_ADDRESS + 5, LOAD_ADDRESS + 8


@pytest.mark.parametrize(
    ("kind", "reply", "stops"),
    [
        ("2", "watch", [BEHIND_WRITE]),
        ("3", "rwatch", [BEHIND_READ]),
        ("4", "awatch", [BEHIND_READ, BEHIND_WRITE]),
    ],
)
def test_watched_memory(tmp_path: Path, kind: str, reply: str, stops: list[int]) -> None:
    where = f"unix:{tmp_path / 'gdb'}"
    with machine(cpu="soft", irqchip=False, shards=1) as vm:
        vm.load(CODE)
        vm.gdb(where, wait=True)
        vm.start()
        with connected(where) as gdb:
            assert gdb.ask(f"Z{kind},{WATCHED - 1:x},4") == "OK"  # the byte is inside of it
            for stop in stops:
                assert gdb.ask("c") == f"T05{reply}:{WATCHED - 1:x};thread:1;"
                assert gdb.registers()["eip"] == stop
