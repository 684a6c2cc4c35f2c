"""FwCfg: the items and the file directory as SeaBIOS reads them."""

from __future__ import annotations

import struct

import pytest

from shardio.devices import DeviceOptionError, FwCfg
from shardio.memory import GuestMemory
from tests.devices.support import Ports, RecordingHost


def item(ports: Ports, number: int, count: int) -> bytes:
    ports.write(0, number, size=2)
    return bytes(ports.read(1) for _ in range(count))


def files(ports: Ports) -> dict[str, bytes]:
    (count,) = struct.unpack(">I", item(ports, 0x19, 4))
    entries = [struct.unpack(">IHH56s", bytes(ports.read(1) for _ in range(64))) for _ in range(count)]
    return {name.rstrip(b"\0").decode(): item(ports, select, size) for size, select, _, name in entries}


def test_the_signature_and_the_interface(ports):
    port = ports(FwCfg(), 0x510)
    assert item(port, 0x00, 4) == b"QEMU"
    assert item(port, 0x01, 4) == b"\x01\0\0\0"


def test_the_console_is_on_com1_unless_told_otherwise(ports):
    assert files(ports(FwCfg(), 0x510))["etc/sercon-port"] == b"\xf8\x03"
    assert files(ports(FwCfg(sercon_port=0x2F8), 0x510))["etc/sercon-port"] == b"\xf8\x02"
    assert "etc/sercon-port" not in files(ports(FwCfg(sercon_port=0), 0x510))


def test_memory_cpus_and_boot_menu(ports):
    port = ports(FwCfg(memory="64M", vcpus=2, boot_menu=True), 0x510)
    assert item(port, 0x03, 8) == struct.pack("<Q", 64 << 20)
    assert [item(port, number, 2) for number in (0x05, 0x0F, 0x0E)] == [b"\x02\0", b"\x02\0", b"\x01\0"]


def test_a_machine_always_has_memory_and_a_cpu(ports):
    """QEMU's docs/specs/fw_cfg, items 3, 5 and 0x0f: firmware takes them for what the machine has."""
    port = ports(FwCfg(), 0x510)
    assert item(port, 0x03, 8) == struct.pack("<Q", 64 << 20)
    assert [item(port, number, 2) for number in (0x05, 0x0F)] == [b"\x01\0", b"\x01\0"]


@pytest.mark.parametrize(("options", "expected"), [({}, b"\x01\0"), ({"sercon_port": 0}, b"\0\0")])
def test_a_serial_console_is_asked_for_where_there_is_one(ports, options, expected):
    """QEMU's docs/specs/fw_cfg, item 4 (nographic)."""
    assert item(ports(FwCfg(**options), 0x510), 0x04, 2) == expected


def test_past_the_end_and_in_an_unknown_item_are_zeros(ports):
    port = ports(FwCfg(), 0x510)
    assert item(port, 0x00, 6) == b"QEMU\0\0"
    assert item(port, 0x7777, 2) == b"\0\0"


def test_selecting_again_starts_again_and_the_selector_reads_0(ports):
    port = ports(FwCfg(), 0x510)
    assert item(port, 0x00, 2) == b"QE"
    assert item(port, 0x00, 2) == b"QE"
    assert port.read(0, size=2) & 0xFF == 0


def test_items_are_read_only(ports):
    port = ports(FwCfg(), 0x510)
    port.write(0, 0x00, size=2)
    port.write(1, 0x58)
    assert item(port, 0x00, 4) == b"QEMU"


def test_files_from_options_and_from_python(ports, tmp_path):
    (tmp_path / "splash").write_bytes(b"picture")
    table = FwCfg(sercon_port=0, files=[f"opt/splash={tmp_path}/splash"])
    table.add_file("etc/boot-fail-wait", b"\xff\xff\xff\xff")
    found = files(ports(table, 0x510))
    del found["etc/e820"]
    assert found == {"opt/splash": b"picture", "etc/boot-fail-wait": b"\xff" * 4}


@pytest.mark.parametrize(
    "options",
    [
        {"files": ["no-equals-sign"]},
        {"files": ["name=/does/not/exist"]},
        {"files": ["=/dev/null"]},
        {"files": [f"{'x' * 56}=/dev/null"]},
        {"vcpus": 0},
        {"vcpus": 0x10000},
        {"memory": 0},
        {"sercon_port": 0x10000},
        {"memory": "much"},
    ],
)
def test_an_option_that_cannot_be_used_is_refused_by_name(options):
    with pytest.raises(DeviceOptionError) as caught:
        FwCfg(**options)
    assert caught.value.option in options


def test_no_more_than_256_files():
    table = FwCfg(sercon_port=0)
    for number in range(255):  # and etc/e820
        table.add_file(f"file{number}", b"")
    with pytest.raises(DeviceOptionError, match="256"):
        table.add_file("one more", b"")


def test_a_restored_table_goes_on_in_the_middle_of_an_item(ports):
    table = FwCfg()
    item(ports(table, 0x510), 0x00, 2)
    successor = FwCfg()
    successor.restore(table.snapshot())
    assert bytes((successor.read(1, 1), successor.read(1, 1))) == b"MU"


def test_files_are_numbered_in_the_order_of_their_names(ports):
    table = FwCfg(sercon_port=0)
    for name in ("b", "a", "c"):
        table.add_file(name, name.encode())
    assert [item(ports(table, 0x510), number, 1) for number in (0x20, 0x21, 0x22)] == [b"a", b"b", b"c"]


def test_the_e820_file_has_the_ram(ports):
    small, large = (files(ports(FwCfg(memory=size), 0x510))["etc/e820"] for size in ("64M", "5G"))
    assert small == struct.pack("<QQI", 0, 64 << 20, 1)
    assert large == struct.pack("<QQIQQI", 0, 3 << 30, 1, 4 << 30, 2 << 30, 1)


def test_the_boot_order_is_a_file(ports):
    found = files(ports(FwCfg(boot_order=["/pci@i0cf8/*@1/drive@0/disk@0", "HALT"]), 0x510))
    assert found["bootorder"] == b"/pci@i0cf8/*@1/drive@0/disk@0\nHALT\0"


def bz_image(setup_sectors: int, initrd_limit: int) -> bytes:
    """A setup header (Linux's boot.rst) of as many sectors, and one sector of kernel."""
    setup = bytearray(b"S" * ((setup_sectors or 4) + 1) * 512)
    setup[0x1F1], setup[0x202:0x206] = setup_sectors, b"HdrS"
    setup[0x22C:0x230] = struct.pack("<I", initrd_limit)
    return bytes(setup) + b"K" * 512


@pytest.mark.parametrize(("sectors", "limit", "address"), [
    (0, 0, 0x03FF_F000 - 0x1000), (7, 0x01FF_FFFF, 0x01FF_E000),
])  # fmt: skip
def test_a_kernel_is_split_into_its_parts(ports, tmp_path, sectors, limit, address):
    (tmp_path / "kernel").write_bytes(bz_image(sectors, limit))
    (tmp_path / "initrd").write_bytes(b"I" * 5000)
    paths = {name: str(tmp_path / name) for name in ("kernel", "initrd")}
    port = ports(FwCfg(command_line="quiet", **paths), 0x510)
    words = {key: struct.unpack("<I", item(port, key, 4))[0] for key in (0x08, 0x0A, 0x0B, 0x14, 0x17)}
    assert words == {0x08: 512, 0x0A: address, 0x0B: 5000, 0x14: 6, 0x17: ((sectors or 4) + 1) * 512}
    assert item(port, 0x11, 512) == b"K" * 512
    assert item(port, 0x12, 5000) == b"I" * 5000
    assert item(port, 0x15, 6) == b"quiet\0"
    assert item(port, 0x18, words[0x17]) == bz_image(sectors, limit)[:-512]


def test_another_kernel_is_one_piece(ports, tmp_path):
    (tmp_path / "kernel").write_bytes(b"\x7fELF" + bytes(1000))
    port = ports(FwCfg(kernel=str(tmp_path / "kernel")), 0x510)
    assert item(port, 0x08, 4) == struct.pack("<I", 1004)
    assert item(port, 0x17, 4) == bytes(4)


@pytest.mark.parametrize("option", ["kernel", "files"])
def test_a_file_that_cannot_be_read_is_named(option, tmp_path):
    missing = str(tmp_path / "none")
    with pytest.raises(DeviceOptionError, match=option):
        FwCfg(**{option: missing if option == "kernel" else ["a=" + missing]})


ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
REQUEST, TARGET = 0x1000, 0x2000


class DmaGuest:
    """Makes DMA requests as QEMU's docs/specs/fw_cfg says: big-endian, the low half of the address last."""

    def __init__(self, ports, memory):
        self.memory = memory
        host = RecordingHost()
        host.memory = memory
        self.device = FwCfg(memory="64M")
        self.device.attach(host)
        self.port = ports(self.device, 0x510)

    def request(self, control, length, target=TARGET, at=REQUEST):
        """The control word after it."""
        self.memory.write(REQUEST, struct.pack(">IIQ", control, length, target))
        self.port.write(4, int.from_bytes(struct.pack(">I", at >> 32), "little"), size=4)
        self.port.write(8, int.from_bytes(struct.pack(">I", at & 0xFFFF_FFFF), "little"), size=4)
        return struct.unpack(">I", self.memory.read(REQUEST, 4))[0]


@pytest.fixture
def dma(ports):
    with GuestMemory(0x4000) as memory:
        yield DmaGuest(ports, memory)


def test_the_dma_interface_is_told_of_where_there_is_memory(ports, dma):
    assert item(dma.port, 0x01, 4) == b"\x03\0\0\0"
    signature = [dma.port.read(offset, size=4).to_bytes(4, "little") for offset in (4, 8)]
    assert b"".join(signature) == b"QEMU CFG"
    assert ports(FwCfg(), 0x510).read(4, size=4) == 0


def test_dma_selects_and_reads_an_item_with_zeros_past_its_end(dma):
    dma.memory.write(TARGET, b"\xff" * 16)
    assert dma.request(SELECT | READ | 0x00 << 16, 6) == 0
    assert dma.memory.read(TARGET, 16) == b"QEMU\0\0" + b"\xff" * 10


def test_dma_skips_and_goes_on(dma):
    assert dma.request(SELECT | 0x03 << 16, 0) == 0
    assert dma.request(SKIP, 2) == 0
    assert dma.request(READ, 2) == 0
    assert dma.memory.read(TARGET, 2) == struct.pack("<Q", 64 << 20)[2:4]
    assert dma.port.read(1) == 0


def test_dma_writes_are_refused(dma):
    assert dma.request(SELECT | WRITE | 0x00 << 16, 4) == ERROR
    assert item(dma.port, 0x00, 4) == b"QEMU"


@pytest.mark.parametrize(("length", "target"), [
    (4, 0x4000), (0x3000, TARGET), (0xFFFF_FFFF, 0), (1, 1 << 63),
])  # fmt: skip
def test_dma_into_no_memory_is_an_error(dma, length, target):
    assert dma.request(SELECT | READ | 0x00 << 16, length, target) == ERROR


@pytest.mark.parametrize("at", [0x3FFC, 1 << 32, (1 << 64) - 1])
def test_a_request_in_no_memory_is_dropped(dma, at):
    assert dma.request(SELECT | READ, 4, at=at) == SELECT | READ


def test_half_an_address_travels_with_the_state(dma):
    dma.port.write(4, 0x0100_0000, size=4)
    assert dma.device.snapshot().dma_high == 1
