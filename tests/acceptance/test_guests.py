"""Guests that others wrote, by one command: the Bochs BIOS, U-Boot and GRUB with sessions, Linux."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.images import (
    PARTITION_START,
    SECTOR,
    SMALL_FILE_SIZE,
    Missing,
    bochs_bios,
    boot_disk,
    counted,
    disk,
    grub,
    linux,
    linux_smp,
    present,
    u_boot,
)

pytestmark = [pytest.mark.machine, pytest.mark.timeout(180)]

SEABIOS = Path("/usr/share/seabios/bios.bin")
U_BOOT_PROMPT = "\\n=> "
U_BOOT_SESSION = (
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
GRUB_PROMPT = "\\rgrub> "
GRUB_SESSION = (
    ("outb 0xe0 0x5a", ""),
    ("inb 0xe0", "0xff"),
    ("ls", "(ata0) (ata0,msdos1)"),
    ("cat (ata0,msdos1)/hello.txt", "Hello from a disk behind a shard"),
    ("lspci", "00:01.0 8086:7010 [0101] IDE Controller"),
    ("date", "20"),
    ("hexdump -s 100000 -n 16 (ata0,msdos1)/large.bin", "000186a0  a8 61 00 00 a9 61 00 00  aa 61"),
    ("sha1sum (ata0,msdos1)/small.bin", hashlib.sha1(counted(SMALL_FILE_SIZE)).hexdigest()),
    ("testspeed (ata0,msdos1)/large.bin", "File size: 128.00KiB"),
)

# What KVM tells of its host in CPUID though it does not run it, and what its emulator cannot
# (docs/reference/kvm.md).
CLEARED = "295,308,288,151,158,306,141,154,145,298,515,59,534,311,312,514,528"
LINUX_ARGUMENTS = (
    "earlyprintk=serial,ttyS0,115200 console=ttyS0 panic=-1 reboot=t lpj=1000000 noxsave rodata=off "
    f"clearcpuid={CLEARED}"
)


def image(guest: Callable[[], Path]) -> Path:
    """The guest's file; skips the test where it cannot be had."""
    if not present(guest):
        pytest.skip("it takes minutes to build: make guests")
    try:
        return guest()
    except Missing as error:
        pytest.skip(str(error))


def run(*words: object) -> subprocess.CompletedProcess[bytes]:
    """`shardio run` with these words."""
    command = [sys.executable, "-m", "shardio", "run", *map(str, words)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=150, check=False)


def test_the_bochs_bios_finds_no_bootable_device() -> None:
    bochs(1)


@pytest.mark.kvm
def test_the_bochs_bios_finds_the_second_processor() -> None:
    """It counts those that answer within some milliseconds, which a software CPU's process may miss."""
    bochs(2)


def bochs(vcpus: int) -> None:
    """The BIOS to its end."""
    bios = image(bochs_bios)

    done = run("--firmware", bios, "--vcpus", vcpus, "--expect", "No bootable device.", "--timeout", 100)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert f"Found {vcpus} cpu(s)".encode() in done.stdout
    assert b"PCI: bus=0 devfn=0x00: vendor_id=0x8086 device_id=0x1237" in done.stdout


def test_a_session_in_u_boot() -> None:
    rom = image(u_boot)
    steps = ["--expect", "stop autoboot", "--send", " ", "--expect", U_BOOT_PROMPT]
    for line, answer in U_BOOT_SESSION:
        steps += ["--send", line + r"\r", "--expect", answer, "--expect", U_BOOT_PROMPT]

    done = run("--firmware", rom, *steps, "--timeout", 100)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def grub_session() -> list[str]:
    """The options that lead through the session, at whose end GRUB ends the machine with status 11."""
    steps = ["--expect", GRUB_PROMPT]
    for line, answer in GRUB_SESSION:
        steps += ["--send", line + r"\r", *(["--expect", answer] if answer else []), "--expect", GRUB_PROMPT]
    return [*steps, "--send", r"outb 0xf4 5\r"]


def test_a_session_in_grub_that_reads_a_disk() -> None:
    payload, drive = image(grub), image(disk)

    done = run("--payload", payload, "--disk", drive, *grub_session(), "--timeout", 150)

    assert done.returncode == 5 << 1 | 1, done.stdout[-2000:] + done.stderr


@pytest.mark.soak  # more than a minute where KVM emulates each instruction
@pytest.mark.timeout(400)
def test_the_same_session_in_a_grub_that_a_bios_boots_from_its_disk(tmp_path: Path) -> None:
    drive = tmp_path / "disk.img"
    drive.write_bytes(image(boot_disk).read_bytes())

    done = run("--firmware", SEABIOS, "--disk", drive, *grub_session(), "--timeout", 350)

    assert done.returncode == 5 << 1 | 1, done.stdout[-2000:] + done.stderr


@pytest.mark.kvm
def test_linux_sees_its_disk_and_passes_its_own_tests() -> None:
    kernel, drive = image(linux), image(disk)
    block = f"shardio.devices.virtio:VirtioMmioBlock,mmio=0xd0000000,irq=5,path={drive},read_only=true"
    lines = (" vda: vda1", "# Totals: pass:39 fail:0 skip:0 total:39", "reboot: machine restart")
    steps = [word for line in lines for word in ("--expect", line)]

    arguments = f"{LINUX_ARGUMENTS} virtio_mmio.device=4K@0xd0000000:5 kunit_shutdown=reboot"
    done = run("--kernel", kernel, "--append", arguments, "--device", block, *steps, "--timeout", 150)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


@pytest.mark.kvm
@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_linux_brings_its_processors_up_and_mounts_its_root_from_pci(vcpus: int, tmp_path: Path) -> None:
    kernel, drive = image(linux_smp), tmp_path / "disk.img"
    drive.write_bytes(image(disk).read_bytes())
    lines = (f"Brought up 1 node, {vcpus} CPU", " vda: vda1", "VFS: Mounted root (ext2 filesystem)")
    steps = [word for line in lines for word in ("--expect", line)]
    arguments = f"{LINUX_ARGUMENTS} root=/dev/vda1 rw kunit.enable=0"

    done = run(
        "--kernel", kernel, "--append", arguments, "--disk", drive, "--vcpus", vcpus, "--shards", 2, *steps,
        "--timeout", 150,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    # It is mounted for writing until the machine ends, and e2fsck says whether what is there is consistent.
    checked = partition_check(drive, tmp_path / "partition")
    assert checked.returncode == 0, checked.stdout


def partition_check(drive: Path, scratch: Path) -> subprocess.CompletedProcess[bytes]:
    """e2fsck's word on the first partition of the disk, which it does not change."""
    scratch.write_bytes(drive.read_bytes()[PARTITION_START * SECTOR :])
    words = ["/usr/sbin/e2fsck", "-fn", str(scratch)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)


@pytest.mark.kvm
def test_linux_powers_its_machine_off_by_acpi() -> None:
    kernel = image(linux_smp)

    done = run("--kernel", kernel, "--append", f"{LINUX_ARGUMENTS} kunit_shutdown=poweroff", "--timeout", 150)

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert b"reboot: Power down" in done.stdout
