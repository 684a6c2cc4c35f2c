"""What a debugger is told of the processor.

Source: "Debugging with GDB", G.5.5, and the sizes in GDB's own 64bit-core.xml and 32bit-core.xml.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from shardio.gdb.registers import I386, X86_64, Architecture

CORE_BYTES = {"i386": 9 * 4 + 4 + 6 * 4 + 8 * 10 + 8 * 4, "i386:x86-64": 17 * 8 + 4 + 6 * 4 + 8 * 10 + 8 * 4}


@pytest.mark.parametrize("architecture", [I386, X86_64], ids=lambda each: each.name)
def test_the_description_is_xml_with_the_registers_in_their_order(architecture: Architecture) -> None:
    root = ElementTree.fromstring(architecture.description().decode())
    registers = root.findall(".//reg")
    assert root.findtext("architecture") == architecture.name
    assert [each.get("name") for each in registers] == [each.name for each in architecture.registers]
    assert [each.get("regnum") for each in registers] == [str(n) for n in range(len(registers))]
    core = root.find("./feature[@name='org.gnu.gdb.i386.core']")
    assert core is not None
    sizes = [int(each.get("bitsize", "0")) // 8 for each in core.findall("reg")]
    assert sum(sizes) == CORE_BYTES[architecture.name]


def test_a_block_has_known_registers_in_little_endian_and_the_others_unavailable() -> None:
    block = I386.block({"eax": 0x1234, "cs": 8})
    assert block[:8] == b"34120000"
    assert block[8:16] == b"xxxxxxxx"
    at = 2 * sum(each.size for each in I386.registers[:10])
    assert block[at : at + 8] == b"08000000"
    assert len(block) == 2 * sum(each.size for each in I386.registers)


def test_a_value_is_cut_to_its_register() -> None:
    eflags = next(each for each in X86_64.registers if each.name == "eflags")
    assert X86_64.one(eflags, {"eflags": 0x1_0000_0202}) == b"02020000"
