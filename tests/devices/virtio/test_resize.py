"""Disks and terminals whose size changes while the driver runs: the configuration follows, and the driver is
told (virtio 1.2 sections 2.5, 4.1.4.5, 4.2.2, 5.2.5 and 5.3.4).
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardio.devices import PciBus
from shardio.devices.virtio import (
    VirtioMmioBlock,
    VirtioMmioConsole,
    VirtioPciBlock,
    VirtioPciConsole,
    mmio,
)
from shardio.devices.virtio.console import F_SIZE
from shardio.devices.virtio.mmio import INTERRUPT_CONFIG, MmioState
from shardio.devices.virtio.pci import ISR_CONFIG
from shardio.devices.virtio.pci_common import CONFIG_GENERATION
from shardio.errors import DeviceOptionError, ImageError
from shardio.interrupt import MsiConfig, RecordingBackend
from shardio.memory import GuestMemory
from tests.devices.virtio.block_guest import IN, IOERR, OK, OUT, SECTORS, disk
from tests.devices.virtio.guest import MmioGuest, attached, run
from tests.devices.virtio.pci_guest import DEVICE_CONFIG, LINE, PciGuest, plugged_in

MESSAGES = [MsiConfig(0xFEE0_0000, 0x40), MsiConfig(0xFEE0_0000, 0x41)]


def capacity(guest: MmioGuest) -> int:
    return guest.get(mmio.CONFIG) | guest.get(mmio.CONFIG + 4) << 32


# ---- disks ----


@pytest.mark.parametrize("sectors", [1, SECTORS // 2, SECTORS + 1, 4 * SECTORS])
def test_a_disk_gets_another_capacity_and_its_driver_is_told(image: Path, sectors: int) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            generation = guest.get(mmio.CONFIG_GENERATION)
            told = guest.device.resize(512 * sectors)  # type: ignore[attr-defined]
            assert (told, os.path.getsize(image)) == (512 * sectors, 512 * sectors)
            assert capacity(guest) == sectors
            assert guest.get(mmio.CONFIG_GENERATION) != generation
            assert guest.get(mmio.INTERRUPT_STATUS) == INTERRUPT_CONFIG

    run(test)


@pytest.mark.parametrize(("kind", "data", "expect"), [(IN, b"", 512), (OUT, b"x" * 512, 0)])
def test_requests_reach_as_far_as_the_disk_does_now(image: Path, kind: int, data: bytes, expect: int) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            seen = []
            for sectors in (SECTORS, SECTORS + 1, SECTORS):
                guest.device.resize(512 * sectors)  # type: ignore[attr-defined]
                seen.append((await guest.request(kind, SECTORS, data, expect))[0])
            assert seen == [IOERR, OK, IOERR]
            assert os.path.getsize(image) == 512 * SECTORS

    run(test)


def test_a_file_that_was_resized_on_the_host_is_measured_anew(image: Path) -> None:
    async def test() -> None:
        async with disk(image, read_only=True) as guest:
            os.truncate(image, 512 * 100)
            before = capacity(guest)
            assert (before, guest.device.resize(), capacity(guest)) == (  # type: ignore[attr-defined]
                SECTORS, 512 * 100, 100
            )  # fmt: skip

    run(test)


@pytest.mark.parametrize(("size", "error"), [
    (0, ImageError), (513, ImageError), (1 << 62, ImageError), (-512, DeviceOptionError),
    ("a lot", DeviceOptionError), (1.5, DeviceOptionError), (True, DeviceOptionError),
])  # fmt: skip
def test_a_size_that_cannot_be_changes_nothing(image: Path, size: object, error: type[Exception]) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            with pytest.raises(error):
                guest.device.resize(size)  # type: ignore[attr-defined]
            assert (capacity(guest), os.path.getsize(image)) == (SECTORS, 512 * SECTORS)
            assert guest.get(mmio.INTERRUPT_STATUS) == 0

    run(test)


def test_a_disk_that_is_read_only_here_is_not_given_a_size(image: Path) -> None:
    async def test() -> None:
        async with disk(image, read_only=True) as guest:
            with pytest.raises(ImageError, match="read-only"):
                guest.device.resize("1M")  # type: ignore[attr-defined]

    run(test)


def test_the_same_size_is_no_change(image: Path) -> None:
    async def test() -> None:
        async with disk(image) as guest:
            guest.device.resize(512 * SECTORS)  # type: ignore[attr-defined]
            assert guest.get(mmio.INTERRUPT_STATUS) == 0

    run(test)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["resize", "read", "write"]), st.integers(1, 40)), max_size=12))
def test_a_disk_holds_what_was_written_as_far_as_it_reaches(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Against a model: bytes that are cut off and come back are zero (ftruncate(2))."""
    path = tmp_path_factory.mktemp("disk") / "image"
    path.write_bytes(bytes(512 * 20))
    model = bytearray(512 * 20)

    async def test() -> None:
        nonlocal model
        async with disk(path) as guest:
            for number, (step, at) in enumerate(steps):
                if step == "resize":
                    guest.device.resize(512 * at)  # type: ignore[attr-defined]
                    model = model[: 512 * at].ljust(512 * at, b"\0")
                    continue
                data = bytes([number + 1]) * 512 if step == "write" else b""
                status, read = await guest.request(OUT if data else IN, at, data, 0 if data else 512)
                inside = 512 * (at + 1) <= len(model)
                assert status == (OK if inside else IOERR)
                if inside and data:
                    model[512 * at : 512 * (at + 1)] = data
                elif inside:
                    assert read == model[512 * at : 512 * (at + 1)]
        assert path.read_bytes() == model

    run(test)


def test_an_owner_that_finds_the_image_changed_tells_the_driver(memory: GuestMemory, image: Path) -> None:
    with attached(VirtioMmioBlock(str(image)), memory) as guest:
        guest.start()
        packed = msgspec.msgpack.encode(guest.device.snapshot())
    os.truncate(image, 512)
    with attached(VirtioMmioBlock(str(image)), memory) as successor:
        successor.device.restore(msgspec.msgpack.decode(packed, type=MmioState))

        assert successor.get(mmio.INTERRUPT_STATUS) & INTERRUPT_CONFIG
        assert capacity(successor) == 1


@pytest.mark.parametrize("msix", [False, True])
def test_a_disk_on_pci_tells_by_the_configurations_vector_or_the_isr(
    memory: GuestMemory, backend: RecordingBackend, image: Path, msix: bool
) -> None:
    with plugged_in(VirtioPciBlock(str(image), line=LINE), memory, backend) as guest:
        guest.enable_memory()
        if msix:
            guest.enable_msix(MESSAGES)
        guest.start(1, 0)
        generation = guest.get(CONFIG_GENERATION, 1)
        guest.device.resize(512 * 7)
        told = [backend.delivered(each.gsi) for each in backend.irqfds.values()]
        config = guest.virtio[DEVICE_CONFIG].offset

        assert guest.device.read(config, 8) == 7
        assert guest.get(CONFIG_GENERATION, 1) != generation
        assert guest.isr() == (0 if msix else ISR_CONFIG)
        assert sum(told) == 1


# ---- terminals ----


def size(guest: MmioGuest) -> tuple[int, int]:
    return guest.device.read(mmio.CONFIG, 2), guest.device.read(mmio.CONFIG + 2, 2)


def test_a_terminal_gets_another_size_and_its_driver_is_told(memory: GuestMemory) -> None:
    with attached(VirtioMmioConsole(output="null"), memory) as guest:
        guest.start()
        before = size(guest)
        guest.device.resize(132, 43)  # type: ignore[attr-defined]

        assert (before, size(guest)) == ((80, 25), (132, 43))
        assert guest.get(mmio.INTERRUPT_STATUS) == INTERRUPT_CONFIG
        guest.set(mmio.INTERRUPT_ACK, INTERRUPT_CONFIG)
        guest.device.resize(132, 43)  # type: ignore[attr-defined]
        assert guest.get(mmio.INTERRUPT_STATUS) == 0


def test_a_driver_that_does_not_want_the_size_is_not_interrupted(memory: GuestMemory) -> None:
    with attached(VirtioMmioConsole(output="null"), memory) as guest:
        guest.start(without=F_SIZE)
        guest.device.resize(132, 43)  # type: ignore[attr-defined]

        assert guest.get(mmio.INTERRUPT_STATUS) == 0


@pytest.mark.parametrize("wrong", [(0, 25), (80, 0), (65536, 25), (80, -1), ("80", 25), (80, None)])
def test_what_is_no_size_is_refused(memory: GuestMemory, wrong: tuple[int, int]) -> None:
    with attached(VirtioMmioConsole(output="null"), memory) as guest:
        guest.start()
        with pytest.raises(DeviceOptionError):
            guest.device.resize(*wrong)  # type: ignore[attr-defined]
        assert size(guest) == (80, 25)
    with pytest.raises(DeviceOptionError):
        VirtioMmioConsole(output="null", columns=wrong[0], rows=wrong[1])


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"output": "stdout"}, (132, 43)), ({"source": "stdin", "output": "null"}, (132, 43)),
    ({"output": "null"}, (80, 25))],
)  # fmt: skip
def test_the_consoles_on_the_users_terminal_follow_its_size(
    memory: GuestMemory, options: dict[str, str], expected: tuple[int, int]
) -> None:
    device = VirtioMmioConsole(**options)  # type: ignore[arg-type]
    device.terminal_resized(132, 43)

    assert (device.read(mmio.CONFIG, 2), device.read(mmio.CONFIG + 2, 2)) == expected


def test_a_size_goes_on_in_another_owner(memory: GuestMemory) -> None:
    with attached(VirtioMmioConsole(output="null"), memory) as guest:
        guest.start()
        guest.device.resize(132, 43)  # type: ignore[attr-defined]
        packed = msgspec.msgpack.encode(guest.device.snapshot())
    with attached(VirtioMmioConsole(output="null"), memory) as successor:
        successor.device.restore(msgspec.msgpack.decode(packed, type=MmioState))

        assert size(successor) == (132, 43)


def test_a_terminal_on_pci_tells_by_the_isr(memory: GuestMemory, backend: RecordingBackend) -> None:
    with plugged_in(VirtioPciConsole(output="null", line=LINE), memory, backend) as guest:
        guest.enable_memory()
        started_with_size(guest)
        guest.device.resize(132, 43)
        config = guest.virtio[DEVICE_CONFIG].offset

        assert (guest.device.read(config, 2), guest.device.read(config + 2, 2)) == (132, 43)
        assert guest.isr() == ISR_CONFIG


def started_with_size(guest: PciGuest) -> None:
    guest.start()
    guest.device.virtio.negotiated |= F_SIZE


# ---- behind the bridge ----


def test_the_bridge_calls_its_endpoints(image: Path) -> None:
    functions = [
        {"type": "shardio.devices.virtio:VirtioPciBlock", "slot": 3, "path": str(image)},
        {"type": "shardio.devices.virtio:VirtioPciConsole", "slot": 5, "output": "stdout"},
    ]
    bus = PciBus(functions=functions)
    bus.terminal_resized(132, 43)
    resized = bus.call_endpoint(3, "resize", size=1024)
    console = bus.endpoints[5].virtio.config()  # type: ignore[attr-defined]
    bus.endpoints[3].virtio.detach()  # type: ignore[attr-defined]

    assert (resized, os.path.getsize(image)) == (1024, 1024)
    assert console[:4] == bytes([132, 0, 43, 0])


@pytest.mark.parametrize(
    ("slot", "method"), [(4, "resize"), (3, "resize"), (3, "_interrupt"), (3, "isr"), (3, "")]
)
def test_the_bridge_refuses_what_an_endpoint_does_not_have(slot: int, method: str) -> None:
    bus = PciBus(functions=[{"type": "shardio.devices.virtio:VirtioPciRng", "slot": 3}])

    with pytest.raises(DeviceOptionError):
        bus.call_endpoint(slot, method)
