"""Guests that others wrote, while a random shard of their machine is killed every 200 ms: the same output."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.images import disk, grub, linux_smp, u_boot
from tests.acceptance.kills import NO_LIMIT, Killer
from tests.acceptance.test_guests import (
    GRUB_PROMPT,
    GRUB_SESSION,
    LINUX_ARGUMENTS,
    U_BOOT_PROMPT,
    U_BOOT_SESSION,
    image,
)

# Under KVM: a software CPU is through with most of them before anybody is killed.
pytestmark = [pytest.mark.kvm, pytest.mark.soak, pytest.mark.timeout(400)]

SHARDS = 3
SEABIOS = Path("/usr/share/seabios/bios.bin")


def run_killed(config: Path, *words: object) -> tuple[int, bytes, bytes, int]:
    """`shardio run` with these words while its shards are killed: status, output, what it complained of, and
    how many kills it were.
    """
    config.write_text(NO_LIMIT)
    command = [sys.executable, "-m", "shardio", "run", config, "--shards", SHARDS, "--quiet", *words]
    with subprocess.Popen(
        [*map(str, command)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        with Killer(process.pid, SHARDS) as killer:
            output, errors = process.communicate(timeout=350)
    return process.returncode, output, errors, killer.kills


def undisturbed(*words: object) -> bytes:
    """What the same machine prints when nobody is killed."""
    command = [sys.executable, "-m", "shardio", "run", "--shards", str(SHARDS), "--quiet", *map(str, words)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=200, check=False
    ).stdout


def test_seabios_says_the_same(tmp_path: Path) -> None:
    def words(log: Path) -> tuple[object, ...]:
        apart = f"shardio.devices:DebugConsole,name=debugcon,pio=0x402,output=file:{log}"
        return (
            "--firmware", SEABIOS, "--device", apart, "--expect", "No bootable device.", "--timeout", 300
        )  # fmt: skip

    logs = tmp_path / "killed", tmp_path / "undisturbed"
    status, output, errors, kills = run_killed(tmp_path / "machine.toml", *words(logs[0]))

    assert status == 0, output[-2000:] + errors
    assert kills >= 5
    assert output == undisturbed(*words(logs[1]))
    assert logs[0].read_bytes() == logs[1].read_bytes()


def test_a_session_in_grub_says_the_same(tmp_path: Path) -> None:
    session = [step for step in GRUB_SESSION if step[0] != "date" and not step[0].startswith("testspeed")]
    steps: list[object] = ["--expect", GRUB_PROMPT]
    for line, answer in session:
        steps += ["--send", line + r"\r", *(["--expect", answer] if answer else []), "--expect", GRUB_PROMPT]
    words = ("--payload", image(grub), "--disk", image(disk), *steps, "--timeout", 340)

    status, output, errors, kills = run_killed(tmp_path / "machine.toml", *words)

    assert status == 0, output[-2000:] + errors
    assert kills >= 5
    assert output == undisturbed(*words)


def test_a_session_in_u_boot_says_the_same(tmp_path: Path) -> None:
    steps: list[object] = ["--expect", "stop autoboot", "--send", " ", "--expect", U_BOOT_PROMPT]
    for line, answer in U_BOOT_SESSION[:-1]:  # but the date
        steps += ["--send", line + r"\r", "--expect", answer, "--expect", U_BOOT_PROMPT]
    words = ("--firmware", image(u_boot), *steps, "--timeout", 340)

    status, output, errors, kills = run_killed(tmp_path / "machine.toml", *words)

    assert status == 0, output[-2000:] + errors
    assert kills >= 5


def test_linux_boots_and_mounts_its_root(tmp_path: Path) -> None:
    drive = tmp_path / "disk.img"
    drive.write_bytes(image(disk).read_bytes())
    lines = (" vda: vda1", "VFS: Mounted root (ext2 filesystem)")
    steps = [word for line in lines for word in ("--expect", line)]
    arguments = f"{LINUX_ARGUMENTS} root=/dev/vda1 rw kunit.enable=0"

    status, output, errors, kills = run_killed(
        tmp_path / "machine.toml", "--kernel", image(linux_smp), "--append", arguments, "--disk", drive,
        "--vcpus", 2, *steps, "--timeout", 340,
    )  # fmt: skip

    assert status == 0, output[-2000:] + errors
    assert kills >= 5
