"""SeaBIOS's boot, recorded with the devices of its PC, and replayed to them without a machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shardio import ReplayDiffers
from shardio.devices import I8042, DebugConsole, FwCfg, Uart16550
from shardio.recording.format import Event, What, load
from shardio.testing import replay
from tests.e2e.support import machine, until
from tests.e2e.test_firmware import BIOS, MEMORY, add_platform
from tests.guests.build import guest

ROOT = Path(__file__).resolve().parent.parent.parent
SHARDIO = [sys.executable, "-m", "shardio"]
LSR = 5
"""The line status register of the 16550A."""

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(not BIOS.exists(), reason=f"{BIOS} is missing: apt-get install seabios"),
]


class BrokenUart(Uart16550):
    """Says that it has room for a byte, and at its 100th look at its line status that it has none."""

    looks = 0

    def read(self, offset: int, size: int) -> int:
        self.looks += offset == LSR
        return 0 if offset == LSR and self.looks == 100 else super().read(offset, size)


def shardio(*words: object) -> subprocess.CompletedProcess[str]:
    """A command of shardio."""
    command = [*SHARDIO, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=150)


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of SeaBIOS, up to where it finds nothing to boot."""
    folder = tmp_path_factory.mktemp("boot")
    file, log = folder / "boot.rec", folder / "log"
    with machine(memory=MEMORY, shards=2) as vm:
        vm.load_firmware(BIOS)
        add_platform(vm, 1, log)
        vm.record(file)
        vm.start()
        until(lambda: "No bootable device." in log.read_text(), "nothing is found to boot")
    return file


@pytest.mark.parametrize("device", [
    lambda: Uart16550(output="null"), lambda: DebugConsole(output="null"), I8042, FwCfg,
])  # fmt: skip
def test_devices_answer_as_they_did_during_the_boot(boot: Path, device: type) -> None:
    made = device() if not isinstance(device, type) else device

    assert replay(boot, made) > 20


def test_a_bug_in_the_uart_is_found_at_its_access(boot: Path) -> None:
    [life] = load(boot).lives("com1")
    accesses = [each for each in life.events if isinstance(each, Event)]
    looks = [n for n, each in enumerate(accesses) if each.what == What.READ and each.address == 0x3F8 + LSR]
    with pytest.raises(ReplayDiffers) as caught:
        replay(boot, BrokenUart(output="null"), name="com1")
    difference = caught.value.difference

    assert len(looks) > 100
    assert (difference.index, difference.address, difference.width) == (looks[99], 0x3F8 + LSR, 1)
    assert (difference.expected, difference.got) == (f"{accesses[looks[99]].value:#x}", "0x0")


def test_the_command_replays_a_device_and_tells_the_first_difference(boot: Path) -> None:
    same = shardio("replay", boot, "--device", "shardio.devices:Uart16550")
    broken = shardio(
        "replay", boot, "--device", "tests.e2e.test_recording:BrokenUart,output=null", "--name", "com1"
    )

    assert (same.returncode, same.stderr) == (0, "")
    assert re.fullmatch(r"com1: \d+ accesses as recorded, [\d,]+ a second\n", same.stdout)
    assert (broken.returncode, broken.stderr) == (1, "")
    assert re.fullmatch(
        r"com1: access \d+: 1-byte read at pio 0x3fd: expected 0x\w+, got 0x0\n", broken.stdout
    )


@pytest.mark.machine
def test_the_command_records_what_it_is_told(tmp_path: Path, cpu: str) -> None:
    image, file = tmp_path / "hello.bin", tmp_path / "run.rec"
    image.write_bytes(guest("hello", EXIT_CODE=42))
    ended = shardio("record", "-o", file, "--devices", "com1", "--image", image, "--quiet", "--cpu", cpu)
    recording = load(file)

    assert (ended.returncode, ended.stderr) == (85, "")
    assert list(recording.devices) == ["com1"]
    assert replay(file, Uart16550(output="null")) == recording.lives("com1")[0].accesses > 0


def test_the_command_lists_what_a_recording_holds(boot: Path) -> None:
    listed = shardio("replay", boot)

    assert listed.returncode == 0
    assert re.search(r"^com1: shardio.devices.uart:Uart16550, \d{3,} accesses$", listed.stdout, re.MULTILINE)


@pytest.mark.parametrize(("words", "complaint"), [
    (["--device", "shardio.devices:Uart"], "has no 'Uart'"),
    (["--device", "shardio.devices:Uart16550", "--name", "com2"], "has no device 'com2'"),
    (["--device", "shardio.devices:Hpet"], "name the one that is meant"),
    (["--device", "shardio.devices:Uart16550,colour=1"], "colour"),
    (["--device", "shardio.devices:Uart16550,output"], "is no KEY=VALUE"),
])  # fmt: skip
def test_what_cannot_be_replayed_is_refused(boot: Path, words: list[str], complaint: str) -> None:
    ended = shardio("replay", boot, *words)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


def test_files_that_are_no_recording_are_refused(boot: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.rec"
    cut.write_bytes(boot.read_bytes()[:-10])
    told = [shardio("replay", file).stderr for file in (cut, BIOS, tmp_path / "none")]

    for text, complaint in zip(told, ("is cut off", "is no recording", "cannot be read"), strict=True):
        assert complaint in text
