"""`restore(snapshot())` of every device that has a state: the successor is what its predecessor was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardio import devices
from shardio.address import PioAddress
from shardio.devices import virtio
from shardio.interrupt import InterruptManager, RecordingBackend
from shardio.memory import GuestMemory
from tests.devices.virtio.driver import RAM
from tests.devices.virtio.pci_guest import PciTestHost

STATELESS = {"LogDevice", "DebugConsole"}
PLAIN: dict[str, Callable[[], Any]] = {
    "AcpiPower": devices.AcpiPower,
    "Checksum": devices.Checksum,
    "CmosRtc": devices.CmosRtc,
    "Counter": devices.Counter,
    "Delay": lambda: devices.Delay(us=0),
    "Echo": devices.Echo,
    "ExitPort": devices.ExitPort,
    "Failing": lambda: devices.Failing(reads=False, writes=False),
    "FwCfg": devices.FwCfg,
    "I8042": devices.I8042,
    "PciHost": devices.PciHost,
    "Port92": devices.Port92,
    "PostPort": devices.PostPort,
    "Uart16550": lambda: devices.Uart16550(output="null"),
    "VgaText": devices.VgaText,
}
RNG = "shardio.devices.virtio:VirtioPciRng"
IN_A_HOST: dict[str, Callable[[Path], Any]] = {
    "PciBus": lambda _: devices.PciBus(functions=[{"type": RNG}, {"type": RNG, "slot": 9}]),
    "VirtioMmioBlock": lambda image: virtio.VirtioMmioBlock(str(image)),
    "VirtioMmioConsole": lambda _: virtio.VirtioMmioConsole(output="null"),
    "VirtioMmioNet": lambda _: virtio.VirtioMmioNet(local="@shardio-a", peer="@shardio-b"),
    "VirtioMmioRng": lambda _: virtio.VirtioMmioRng(),
    "VirtioPciBlock": lambda image: virtio.VirtioPciBlock(str(image)),
    "VirtioPciConsole": lambda _: virtio.VirtioPciConsole(output="null"),
    "VirtioPciNet": lambda _: virtio.VirtioPciNet(local="@shardio-a", peer="@shardio-b"),
    "VirtioPciRng": lambda _: virtio.VirtioPciRng(),
}


def travelled(state: msgspec.Struct) -> Any:
    """The state as it comes out of a message."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=type(state))


def disturb(device: Any, ports: int) -> None:
    """Accesses that leave something behind in about every register."""
    chance = random.Random(7)
    for _ in range(300):
        offset, value = chance.randrange(ports), chance.randrange(256)
        device.pio_write(PioAddress(0), offset, memoryview(bytes((value,))))
        device.pio_read(PioAddress(0), chance.randrange(ports), memoryview(bytearray(1)))


def test_every_device_is_held_to_it() -> None:
    offered = {name: getattr(package, name) for package in (devices, virtio) for name in package.__all__}
    placed = {name for name, kind in offered.items() if {"pio_size", "mmio_size"} & {*dir(kind)}}

    assert {*PLAIN, *IN_A_HOST, *STATELESS} == placed - {"VirtioMmio", "VirtioPci"}


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_a_successor_is_what_its_predecessor_was(name: str) -> None:
    first, second = PLAIN[name](), PLAIN[name]()
    first.clock = second.clock = lambda: 1_700_000_000.0
    disturb(first, first.pio_size)
    state = first.snapshot()
    second.restore(travelled(state))

    assert isinstance(state, msgspec.Struct)
    assert state != PLAIN[name]().snapshot()
    assert second.snapshot() == state


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_a_state_is_a_copy(name: str) -> None:
    device = PLAIN[name]()
    device.clock = lambda: 1_700_000_000.0
    disturb(device, device.pio_size)
    state, before = device.snapshot(), travelled(device.snapshot())
    disturb(device, device.pio_size)

    assert state == before


@pytest.fixture
def pci_host(memory: GuestMemory, loop: asyncio.AbstractEventLoop) -> Iterator[PciTestHost]:
    """A host with RAM and interrupts."""
    with RecordingBackend() as backend, InterruptManager(backend) as interrupts:
        yield PciTestHost(memory, loop, None, interrupts=interrupts)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    """Guest RAM."""
    with GuestMemory(RAM) as memory:
        yield memory


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that nobody runs."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("attached_first", [False, True])
@pytest.mark.parametrize("name", sorted(IN_A_HOST))
def test_a_successor_in_a_host_is_what_its_predecessor_was(
    name: str, attached_first: bool, pci_host: PciTestHost, tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    first = IN_A_HOST[name](image)
    first.attach(pci_host)
    set_up(first)
    state = first.snapshot()
    first.detach()
    second = IN_A_HOST[name](image)
    steps = [lambda: second.restore(travelled(state)), lambda: second.attach(pci_host)]
    for step in reversed(steps) if attached_first else steps:
        step()
    again = second.snapshot()
    second.detach()

    assert isinstance(state, msgspec.Struct)
    assert again == state


def set_up(device: Any) -> None:
    """What a guest writes that starts nothing: BARs, command, line, feature selectors."""
    endpoints = getattr(device, "endpoints", {0: device}).values()
    functions = [each.function for each in endpoints if hasattr(each, "function")]
    for number, function in enumerate(functions):
        function.config_write(0x10, 4, 0xE000_0000 + 0x10000 * number)
        function.config_write(0x04, 2, 0x0006)
        function.config_write(0x3C, 1, 5)
    for each in endpoints:
        each.write(0x00, 4, 1)  # PCI: device_feature_select
        each.write(0x14, 4, 1)  # MMIO: DeviceFeaturesSel
