"""Firmware: where the image lies, that the guest begins in it, and what is refused."""

from __future__ import annotations

import pytest

from shardio.errors import ImageError
from shardio.kvm import IoExit, MmioExit, load_firmware, set_entry
from tests.kvm.tiny_vmm import TinyVmm, tiny_vmm

pytestmark = pytest.mark.kvm

SIZE = 256 << 10
# At the reset vector: a far jump to 0xF000:0, which is the copy below 1 MiB.
JUMP_LOW = b"\xea\x00\x00\x00\xf0"


def image_with(code: bytes, size: int = SIZE) -> bytes:
    """An image whose code at 0xF_0000, once copied, is `code`."""
    image = bytearray(b"\x90" * size)
    image[size - 0x1_0000 : size - 0x1_0000 + len(code)] = code
    image[-16 : -16 + len(JUMP_LOW)] = JUMP_LOW
    return bytes(image)


def booted(vmm: TinyVmm, path: object, image: bytes) -> None:
    """Loads `image` from a file at `path` and puts vCPU 0 at its entry."""
    path.write_bytes(image)
    set_entry(vmm.vcpus[0], vmm.memory, "real", load_firmware(vmm.vm, vmm.memory, path))


def test_the_guest_goes_from_the_reset_vector_to_the_copy_below_1_mib(tmp_path):
    with tiny_vmm() as vmm:
        booted(vmm, tmp_path / "bios.bin", image_with(b"\xb0\x5a\xe6\x80"))
        found = vmm.vcpus[0].run()
        assert isinstance(found, IoExit)
        assert (found.port, bytes(found.data)) == (0x80, b"\x5a")


def test_the_last_128_kib_are_in_ram_and_writable(tmp_path):
    write_and_read_back = b"\xb8\x00\xf0\x8e\xd8\xc6\x06\x00\x80\x77\xa0\x00\x80\xe6\x80"
    with tiny_vmm() as vmm:
        image = image_with(write_and_read_back)
        booted(vmm, tmp_path / "bios.bin", image)
        assert vmm.memory.read(0xE_0000, 0x2_0000) == image[-0x2_0000:]
        found = vmm.vcpus[0].run()
        assert isinstance(found, IoExit)
        assert bytes(found.data) == b"\x77"


def test_the_rom_at_the_top_of_4_gib_cannot_be_written(tmp_path):
    with tiny_vmm() as vmm:
        image = image_with(b"\x90")
        booted(vmm, tmp_path / "bios.bin", image)
        vmm.memory.write(0x1000, b"\x88\x03")
        set_entry(vmm.vcpus[0], vmm.memory, "protected", 0x1000, {"rbx": 0xFFFF_0000})
        found = vmm.vcpus[0].run()
        assert isinstance(found, MmioExit)
        assert (found.address, found.is_write) == (0xFFFF_0000, True)


def test_the_rom_reads_as_the_image(tmp_path):
    with tiny_vmm() as vmm:
        image = image_with(b"\x90")
        booted(vmm, tmp_path / "bios.bin", image)
        vmm.memory.write(0x1000, b"\x8b\x03\xe7\x80")
        set_entry(vmm.vcpus[0], vmm.memory, "protected", 0x1000, {"rbx": 0xFFFF_FFF0})
        found = vmm.vcpus[0].run()
        assert isinstance(found, IoExit)
        assert bytes(found.data) == JUMP_LOW[:4]


def test_an_image_of_64_kib_fills_only_the_last_64_kib(tmp_path):
    with tiny_vmm() as vmm:
        booted(vmm, tmp_path / "bios.bin", image_with(b"\xe6\x80", 64 << 10))
        assert vmm.memory.read(0xE_0000, 0x1_0000) == bytes(0x1_0000)
        assert isinstance(vmm.vcpus[0].run(), IoExit)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "64 KiB to 16 MiB"),
        (0x8000, "64 KiB to 16 MiB"),
        (SIZE - 1, "is the image cut"),
        ((16 << 20) + 4096, "64 KiB to 16 MiB"),
    ],
)
def test_a_wrong_size_is_refused(tmp_path, size, said):
    path = tmp_path / "bios.bin"
    path.write_bytes(bytes(size))
    with tiny_vmm() as vmm, pytest.raises(ImageError, match=said):
        load_firmware(vmm.vm, vmm.memory, path)


def test_a_missing_image_is_refused(tmp_path):
    with tiny_vmm() as vmm, pytest.raises(ImageError, match="No such file"):
        load_firmware(vmm.vm, vmm.memory, tmp_path / "none.bin")


def test_ram_below_1_mib_is_refused(tmp_path):
    path = tmp_path / "bios.bin"
    path.write_bytes(bytes(SIZE))
    with tiny_vmm(memory=0x8_0000) as vmm, pytest.raises(ImageError, match="at least 1M"):
        load_firmware(vmm.vm, vmm.memory, path)
