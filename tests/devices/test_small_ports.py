"""DebugConsole, ExitPort, PostPort, Port92 and LogDevice: each read and each write."""

from __future__ import annotations

import pickle

import pytest

import shardio.devices
from shardio.device import HandlerForm, handler_form, is_mutable
from shardio.devices import DebugConsole, DeviceOptionError, ExitPort, LogDevice, Port92, PostPort


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def test_the_debug_console_reads_0xe9_and_prints_every_byte(ports, host, log):
    console = DebugConsole(output=f"file:{log}")
    console.pio_size = 4
    port = ports(console, 0x402)
    assert port.read(0) == 0xE9
    port.write(0, ord("A"))
    port.write(0, 0x4342, size=2)
    console.detach()
    assert log.read_bytes() == b"ABC"


def test_an_unfinished_line_of_the_debug_console_follows_when_nothing_has_come_for_50_ms(host, log):
    console = DebugConsole(output=f"file:{log}")
    console.attach(host)
    console.write(0, 4, int.from_bytes(b"a\nbc", "little"))
    host.loop.advance(0.04)
    console.write(0, 1, ord("d"))
    host.loop.advance(0.04)
    assert log.read_bytes() == b""
    host.loop.advance(0.04)
    assert log.read_bytes() == b"a\nbcd"
    console.write(0, 1, 0x0A)
    assert log.read_bytes() == b"a\nbcd\n"
    console.detach()


def test_a_line_of_the_debug_console_that_does_not_end_follows_after_a_second(host, log):
    console = DebugConsole(output=f"file:{log}")
    console.attach(host)
    for _ in range(49):
        console.write(0, 1, ord("."))
        host.loop.advance(0.02)
    before = log.read_bytes()
    for _ in range(2):
        console.write(0, 1, ord("."))
        host.loop.advance(0.02)
    assert (before, log.read_bytes()) == (b"", b"." * 50)
    console.detach()


def test_the_debug_console_refuses_an_unknown_output():
    with pytest.raises(DeviceOptionError, match="output"):
        DebugConsole(output="screen")


@pytest.mark.parametrize(
    ("raw", "value", "status"), [(False, 0, 1), (False, 0x10, 0x21), (False, 0xFF, 0xFF), (True, 0x10, 0x10)]
)
def test_the_exit_port_asks_for_its_status(ports, host, raw, value, status):
    device = ExitPort(raw=raw)
    device.attach(host)
    port = ports(device, 0xF4)
    port.write(0, value)
    assert host.exits == [status]
    assert device.status == status
    assert port.read(0) == 0


def test_a_raw_exit_status_has_8_bits(ports):
    device = ExitPort(raw=True)
    ports(device, 0xF4).write(0, 0x1234, size=4)
    assert device.status == 0x34


def test_the_exit_port_asks_nobody_after_detach(host):
    device = ExitPort()
    device.attach(host)
    device.detach()
    device.write(0, 1, 0)
    assert host.exits == []


def test_the_post_port_keeps_the_last_codes(ports):
    device = PostPort(keep=3)
    port = ports(device, 0x80)
    assert port.read(0) == 0
    for code in range(1, 6):
        port.write(0, code)
    assert port.read(0) == 5
    assert device.statistics().codes == (3, 4, 5)
    assert device.statistics().writes == 5
    successor = PostPort()
    successor.restore(device.snapshot())
    assert successor.statistics() == device.statistics()


def test_the_post_port_keeps_at_least_one():
    with pytest.raises(DeviceOptionError, match="keep"):
        PostPort(keep=0)


def test_port_92_keeps_a20_and_resets_on_bit_0(ports, host):
    device = Port92()
    device.attach(host)
    port = ports(device, 0x92)
    assert port.read(0) == 0x02
    port.write(0, 0x00)
    assert (port.read(0), host.resets) == (0x00, 0)
    port.write(0, 0x03)
    assert (port.read(0), host.resets) == (0x02, 1)
    successor = Port92()
    successor.restore(device.snapshot())
    assert successor.read(0, 1) == 0x02


def test_the_log_device_tells_of_each_port_access(ports, log):
    device = LogDevice(output=f"file:{log}", value=0x1122)
    port = ports(device, 0x300)
    assert port.read(2, size=1) == 0x22
    port.write(4, 0xBEEF, size=2)
    device.detach()
    assert log.read_text().splitlines() == [
        "pio read base 0x300 offset 0x2 size 1",
        "pio write base 0x300 offset 0x4 size 2 value 0xbeef",
    ]


def test_the_log_device_tells_of_each_memory_access(ports, log):
    device = LogDevice(output=f"file:{log}", value=0x1122)
    bus = ports(device, 0, mmio=0xD000_0000)
    assert bus.read(0x10, size=8) == 0x1122
    bus.write(0x18, 1, size=4)
    device.detach()
    assert log.read_text().splitlines() == [
        "mmio read base 0xd0000000 offset 0x10 size 8",
        "mmio write base 0xd0000000 offset 0x18 size 4 value 0x1",
    ]


def test_the_log_device_may_be_replicated_and_needs_the_view_form():
    assert not is_mutable(LogDevice, "pio")
    assert not is_mutable(LogDevice, "mmio")
    assert handler_form(LogDevice(), "pio", write=True) is HandlerForm.VIEW
    assert handler_form(LogDevice(), "mmio", write=False) is HandlerForm.VIEW


@pytest.mark.parametrize("name", [each for each in shardio.devices.__all__ if each != "DeviceOptionError"])
def test_a_device_made_in_one_process_can_be_sent_to_its_shard(name):
    device = pickle.loads(pickle.dumps(getattr(shardio.devices, name)()))
    assert type(device).__name__ == name


def test_every_exported_name_is_there_and_an_unknown_one_is_not():
    assert all(isinstance(getattr(shardio.devices, name), type) for name in shardio.devices.__all__)
    assert set(shardio.devices.__all__) <= set(dir(shardio.devices))
    with pytest.raises(AttributeError, match="no attribute 'Uart8250'"):
        _ = shardio.devices.Uart8250
