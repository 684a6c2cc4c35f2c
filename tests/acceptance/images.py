"""Guests that others wrote: fetched as Debian's packages, built where they have to be, and kept.

`make guests` makes all of them. They lie in `$SHARDIO_GUESTS` (default: `$XDG_CACHE_HOME/shardio/guests`),
outside the tree; what is there already is not made again, so a run that was broken off goes on where it was.
"""

from __future__ import annotations

import array
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE = Path(os.environ.get("SHARDIO_GUESTS") or HOME / "shardio" / "guests")
SOURCES = Path(__file__).resolve().parent

GRUB_MODULES = [
    "normal", "serial", "terminal", "terminfo", "ls", "cat", "ext2", "part_msdos", "ata", "pci", "lspci",
    "iorw", "date", "datetime", "echo", "halt", "reboot", "minicmd", "test", "hashsum", "gcry_sha1", "pata",
    "hexdump", "testspeed",
]  # fmt: skip
GRUB_START = "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\n"

SECTOR = 512
DISK_SECTORS = 16384
"""8 MiB."""
PARTITION_START = 2048
"""Where fdisk puts the first partition: at 1 MiB."""
LINUX_PARTITION = 0x83
BOOT_CODE_BYTES = 440
"""Of a boot sector, before the disk's signature and the partition table."""
UUID = "a5c3f7e0-5b1d-4c53-9a6e-0123456789ab"
LARGE_FILE_SIZE = 128 << 10
"""65,536 reads of two bytes at an IDE controller's data port."""
SMALL_FILE_SIZE = 4 << 10


class Missing(Exception):
    """A guest that cannot be had here; the text says why, and what to do."""


def package(name: str) -> Path:
    """The files of Debian's package `name`, unpacked."""
    return _made(f"packages/{name}", lambda folder: _unpack(name, folder))


def bochs_bios() -> Path:
    """The BIOS of Bochs."""
    return package("bochsbios") / "usr/share/bochs/BIOS-bochs-latest"


def u_boot() -> Path:
    """U-Boot for QEMU's PC, as a firmware."""
    return package("u-boot-qemu") / "usr/lib/u-boot/qemu-x86/u-boot.rom"


def grub() -> Path:
    """GRUB as a payload of coreboot: an ELF file that wants no firmware, on COM1."""
    return _made("grub", _grub) / "grub.elf"


def disk() -> Path:
    """An 8 MiB disk: one partition with an ext2 file system that holds hello.txt, large.bin and small.bin."""
    return _made("disk", _disk) / "disk.img"


def boot_disk() -> Path:
    """The same disk with GRUB installed on it, for a BIOS."""
    return _made("boot-disk", _boot_disk) / "disk.img"


def linux() -> Path:
    """Linux 6.1 as vmlinux: one processor, no PCI (`linux.config`). It takes some four CPU minutes."""
    return _made("linux", lambda folder: _linux(folder, "linux.config")) / "vmlinux"


def linux_smp() -> Path:
    """The same with several processors, ACPI, PCI and a network. It takes twice as long."""
    return _made("linux-smp", lambda folder: _linux(folder, "linux.config", "linux-smp.config")) / "vmlinux"


GUESTS: tuple[Callable[[], Path], ...] = (
    bochs_bios, u_boot, disk, grub, boot_disk, linux, linux_smp,
)  # fmt: skip


def present(guest: Callable[[], Path]) -> bool:
    """Whether that guest is here, or is made within seconds. Linux is not."""
    folders = {linux: "linux", linux_smp: "linux-smp"}
    return guest not in folders or (CACHE / folders[guest]).is_dir()


def counted(size: int) -> bytes:
    """`size` bytes, what large.bin and small.bin hold: each 4-byte word is its number."""
    return array.array("I", range(size // 4)).tobytes()


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of the cache, filled by `make`, whole or not at all."""
    folder = CACHE / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        make(made)
        try:
            made.rename(folder)
        except OSError:  # another process was quicker
            if not folder.is_dir():
                raise
    return folder


def _unpack(name: str, folder: Path) -> None:
    """Downloads the package, whose signature apt checks, and unpacks it without installing it."""
    if shutil.which("apt-get") is None:
        raise Missing(f"{name} comes from Debian's packages, and apt-get is not here")
    # Where nobody answers, this is to be told soon.
    apt = ["apt-get", "-qq", "-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=0"]
    try:
        _run([*apt, "download", name], folder)
    except Missing:
        _run([*apt, "update"], folder)
        _run([*apt, "download", name], folder)
    (archive,) = folder.glob("*.deb")
    _run(["dpkg", "-x", str(archive), str(folder)], folder)
    archive.unlink()


def _grub(folder: Path) -> None:
    modules = package("grub-coreboot-bin") / "usr/lib/grub/i386-coreboot"
    start = folder / "start.cfg"
    start.write_text(GRUB_START)
    maker = package("grub-common") / "usr/bin/grub-mkimage"
    words = [maker, "-d", modules, "-O", "i386-coreboot", "-o", folder / "grub.elf", "-c", start]
    _run([*map(str, words), "-p", "(ata0,msdos1)", *GRUB_MODULES], folder)


def _boot_disk(folder: Path) -> None:
    """GRUB's installation by hand: its boot sector before the partition table, its core in the gap behind it,
    where the boot sector (which loads sector 1) and the core's first one (the rest from sector 2) expect it.

    The core has what it reads the disk with and no more, as an emulated processor needs long to unpack it.
    """
    modules = package("grub-pc-bin") / "usr/lib/grub/i386-pc"
    grub_folder = folder / "files" / "boot" / "grub"
    shutil.copytree(modules, grub_folder / "i386-pc", ignore=shutil.ignore_patterns("*.img", "*.image"))
    (grub_folder / "grub.cfg").write_text(GRUB_START)
    core = folder / "core.img"
    maker = package("grub-common") / "usr/bin/grub-mkimage"
    words = [maker, "-d", modules, "-O", "i386-pc", "-o", core, "-p", "(ata0,msdos1)/boot/grub"]
    _run([*map(str, words), "pata", "part_msdos", "ext2"], folder)
    image = core.read_bytes()
    if len(image) > (PARTITION_START - 1) * SECTOR:
        raise Missing(f"GRUB's core of {len(image)} bytes does not fit before the partition")
    content = bytearray(_partitioned(folder))
    content[:BOOT_CODE_BYTES] = (modules / "boot.img").read_bytes()[:BOOT_CODE_BYTES]
    content[SECTOR : SECTOR + len(image)] = image
    (folder / "disk.img").write_bytes(content)


def _disk(folder: Path) -> None:
    (folder / "disk.img").write_bytes(_partitioned(folder))


def _partitioned(folder: Path) -> bytes:
    """A disk whose one partition has the files of `folder`/files, and those that a session asks for."""
    files, partition = folder / "files", folder / "partition"
    files.mkdir(exist_ok=True)
    (files / "hello.txt").write_text("Hello from a disk behind a shard\n")
    (files / "large.bin").write_bytes(counted(LARGE_FILE_SIZE))
    (files / "small.bin").write_bytes(counted(SMALL_FILE_SIZE))
    size = DISK_SECTORS - PARTITION_START
    partition.write_bytes(b"")
    # Nothing in it depends on when and where it was made.
    fixed = ["-U", UUID, "-E", f"hash_seed={UUID}"]
    _run(["mke2fs", "-q", "-t", "ext2", *fixed, "-d", str(files), str(partition), f"{size // 2}k"], folder)
    # One entry of the partition table at 0x1be: status, three bytes of CHS that nobody reads, type, CHS, LBA.
    entry = bytes([0, 0xFE, 0xFF, 0xFF, LINUX_PARTITION, 0xFE, 0xFF, 0xFF])
    entry += PARTITION_START.to_bytes(4, "little") + size.to_bytes(4, "little")
    head = bytes(0x1BE) + entry + bytes(48) + b"\x55\xaa"
    content = head.ljust(PARTITION_START * SECTOR, b"\0") + partition.read_bytes()
    shutil.rmtree(files)
    partition.unlink()
    return content.ljust(DISK_SECTORS * SECTOR, b"\0")


def _linux(folder: Path, *configs: str) -> None:
    needed = [tool for tool in ("flex", "bison", "bc", "xz") if shutil.which(tool) is None]
    if needed:
        packages = "flex bison bc xz-utils libelf-dev"
        raise Missing(f"building Linux needs {', '.join(needed)}: apt-get install {packages}")
    archive = package("linux-source-6.1") / "usr/src/linux-source-6.1.tar.xz"
    _run(["tar", "xf", str(archive)], folder)
    source = folder / "linux-source-6.1"
    _run(["make", "tinyconfig"], source)
    with (source / ".config").open("a") as config:
        config.writelines((SOURCES / name).read_text() for name in configs)
    _run(["make", "olddefconfig"], source)
    _run(["make", f"-j{os.cpu_count()}", "vmlinux", "bzImage"], source)
    (source / "vmlinux").rename(folder / "vmlinux")
    (source / "arch/x86/boot/bzImage").rename(folder / "bzImage")
    shutil.rmtree(source)


def _run(words: Sequence[str], folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, check=False,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise Missing(f"{words[0]} is not here, which makes a guest") from error
        output.seek(0)
        said = output.read().decode(errors="replace").strip().splitlines()
    if done.returncode:
        raise Missing(f"{' '.join(map(str, words[:3]))} ...: {said[-1] if said else 'failed'}")


def main() -> int:
    """Makes every guest, and says how far it is."""
    failed = 0
    for make in GUESTS:
        name = make.__name__.replace("_", " ")
        print(f"{name}: ", end="", flush=True)
        begun = time.monotonic()
        try:
            print(f"{make()} ({time.monotonic() - begun:.0f} s)")
        except Missing as error:
            failed += 1
            print(f"cannot be had: {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
