"""The guest programs, each on real KVM with the one-page VMM: they do what their headers say."""

from __future__ import annotations

import os

import pytest

from shardio.address import MmioAddress, PioAddress
from shardio.devices.probes import Checksum, Echo
from shardio.kvm import OtherExit
from shardio.range import MmioRange, PioRange
from tests.e2e.devices import Ascending
from tests.guests import model
from tests.guests.build import buffer_address, guest, parameters
from tests.kvm.tiny_vmm import EXIT_PORT, TinyVmm, tiny_vmm

pytestmark = pytest.mark.kvm

MMIO = 0xD000_0000


def accesses(vmm: TinyVmm) -> list[tuple[str, bool, int, int, bytes]]:
    """All accesses but the one to the exit port."""
    return [found for found in vmm.exits if found[:3] != ("pio", True, EXIT_PORT)]


def text(vmm: TinyVmm, port: int = 0x3F8) -> bytes:
    """What was written to a port."""
    return b"".join(found[4] for found in vmm.exits if found[:3] == ("pio", True, port))


def test_hello_writes_its_line_and_exits():
    with tiny_vmm() as vmm:
        vmm.load(guest("hello"))
        vmm.run()
        assert text(vmm) == b"Hello from the guest\n"
        assert vmm.exit_status == 0


def test_a_single_vcpu_guest_needs_no_irqchip():
    with tiny_vmm(irqchip=False) as vmm:
        vmm.load(guest("hello"))
        vmm.run()
        assert text(vmm) == b"Hello from the guest\n"


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_smp_brings_every_vcpu_up_in_order(vcpus):
    with tiny_vmm(vcpus=vcpus) as vmm:
        vmm.load(guest("smp", VCPUS=vcpus))
        vmm.run()
        assert text(vmm) == b"".join(b"cpu %d up\n" % number for number in range(vcpus))
        assert [vmm.result(4, number) for number in range(vcpus)] == list(range(1, vcpus + 1))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_pio_loop_writes(width):
    with tiny_vmm() as vmm:
        vmm.load(guest("pio_loop", COUNT=3, PORT=0x210, WIDTH=width))
        vmm.run()
        expected = [("pio", True, 0x210, width, left.to_bytes(width, "little")) for left in (3, 2, 1)]
        assert accesses(vmm) == expected


@pytest.mark.parametrize("width", [1, 2, 4])
def test_pio_loop_reads(width):
    with tiny_vmm() as vmm:
        vmm.io.register_pio(PioRange(PioAddress(0x210), 4), echo_with(0x44332211))
        vmm.load(guest("pio_loop", COUNT=3, PORT=0x210, WIDTH=width, WRITE=0))
        vmm.run()
        assert len(accesses(vmm)) == 3
        assert vmm.result(4) == 0x44332211 & ((1 << 8 * width) - 1)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_mmio_loop_writes(width):
    with tiny_vmm() as vmm:
        vmm.load(guest("mmio_loop", COUNT=3, WIDTH=width))
        vmm.run()
        expected = [("mmio", True, MMIO, width, left.to_bytes(width, "little")) for left in (3, 2, 1)]
        assert accesses(vmm) == expected


@pytest.mark.parametrize("width", [1, 2, 4])
def test_mmio_loop_reads(width):
    with tiny_vmm() as vmm:
        vmm.io.register_mmio(MmioRange(MmioAddress(MMIO), 0x1000), echo_with(0x44332211))
        vmm.load(guest("mmio_loop", COUNT=3, WIDTH=width, WRITE=0))
        vmm.run()
        assert len(accesses(vmm)) == 3
        assert vmm.result(4) == 0x44332211 & ((1 << 8 * width) - 1)


def test_parameters_are_open_to_the_host_and_the_stride_parts_the_vcpus():
    with tiny_vmm(vcpus=2) as vmm:
        vmm.load(guest("pio_loop", VCPUS=2, STRIDE=0x10))
        vmm.memory.write(parameters("pio_loop")["count"], (5).to_bytes(4, "little"))
        vmm.run()
        ports = [port for _, _, port, _, _ in accesses(vmm)]
        assert sorted(ports) == [0x100] * 5 + [0x110] * 5


@pytest.mark.parametrize("width", [1, 2, 4])
def test_rep_outsb_carries_the_string_in_order(width):
    with tiny_vmm() as vmm:
        vmm.load(guest("rep_outsb", COUNT=32, WIDTH=width, ROUNDS=2))
        sent = os.urandom(32 * width)
        vmm.memory.write(buffer_address(0), sent)
        vmm.run()
        assert text(vmm, 0x100) == sent * 2


@pytest.mark.parametrize("width", [1, 2, 4])
def test_rep_insb_carries_the_string_in_order(width):
    with tiny_vmm() as vmm:
        counter = Ascending()
        vmm.io.register_pio(PioRange(PioAddress(0x100), 4), counter)
        vmm.load(guest("rep_insb", COUNT=32, WIDTH=width, ROUNDS=2))
        vmm.run()
        last = b"".join(number.to_bytes(width, "little") for number in range(33, 65))
        assert vmm.memory.read(buffer_address(0), 32 * width) == last


def test_mmio_widths_in_long_mode():
    with tiny_vmm() as vmm:
        vmm.io.register_mmio(MmioRange(MmioAddress(MMIO), 0x1000), Echo())
        vmm.load(guest("mmio_widths"), mode="long")
        vmm.run()
        value = 0x8877665544332211
        widths = [(True, 1), (True, 2), (True, 4), (True, 8), (False, 1), (False, 2), (False, 4), (False, 8)]
        assert [(write, width) for _, write, _, width, _ in accesses(vmm)] == widths
        read = [vmm.result(8 + 8 * index, size=8) for index in range(4)]
        assert read == [value & ((1 << 8 * width) - 1) for width in (1, 2, 4, 8)]


def test_an_access_across_a_page_end_is_split_in_both_directions():
    with tiny_vmm() as vmm:
        vmm.io.register_mmio(MmioRange(MmioAddress(MMIO), 0x2000), Echo())
        vmm.load(guest("page_cross_mmio"))
        vmm.run()
        assert accesses(vmm) == [
            ("mmio", True, MMIO + 0xFFE, 2, b"\x11\x22"),
            ("mmio", True, MMIO + 0x1000, 2, b"\x33\x44"),
            ("mmio", False, MMIO + 0xFFE, 2, b"\x11\x22"),
            ("mmio", False, MMIO + 0x1000, 2, b"\x33\x44"),
        ]
        assert vmm.result(4) == 0x44332211


def test_unclaimed_reads_are_all_ones_of_their_width():
    with tiny_vmm() as vmm:
        vmm.load(guest("unclaimed"))
        vmm.run()
        ones = [0xFF, 0xFFFF, 0xFFFFFFFF]
        assert [vmm.result(offset) for offset in range(4, 32, 4)] == [*ones, *ones, 0xFFFFFFFF]


def test_hlt_without_an_irqchip_exits():
    with tiny_vmm(irqchip=False) as vmm:
        vmm.load(guest("hlt"))
        assert vmm.run() == OtherExit(5, "KVM_EXIT_HLT")


def test_triple_fault_shuts_down():
    with tiny_vmm() as vmm:
        vmm.load(guest("triple_fault"))
        assert vmm.run() == OtherExit(8, "KVM_EXIT_SHUTDOWN")


def test_bad_instruction_is_an_internal_error_with_its_bytes():
    with tiny_vmm() as vmm:
        vmm.load(guest("bad_instruction"))
        found = vmm.run()
        assert isinstance(found, OtherExit)
        assert found.name == "KVM_EXIT_INTERNAL_ERROR"
        assert found.details["meaning"] == "KVM_INTERNAL_ERROR_EMULATION"
        assert bytes(found.details["instruction"]).startswith(b"\xdb\x2b")


@pytest.mark.parametrize("vcpus", [1, 2])
def test_checksum_of_each_device_is_the_host_s(vcpus):
    devices = [Checksum() for _ in range(3 * vcpus)]
    with tiny_vmm(vcpus=vcpus) as vmm:
        for number, device in enumerate(devices):
            vmm.io.register_mmio(MmioRange(MmioAddress(MMIO + 0x1000 * number), 0x1000), device)
        vmm.load(guest("checksum", VCPUS=vcpus, DEVICES=3, COUNT=20))
        vmm.run()
        expected = [Checksum() for _ in range(3 * vcpus)]
        for vcpu in range(vcpus):
            for device, value in model.checksum_sequence(vcpu, 3, 20):
                expected[3 * vcpu + device].write(0, 4, value)
        read = [vmm.result(8 + 8 * device, vcpu, 8) for vcpu in range(vcpus) for device in range(3)]
        assert read == [device.value for device in expected]


RANGES = [
    model.AccessRange(MMIO, 0xFF, mmio=True, strings=True),
    model.AccessRange(0x400, 0x1F, mmio=False, strings=True),
    model.AccessRange(MMIO + 0x1000, 0xFFF, mmio=True, strings=False),
]


@pytest.mark.parametrize(("vcpus", "seed"), [(1, 1), (2, 0xDEAD)])
def test_random_access_reads_what_the_model_reads(vcpus, seed):
    strides = (0x100, 0x1_0000)
    with tiny_vmm(vcpus=vcpus) as vmm:
        vmm.io.register_pio(PioRange(PioAddress(0x400), 0x200), Echo())
        vmm.io.register_mmio(MmioRange(MmioAddress(MMIO), 0x2_0000), Echo())
        sizes = {"PIO_STRIDE": strides[0], "MMIO_STRIDE": strides[1], "COUNT": 500, "SEED": seed}
        vmm.load(guest("random_access", VCPUS=vcpus, **sizes, **model.presets(RANGES)))
        vmm.run()
        for vcpu in range(vcpus):
            spaces = {False: Echo(), True: Echo()}
            expected = model.random_accesses(
                vcpu, 500, seed, RANGES, strides,
                lambda mmio, at, width, spaces=spaces: spaces[mmio].read(at, width),
                lambda mmio, at, width, value, spaces=spaces: spaces[mmio].write(at, width, value),
            )  # fmt: skip
            assert vmm.result(8, vcpu) == 500
            assert vmm.result(4, vcpu) == expected


def test_hlt_irq_is_woken_by_irqfd_and_by_nothing_else():
    with tiny_vmm() as vmm:
        uart = ReceivingUart(vmm, b"abc")
        vmm.io.register_pio(PioRange(PioAddress(0x3F8), 8), uart)
        vmm.load(guest("hlt_irq", UART_COUNT=3))
        vmm.run()
        uart.close()
        assert vmm.memory.read(0x9100, 3) == b"abc"
        assert uart.echoed == b"abc"
        assert vmm.result(4) == 3
        assert vmm.result(16) >= 1


def test_hlt_irq_counts_rtc_ticks_through_the_second_pic():
    with tiny_vmm() as vmm:
        rtc = TickingRtc(vmm)
        vmm.io.register_pio(PioRange(PioAddress(0x70), 2), rtc)
        vmm.load(guest("hlt_irq", UART_COUNT=0, RTC_COUNT=3))
        vmm.run()
        rtc.close()
        assert vmm.result(8) == 3
        assert rtc.registers[0x0A:0x0C] == b"\x26\x42"


def echo_with(value: int) -> Echo:
    """An `Echo` that holds the 32-bit `value` at offset 0."""
    device = Echo()
    device.write(0, 4, value)
    return device


class ReceivingUart:
    """Enough of a UART to send `data` to the guest, each byte with one irqfd edge on IRQ 4."""

    def __init__(self, vmm: TinyVmm, data: bytes) -> None:
        self.left = bytearray(data)
        self.ready = False
        self.echoed = b""
        self.event = os.eventfd(0)
        vmm.vm.irqfd(self.event, 4)

    def read(self, offset: int, size: int) -> int:
        """RBR gives the byte and lets the next come; LSR bit 0 tells of one."""
        if offset == 5:
            return int(self.ready)
        if offset == 0:
            self.ready = False
            return self.left.pop(0)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """THR: an echoed byte, after which the next one comes, as it does after IER is set."""
        if offset == 0:
            self.echoed += bytes([value])
        if offset in (0, 1) and self.left:
            self.ready = True
            os.eventfd_write(self.event, 1)

    def close(self) -> None:
        """Closes the eventfd."""
        os.close(self.event)


class TickingRtc:
    """Enough of an MC146818 to tick: each read of register C raises the next interrupt on IRQ 8."""

    def __init__(self, vmm: TinyVmm) -> None:
        self.registers = bytearray(128)
        self.index = 0
        self.event = os.eventfd(0)
        vmm.vm.irqfd(self.event, 8)

    def read(self, offset: int, size: int) -> int:
        """The register that was chosen."""
        if self.index == 0x0C:
            os.eventfd_write(self.event, 1)
        return self.registers[self.index]

    def write(self, offset: int, size: int, value: int) -> None:
        """Chooses a register, or sets the chosen one."""
        if offset == 0:
            self.index = value & 0x7F
        else:
            self.registers[self.index] = value

    def close(self) -> None:
        """Closes the eventfd."""
        os.close(self.event)
