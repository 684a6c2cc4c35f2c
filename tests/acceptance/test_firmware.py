"""Firmware that others wrote, by one command: the Bochs BIOS to its end, and a session in U-Boot's shell."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.images import Missing, bochs_bios, u_boot

pytestmark = [pytest.mark.machine, pytest.mark.timeout(180)]

PROMPT = "\\n=> "
SESSION = (
    ("version", "GNU ld"),
    ("echo one two", "one two"),
    ("setenv five 5", "five 5"),
    ("printenv five", "five=5"),
    ("mw.l 100000 cafe1234 10", "1234 10"),
    ("md.l 100000 4", "00100000: cafe1234 cafe1234 cafe1234 cafe1234"),
    ("crc32 100000 40", "crc32 for 00100000 ... 0010003f ==>"),
    ("cp.l 100000 100200 10", "200 10"),
    ("cmp.l 100000 100200 10", "Total of 16 word(s) were the same"),
    ("pci", "00.00.00   0x8086     0x1237"),
    ("date", "Date: 20"),
)


def image(guest: Callable[[], Path]) -> Path:
    """The guest's file; skips the test where it cannot be had."""
    try:
        return guest()
    except Missing as error:
        pytest.skip(str(error))


def run(*words: object) -> subprocess.CompletedProcess[bytes]:
    """`shardio run` with these words."""
    command = [sys.executable, "-m", "shardio", "run", *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=150, check=False)


@pytest.mark.parametrize("vcpus", [1, 2])
def test_the_bochs_bios_finds_no_bootable_device(vcpus: int) -> None:
    bios = image(bochs_bios)

    done = run("--firmware", bios, "--vcpus", vcpus, "--expect", "No bootable device.", "--timeout", 100)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert f"Found {vcpus} cpu(s)".encode() in done.stdout
    assert b"PCI: bus=0 devfn=0x00: vendor_id=0x8086 device_id=0x1237" in done.stdout


def test_a_session_in_u_boot() -> None:
    rom = image(u_boot)
    steps = ["--expect", "stop autoboot", "--send", " ", "--expect", PROMPT]
    for line, answer in SESSION:
        steps += ["--send", line + r"\r", "--expect", answer, "--expect", PROMPT]

    done = run("--firmware", rom, *steps, "--timeout", 100)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
