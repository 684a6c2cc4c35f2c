"""PciHost and PciConfig: mechanism 1 at every width, the host bridge, base addresses, the reset register."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.devices import DeviceOptionError, PciHost
from shardio.devices.pci_config import BAR0, COMMAND, PciConfig
from shardio.devices.pci_host import bdf
from tests.devices.support import Ports

ENABLE = 0x8000_0000


class Config:
    """Configuration space through the ports."""

    def __init__(self, pci: PciHost) -> None:
        self.ports = Ports(pci, 0xCF8)

    def select(self, number: int, register: int) -> int:
        self.ports.write(0, ENABLE | number << 8 | register & 0xFC, size=4)
        return 4 + (register & 3)

    def read(self, number: int, register: int, size: int = 4) -> int:
        return self.ports.read(self.select(number, register), size)

    def write(self, number: int, register: int, value: int, size: int = 4) -> None:
        self.ports.write(self.select(number, register), value, size)


@pytest.fixture
def pci(host):
    device = PciHost()
    device.attach(host)
    return device


@pytest.fixture
def config(pci):
    return Config(pci)


def test_the_host_bridge_is_what_seabios_looks_for(config):
    assert config.read(0, 0x00) == 0x12378086
    assert config.read(0, 0x2C) == 0x11001AF4
    assert config.read(0, 0x0A, 2) == 0x0600
    assert config.read(0, 0x0E, 1) == 0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_what_is_not_there_reads_as_all_ones_and_drops_writes(config, size):
    config.write(bdf(0, 1), 0x10, 0x1, size)
    assert config.read(bdf(0, 1), 0x10, size) == (1 << 8 * size) - 1
    assert config.read(bdf(1, 0), 0x00, size) == (1 << 8 * size) - 1


def test_without_the_enable_bit_nothing_answers(config):
    config.ports.write(0, 0x00, size=4)
    config.ports.write(4, 0x33, size=1)
    assert config.ports.read(4, size=4) == 0xFFFF_FFFF


@given(st.integers(0, 0x3F), st.sampled_from([(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (2, 2), (0, 4)]))
def test_every_width_sees_the_same_bytes(index, at_size):
    config = Config(PciHost())
    at, size = at_size
    word = config.read(0, 4 * index)
    assert config.read(0, 4 * index + at, size) == word >> 8 * at & ((1 << 8 * size) - 1)


@pytest.mark.parametrize(("size", "value"), [(1, 0x31), (2, 0x3131), (4, 0x33313331)])
def test_the_chipsets_registers_hold_what_is_written(config, size, value):
    config.write(0, 0x58, value, size)
    assert config.read(0, 0x58, size) == value


def test_identification_is_read_only(config):
    config.write(0, 0x00, 0)
    config.write(0, 0x2C, 0)
    assert (config.read(0, 0x00), config.read(0, 0x2C)) == (0x12378086, 0x11001AF4)


def test_the_address_register_reads_back_at_32_bits_only(config):
    config.ports.write(0, 0xFFFF_FFFF, size=4)
    assert config.ports.read(0, size=4) == 0x80FF_FFFC
    config.ports.write(0, 0x00, size=2)
    assert config.ports.read(0, size=4) == 0x80FF_FFFC
    assert config.ports.read(0, size=2) == 0xFFFF


def test_the_reset_register_resets_on_the_rising_bit(config, host):
    config.ports.write(1, 0x02)
    assert (config.ports.read(1), host.resets) == (0x02, 0)
    config.ports.write(1, 0x06)
    config.ports.write(1, 0x06)
    assert (config.ports.read(1), host.resets) == (0x06, 1)


@pytest.mark.parametrize(("register", "size", "shift"), [(0x0E, 1, 0), (0x0E, 2, 0), (0x0C, 4, 16)])
def test_function_0_of_several_says_so(pci, config, register, size, shift):
    """PCI 3.0, section 6.2.1: header type bit 7; without it a guest looks at no other function."""
    pci.add_function(bdf(0, 3, 0), PciConfig(1, 2, class_code=0))
    alone = config.read(bdf(0, 3, 0), register, size) >> shift & 0xFF
    pci.add_function(bdf(0, 3, 1), PciConfig(1, 3, class_code=0))

    headers = [config.read(bdf(0, 3, number), register, size) >> shift & 0xFF for number in (0, 1)]

    assert (alone, headers) == (0x00, [0x80, 0x00])
    pci.remove_function(bdf(0, 3, 1))
    assert config.read(bdf(0, 3, 0), register, size) >> shift & 0xFF == 0x00


def test_the_header_type_is_read_only(pci, config):
    pci.add_function(bdf(0, 3, 1), PciConfig(1, 3, class_code=0))
    config.write(bdf(0, 0, 0), 0x0E, 0xFF, 1)

    assert config.read(bdf(0, 0, 0), 0x0E, 1) == 0x00


def test_an_access_across_the_data_ports_is_refused(config, pci):
    config.select(0, 0)
    pci.write(6, 4, 0)
    assert pci.read(6, 4) == 0xFFFF_FFFF


def test_a_function_is_added_and_removed(pci, config):
    function = PciConfig(0x1AF4, 0x1041, class_code=0x020000, interrupt_pin=1)
    pci.add_function(bdf(0, 3), function)
    assert config.read(bdf(0, 3), 0) == 0x10411AF4
    assert config.read(bdf(0, 3), 0x3D, 1) == 1
    assert pci.remove_function(bdf(0, 3)) is function
    assert config.read(bdf(0, 3), 0) == 0xFFFF_FFFF
    assert pci.remove_function(bdf(0, 3)) is None


@pytest.mark.parametrize("number", [0, -1, 0x10000])
def test_a_number_that_is_taken_or_out_of_range_is_refused(pci, number):
    with pytest.raises(DeviceOptionError):
        pci.add_function(number, PciConfig(1, 2, class_code=0))


@pytest.mark.parametrize(
    ("options", "size", "probe"),
    [({}, 0x1000, 0xFFFF_F000), ({}, 16, 0xFFFF_FFF0), ({"io": True}, 32, 0xFFFF_FFE1)],
)
def test_a_base_address_register_tells_its_size(pci, config, options, size, probe):
    function = PciConfig(1, 2, class_code=0)
    function.add_bar(2, size, **options)
    pci.add_function(8, function)
    config.write(8, BAR0 + 8, 0xFFFF_FFFF)
    assert config.read(8, BAR0 + 8) == probe
    config.write(8, BAR0 + 8, 0xE000_1000)
    assert function.bar(2) == 0xE000_1000


def test_a_64_bit_base_address_register(pci, config):
    function = PciConfig(1, 2, class_code=0)
    function.add_bar(4, 1 << 33, wide=True)
    pci.add_function(8, function)
    for register in (BAR0 + 16, BAR0 + 20):
        config.write(8, register, 0xFFFF_FFFF)
    assert (config.read(8, BAR0 + 16), config.read(8, BAR0 + 20)) == (0x4, 0xFFFF_FFFE)
    config.write(8, BAR0 + 20, 0x12)
    assert function.bar(4) == 0x12 << 32


@pytest.mark.parametrize(
    ("index", "size", "options"),
    [(0, 8, {}), (0, 48, {}), (0, 2, {"io": True}), (6, 16, {}), (5, 16, {"wide": True}), (0, 1 << 32, {}),
     (-1, 16, {}), (0, 16, {"io": True, "wide": True})],
)
def test_a_base_address_register_that_cannot_be(index, size, options):
    with pytest.raises(DeviceOptionError):
        PciConfig(1, 2, class_code=0).add_bar(index, size, **options)


def test_the_command_register_has_only_its_writable_bits(config):
    config.write(0, COMMAND, 0xFFFF, 2)
    assert config.read(0, COMMAND, 2) == 0x0547


def test_snapshot_and_restore(pci, config):
    config.write(0, 0x59, 0x33, 1)
    successor = PciHost()
    successor.restore(pci.snapshot())
    again = Config(successor)
    assert successor.snapshot() == pci.snapshot()
    assert again.read(0, 0x59, 1) == 0x33
