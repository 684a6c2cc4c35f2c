"""FwCfg: the items and the file directory as SeaBIOS reads them."""

from __future__ import annotations

import struct

import pytest

from shardio.devices import DeviceOptionError, FwCfg
from tests.devices.support import Ports


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
    assert files(ports(FwCfg(), 0x510)) == {"etc/sercon-port": b"\xf8\x03"}
    assert files(ports(FwCfg(sercon_port=0x2F8), 0x510)) == {"etc/sercon-port": b"\xf8\x02"}
    assert files(ports(FwCfg(sercon_port=0), 0x510)) == {}


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
    assert files(ports(table, 0x510)) == {"opt/splash": b"picture", "etc/boot-fail-wait": b"\xff" * 4}


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
    for number in range(256):
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
