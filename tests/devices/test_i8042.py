"""I8042: controller and keyboard commands, status, interrupts, the reset line."""

from __future__ import annotations

import pytest

from shardio.devices import I8042
from shardio.errors import DeviceNotFound
from shardio.interrupt import InterruptManager, RecordingBackend
from shardio.io_manager import IoManager
from shardio.range import PioRange

DATA, PORT_B, COMMAND = 0, 1, 4


@pytest.fixture
def kbc(host):
    device = I8042()
    device.attach(host)
    return device


@pytest.fixture
def port(kbc, ports):
    return ports(kbc, 0x60)


def answers(port):
    found = []
    while port.read(COMMAND) & 1:
        found.append(port.read(DATA))
    return found


def test_nothing_waits_at_the_start(port):
    assert port.read(COMMAND) & 0x03 == 0
    assert port.read(DATA) == 0


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (0x20, [0x24]), (0xA4, [0xF1]), (0xAA, [0x55]), (0xAB, [0x00]), (0xC0, [0x80]), (0xD0, [0x03]),
        (0xA7, []), (0xA8, []), (0xA9, [0x00]), (0xAD, []), (0xAE, []), (0xFF, []),
    ],
)
def test_controller_commands(port, command, answer):
    port.write(COMMAND, command)
    assert port.read(COMMAND) & 0x08
    assert answers(port) == answer


@pytest.mark.parametrize(
    ("bytes_in", "answer"),
    [
        ([0xFF], [0xFA, 0xAA]), ([0xF2], [0xFA, 0xAB, 0x83]), ([0xEE], [0xEE]), ([0xF4], [0xFA]),
        ([0xF5], [0xFA]), ([0xF6], [0xFA]), ([0xED, 0x07], [0xFA, 0xFA]), ([0xF3, 0x20], [0xFA, 0xFA]),
        ([0xF0, 0x02], [0xFA, 0xFA]), ([0xF0, 0x00], [0xFA, 0xFA, 0x02]),
        ([0xF0, 0x03], [0xFA, 0xFE]), ([0x12], [0xFE]),
    ],
)
def test_keyboard_commands(port, bytes_in, answer):
    for byte in bytes_in:
        port.write(DATA, byte)
    assert not port.read(COMMAND) & 0x08
    assert answers(port) == answer


def test_the_command_byte_reads_what_was_written(port):
    port.write(COMMAND, 0x60)
    port.write(DATA, 0x61)
    port.write(COMMAND, 0x20)
    assert answers(port) == [0x61]


def test_the_keyboard_is_disabled_and_enabled(port, kbc):
    port.write(COMMAND, 0xAD)
    assert kbc.send_scancodes(b"\x1c") == 0
    port.write(COMMAND, 0xAE)
    assert kbc.send_scancodes(b"\x1c") == 1
    assert answers(port) == [0x1C]


def test_a_byte_may_be_put_in_as_if_typed(port):
    port.write(COMMAND, 0xD2)
    port.write(DATA, 0x5A)
    assert answers(port) == [0x5A]


def to_mouse(port, *values):
    for value in values:
        port.write(COMMAND, 0xD4)
        port.write(DATA, value)


def test_the_mouse_answers_by_the_same_port_and_says_that_it_does(port):
    to_mouse(port, 0xFF)
    assert port.read(COMMAND) & 0x21 == 0x21
    assert answers(port) == [0xFA, 0xAA, 0x00]
    port.write(DATA, 0xEE)
    assert port.read(COMMAND) & 0x21 == 0x01
    assert answers(port) == [0xEE]


def test_a_byte_may_be_put_in_as_if_the_mouse_had_sent_it(port):
    port.write(COMMAND, 0xD3)
    port.write(DATA, 0x5A)
    assert port.read(COMMAND) & 0x21 == 0x21
    assert answers(port) == [0x5A]


def test_the_mouse_is_disabled_and_enabled(port):
    for command, bit in ((0xA8, 0), (0xA7, 0x20)):
        port.write(COMMAND, command)
        port.write(COMMAND, 0x20)
        assert port.read(DATA) & 0x20 == bit
    to_mouse(port, 0xF4)  # talking to it enables it
    assert answers(port) == [0xFA]
    port.write(COMMAND, 0x20)
    assert port.read(DATA) & 0x20 == 0


def test_the_mouses_answers_are_not_translated(port):
    command_byte(port, 0x40)
    to_mouse(port, 0xF2)
    assert answers(port) == [0xFA, 0x00]


def test_the_mouse_interrupts_by_line_12_when_enabled(host, ports):
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        host.interrupts = interrupts
        device = I8042()
        device.attach(host)
        port = ports(device, 0x60)
        to_mouse(port, 0xF4)
        command_byte(port, 0x01)
        assert (backend.delivered(gsi=12), host.trigger.count) == (0, 0)
        command_byte(port, 0x03)
        assert backend.delivered(gsi=12) == 1
        assert answers(port) == [0xFA]
        to_mouse(port, 0xF2)
        assert answers(port) == [0xFA, 0x00]
        assert (backend.delivered(gsi=12), host.trigger.count) == (2, 0)


def test_mouse_and_keyboard_take_turns_in_the_order_of_their_bytes(host, ports):
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        host.interrupts = interrupts
        device = I8042()
        device.attach(host)
        port = ports(device, 0x60)
        command_byte(port, 0x03)
        to_mouse(port, 0xF4)
        port.write(DATA, 0xF4)
        first = backend.delivered(gsi=12), host.trigger.count
        from_mouse = port.read(COMMAND) & 0x20, port.read(DATA)
        from_keyboard = port.read(COMMAND) & 0x20, port.read(DATA)
        assert (first, host.trigger.count) == ((1, 0), 1)
    assert (from_mouse, from_keyboard) == ((0x20, 0xFA), (0x00, 0xFA))


@pytest.mark.parametrize(("command", "a20"), [(0xDD, 0), (0xDF, 2)])
def test_a20_by_command(port, command, a20):
    port.write(COMMAND, command)
    port.write(COMMAND, 0xD0)
    assert port.read(DATA) & 0x02 == a20


@pytest.mark.parametrize("command", [0xFE, 0xF0])
def test_pulsing_the_reset_line_resets(port, host, command):
    port.write(COMMAND, command)
    assert host.resets == 1


def test_the_output_port_resets_and_sets_a20(port, host):
    port.write(COMMAND, 0xD1)
    port.write(DATA, 0x01)
    assert host.resets == 0
    port.write(COMMAND, 0xD0)
    assert port.read(DATA) == 0x01
    port.write(COMMAND, 0xD1)
    port.write(DATA, 0x02)
    assert host.resets == 1


def test_each_byte_interrupts_when_enabled(port, kbc, host):
    kbc.send_scancodes(b"\x1c")
    assert host.trigger.count == 0
    port.read(DATA)
    port.write(COMMAND, 0x60)
    port.write(DATA, 0x01)
    kbc.send_scancodes(b"\xf0\x1c")
    assert host.trigger.count == 1
    assert answers(port) == [0xF0, 0x1C]
    assert host.trigger.count == 2


def test_a_byte_that_waits_interrupts_when_interrupts_are_enabled(port, kbc, host):
    """PS/2 technical reference: IRQ 1 is "output buffer full" and bit 0 of the command byte."""
    kbc.send_scancodes(b"\x1c")
    port.write(COMMAND, 0x60)
    port.write(DATA, 0x01)
    first = host.trigger.count
    port.write(COMMAND, 0x60)
    port.write(DATA, 0x01)

    assert (first, host.trigger.count) == (1, 1)
    assert answers(port) == [0x1C]


def test_enabling_interrupts_with_nothing_to_read_raises_none(port, host):
    port.write(COMMAND, 0x60)
    port.write(DATA, 0x01)
    assert host.trigger.count == 0


def command_byte(port, value):
    port.write(COMMAND, 0x60)
    port.write(DATA, value)


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ("1c f0 1c", "1e 9e"), ("76", "01"), ("83 f0 83", "41 c1"), ("84", "54"),
        ("e0 75 e0 f0 75", "e0 48 e0 c8"),
        ("e1 14 77 e1 f0 14 f0 77", "e1 1d 45 e1 9d c5"), ("5a", "1c"), ("29", "39"),
    ],
)
def test_bit_6_of_the_command_byte_translates_to_set_1(port, kbc, sent, received):
    """PS/2 technical reference, command byte: bit 6 converts scan codes to those of the PC's first
    keyboards.
    """
    command_byte(port, 0x40)
    assert kbc.send_scancodes(bytes.fromhex(sent)) == len(bytes.fromhex(sent))
    assert answers(port) == list(bytes.fromhex(received))


def test_without_bit_6_codes_are_those_of_set_2(port, kbc):
    command_byte(port, 0x00)
    kbc.send_scancodes(b"\x1c\xf0\x1c")
    assert answers(port) == [0x1C, 0xF0, 0x1C]


def test_a_release_that_comes_in_two_pieces_is_one_code(port, kbc):
    command_byte(port, 0x40)
    kbc.send_scancodes(b"\xf0")
    successor = I8042()
    successor.restore(kbc.snapshot())
    successor.send_scancodes(b"\x1c")
    assert successor.read_port(DATA) == 0x9E


@pytest.mark.parametrize(
    ("bytes_in", "answer"), [([0xF2], [0xFA, 0xAB, 0x41]), ([0xF0, 0x00], [0xFA, 0xFA, 0x41])]
)
def test_the_keyboards_answers_are_translated_too(port, bytes_in, answer):
    command_byte(port, 0x40)
    for byte in bytes_in:
        port.write(DATA, byte)
    assert answers(port) == answer


def test_the_controllers_own_answers_are_not_translated(port):
    command_byte(port, 0x40)
    port.write(COMMAND, 0x20)
    assert answers(port) == [0x40]


def test_the_keyboard_itself_may_send_set_1(port, kbc):
    port.write(DATA, 0xF0)
    port.write(DATA, 0x01)
    kbc.send_scancodes(b"\x1c\xf0\x1c")
    assert answers(port) == [0xFA, 0xFA, 0x1E, 0x9E]


def test_after_f5_no_key_comes_until_f4(port, kbc):
    """MF II keyboard: 0xF5 stops scanning, 0xF4 starts it, and so does a reset."""
    port.write(DATA, 0xF5)
    stopped = kbc.send_scancodes(b"\x1c")
    port.write(DATA, 0xED)
    port.write(DATA, 0x00)
    still = kbc.send_scancodes(b"\x1c")
    port.write(DATA, 0xF4)
    started = kbc.send_scancodes(b"\x1c")
    port.write(DATA, 0xF5)
    port.write(DATA, 0xFF)

    assert (stopped, still, started, kbc.send_scancodes(b"\x32")) == (0, 0, 1, 1)
    assert answers(port) == [0xFA, 0xFA, 0xFA, 0xFA, 0x1C, 0xFA, 0xFA, 0xAA, 0x32]


def test_a_keyboard_that_does_not_scan_stays_so_in_another_owner(port, kbc):
    port.write(DATA, 0xF5)
    successor = I8042()
    successor.restore(kbc.snapshot())
    assert successor.send_scancodes(b"\x1c") == 0


def test_port_61_toggles_refresh_and_keeps_the_speaker_bits(port):
    port.write(PORT_B, 0x03)
    first, second = port.read(PORT_B), port.read(PORT_B)
    assert first ^ second == 0x10
    assert first & 0x0F == 0x03


def test_the_ports_between_read_ff_and_drop_writes(port):
    port.write(2, 0x00)
    assert port.read(2) == 0xFF


def test_a_guest_that_never_reads_does_not_make_it_grow(port, kbc):
    for _ in range(1000):
        port.write(DATA, 0xEE)
    assert len(kbc.snapshot().queue) == 64


def test_snapshot_and_restore(port, kbc, host):
    port.write(COMMAND, 0x60)
    port.write(DATA, 0x45)
    port.write(DATA, 0xFF)
    successor = I8042()
    successor.restore(kbc.snapshot())
    successor.attach(host)
    assert [successor.read_port(DATA), successor.read_port(DATA)] == [0xFA, 0xAA]
    assert len(kbc.snapshot().queue) == 2


def test_a_byte_that_waits_interrupts_the_new_owner(host):
    device = I8042()
    device.write_port(COMMAND, 0x60)
    device.write_port(DATA, 0x01)
    device.write_port(COMMAND, 0xAA)
    device.attach(host)
    assert host.trigger.count == 1


def test_at_its_own_two_ports_it_leaves_the_timers_between_them_alone(kbc):
    manager = IoManager()
    for port in (0x60, 0x64):
        manager.register_pio(PioRange(port, 1), kbc)
    data, status = bytearray(1), bytearray(1)
    manager.pio_write(0x64, b"\xaa")
    manager.pio_read(0x64, status)
    manager.pio_read(0x60, data)
    assert (status[0] & 0x01, data[0]) == (1, 0x55)
    with pytest.raises(DeviceNotFound):
        manager.pio_read(0x61, data)
