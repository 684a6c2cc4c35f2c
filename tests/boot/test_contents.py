"""Images: where they lie, and what they must not lie under."""

from __future__ import annotations

import pytest

from shardio import ImageError, MachineError
from shardio.boot import Entry, load_flat
from shardio.entry import BOOT_TABLES
from shardio.memory import GuestMemory
from tests.boot.images import Part, elf32
from tests.e2e.support import PATIENCE_S, machine


def test_an_image_says_where_it_is() -> None:
    with GuestMemory(0x10000) as memory:
        loaded = load_flat(memory, b"\x90" * 16, 0x1000)

        assert (loaded.name, loaded.where) == ("image", range(0x1000, 0x1010))
        loaded.refuse_overlap("a table", range(0x1010, 0x2000))
        loaded.refuse_overlap("a table", range(0xFF0, 0x1000))
        with pytest.raises(ImageError, match="at 0x1000 to 0x100f lies over a table at 0x100f to 0x100f"):
            loaded.refuse_overlap("a table", range(0x100F, 0x1010))


@pytest.mark.machine
def test_an_image_under_the_boot_tables_is_refused() -> None:
    with machine(irqchip=False) as vm:
        vm.load(b"\xf4", at=BOOT_TABLES + 0x100, mode="protected")
        with pytest.raises(ImageError, match="lies over the boot tables at 0x90000 to 0x90fff"):
            vm.start()


@pytest.mark.machine
def test_real_mode_has_no_boot_tables() -> None:
    with machine(irqchip=False) as vm:
        vm.load(b"\xf4", at=BOOT_TABLES + 0x100)

        assert vm.run(PATIENCE_S).reason == "halted"


@pytest.mark.machine
def test_an_image_over_another_is_refused_before_the_start() -> None:
    with machine(irqchip=False) as vm:
        vm.load(b"\xf4" * 16, at=0x1000)
        with pytest.raises(ImageError, match="at 0x100f to 0x100f lies over image at 0x1000 to 0x100f"):
            vm.load(b"\x90", at=0x100F)
        assert vm.memory.read(0x100F, 1) == b"\xf4"
        vm.run(PATIENCE_S)


@pytest.mark.machine
def test_a_loader_of_one_s_own_sets_the_entry() -> None:
    out_eax = b"\x66\xef"  # in 16-bit code: OUT DX, EAX
    with machine(irqchip=False) as vm:
        vm.load(b"\xf4", at=0x1000)
        vm.memory.write(0x2000, out_eax)
        vm.add("shardio.devices:ExitPort", pio=0xF4, raw=True)
        vm.set_entry(Entry("real", 0x2000, {"rax": 42, "rdx": 0xF4}))

        assert vm.run(PATIENCE_S).status == 42


@pytest.mark.machine
def test_a_kernel_begins_whatever_was_loaded_before_it() -> None:
    code = b"\xb0\x2a\xba\xf4\0\0\0\xee\xf4"  # mov $42, %al; mov $0xf4, %edx; out %al, %dx; hlt
    with machine(irqchip=False) as vm:
        vm.load(b"\xf4", at=0x1000)
        vm.load_kernel(elf32(Part(code, 0x10_0000), entry=0x10_0000))
        vm.add("shardio.devices:ExitPort", pio=0xF4, raw=True)

        assert vm.run(PATIENCE_S).status == 42


def test_an_entry_that_cannot_be_leaves_the_machine_as_it_is() -> None:
    with machine(irqchip=False, cpu="soft") as vm:
        with pytest.raises(MachineError, match="no register named 'eax'"):
            vm.load(b"\xf4", registers={"eax": 1})
        vm.load(b"\xf4")

        assert vm.run(PATIENCE_S).reason == "halted"


@pytest.mark.machine
def test_an_image_under_tables_written_later_is_refused() -> None:
    with machine() as vm:
        vm.load(b"\xf4")
        vm.load(b"\x00" * 16, at=0xE0010)
        vm.load_tables("acpi")
        with pytest.raises(ImageError, match="lies over the acpi tables at 0xe0000"):
            vm.start()
