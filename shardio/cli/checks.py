"""What shardio wants of its host, one function per want; `shardio doctor` shows what they find.

A check looks and changes nothing. `CHECKS` lists them in the order of the report.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import os
import platform
import resource
import shutil
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from shardio.config import find_firmware
from shardio.errors import ShardioError

MIB = 1 << 20
FDS_WANTED = 1024
# pidfd_open and clone with CLONE_PIDFD, by which a death is noticed and reaped without polling.
KERNEL_NEEDED = (5, 3)
KVM_NEEDED = {
    "KVM_CAP_USER_MEMORY": "guest RAM",
    "KVM_CAP_IMMEDIATE_EXIT": "kicking a vCPU without losing the signal",
    "KVM_CAP_IRQCHIP": "interrupts and more than one vCPU",
    "KVM_CAP_IRQFD": "interrupts from shards",
}
KVM_WANTED = {
    "KVM_CAP_IOEVENTFD": "doorbells without an exit",
    "KVM_CAP_IOEVENTFD_ANY_LENGTH": "doorbells of any width",
    "KVM_CAP_IRQFD_RESAMPLE": "level interrupts",
    "KVM_CAP_SIGNAL_MSI": "MSI",
    "KVM_CAP_READONLY_MEM": "a firmware ROM that the guest cannot write",
    "KVM_CAP_COALESCED_MMIO": "coalesced posted writes",
}
# UC_API_MAJOR and UC_API_MINOR of <unicorn/unicorn.h>, as `uc_version` returns them.
UNICORN_NEEDED = 0x0201
# From <linux/membarrier.h>, and the system call's numbers from the kernel's syscall tables.
MEMBARRIER_QUERY = 0
MEMBARRIER_GLOBAL_EXPEDITED = 1 << 1
MEMBARRIER_NUMBER = {"x86_64": 324, "aarch64": 283}


class State(StrEnum):
    """How a check ended, mildest first. A note says what is missing for a convenience only."""

    OK = "ok"
    NOTE = "note"
    DEGRADED = "degraded"
    UNUSABLE = "unusable"


class Finding(msgspec.Struct, frozen=True):
    """What a check found: its `name`, `state`, one line of `detail`, and the `hint` where there is one."""

    name: str
    state: State
    detail: str
    hint: str = ""


def core() -> Finding:
    """The compiled core can be imported."""
    try:
        built = importlib.import_module("shardio._core")
    except ImportError as error:
        hint = "build it: `pip install .` with gcc, libc6-dev and python3-dev installed"
        return Finding("core", State.UNUSABLE, f"cannot be imported: {error}", hint)
    return Finding("core", State.OK, str(built.__file__))


def kvm() -> Finding:
    """/dev/kvm can be opened, speaks the stable API and has what the data path uses (KVM_CHECK_EXTENSION)."""
    try:
        from shardio.kvm import Kvm

        with Kvm() as opened:
            needs = [f"{cap} ({use})" for cap, use in KVM_NEEDED.items() if not opened.check_extension(cap)]
            detail = f"/dev/kvm opens, up to {opened.max_vcpus} vCPUs a machine"
    except ShardioError as error:
        return Finding("KVM", State.UNUSABLE, error.message, error.hint)
    except ImportError as error:
        return Finding("KVM", State.UNUSABLE, f"cannot be asked: {error}", "build the compiled core first")
    if needs:
        missing = f"missing: {', '.join(needs)}"
        return Finding("KVM", State.UNUSABLE, missing, "use a newer kernel on the host")
    return Finding("KVM", State.OK, detail)


def software_cpu() -> Finding:
    """Unicorn is installed and its library, of a version that is known to work, can be loaded."""
    name = "software CPU"
    try:
        from shardio.soft.library import HINT, library

        found = library()
    except ShardioError as error:
        return Finding(name, State.UNUSABLE, error.message, error.hint)
    except ImportError as error:
        return Finding(name, State.UNUSABLE, f"cannot be asked: {error}", "build the compiled core first")
    try:
        version = ctypes.CDLL(str(found)).uc_version(None, None)
    except (OSError, AttributeError) as error:
        return Finding(name, State.UNUSABLE, f"cannot be loaded: {error}", HINT)
    shown = f"Unicorn {version >> 24 & 0xFF}.{version >> 16 & 0xFF}.{version >> 8 & 0xFF}"
    if version >> 16 != UNICORN_NEEDED:
        return Finding(name, State.UNUSABLE, f"{shown}, which is not of version 2.1", HINT)
    return Finding(name, State.OK, f"{shown}: 16- and 32-bit guests without /dev/kvm")


def vcpus() -> tuple[Finding, Finding]:
    """The two kinds of CPU. A machine needs either, so only a host without both is unusable; without KVM it
    is slower, and without the software CPU nothing is missing on a host that keeps its KVM.
    """
    hardware, software = kvm(), software_cpu()
    if software.state is not State.UNUSABLE and hardware.state is State.UNUSABLE:
        hardware = msgspec.structs.replace(hardware, state=State.DEGRADED)
    elif hardware.state is not State.UNUSABLE and software.state is State.UNUSABLE:
        software = msgspec.structs.replace(software, state=State.NOTE)
    return hardware, software


def kvm_capabilities() -> Finding:
    """KVM has what makes the data path faster, or serves some devices only (KVM_CHECK_EXTENSION)."""
    name = "KVM capabilities"
    try:
        from shardio.kvm import Kvm

        with Kvm() as opened:
            wants = [f"{cap} ({use})" for cap, use in KVM_WANTED.items() if not opened.check_extension(cap)]
    except (ShardioError, ImportError):
        return Finding(name, State.NOTE, "unknown while KVM cannot be opened", "see KVM above")
    if wants:
        return Finding(name, State.DEGRADED, f"missing: {', '.join(wants)}", "use a newer kernel on the host")
    return Finding(name, State.OK, f"all {len(KVM_NEEDED) + len(KVM_WANTED)} present")


def shared_memory() -> Finding:
    """Memory can be shared with other processes and sealed against any other size (memfd_create)."""
    name = "shared memory"
    try:
        fd = os.memfd_create("shardio-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        hint = "allow the system call memfd_create in the sandbox's seccomp filter"
        return Finding(name, State.UNUSABLE, f"memfd_create: {error.strerror}", hint)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError as error:
        hint = "allow fcntl(F_ADD_SEALS) in the sandbox's seccomp filter"
        return Finding(name, State.UNUSABLE, f"F_ADD_SEALS: {error.strerror}", hint)
    finally:
        os.close(fd)
    return Finding(name, State.OK, "memfd, sealed")


def cpus() -> Finding:
    """A vCPU and its shard each have a CPU to poll on."""
    allowed, online = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    detail = f"{allowed} of {online} usable"
    if allowed < 2:
        hint = "allow two CPUs or more (taskset, cpuset, VM size): one has to switch tasks for every access"
        return Finding("CPUs", State.DEGRADED, detail, hint)
    return Finding("CPUs", State.OK, detail)


def cpu_quota(path: str = "/sys/fs/cgroup/cpu.max") -> Finding:
    """No CPU quota throttles processes that poll (cgroup v2 `cpu.max`)."""
    try:
        quota, period = Path(path).read_text().split()
    except (OSError, ValueError):
        return Finding("CPU quota", State.OK, "none")
    if quota == "max":
        return Finding("CPU quota", State.OK, "none")
    share = int(quota) / int(period)
    if share < len(os.sched_getaffinity(0)):
        hint = "raise cpu.max: it stops whoever polls"
        return Finding("CPU quota", State.DEGRADED, f"{share:.1f} CPUs", hint)
    return Finding("CPU quota", State.OK, f"{share:.1f} CPUs")


def membarrier() -> Finding:
    """membarrier(GLOBAL_EXPEDITED), by which a sleeper spares its waker a fence per posted write."""
    number = MEMBARRIER_NUMBER.get(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    offered = libc.syscall(number, MEMBARRIER_QUERY, 0, 0) if number is not None else -1
    if offered < 0 or not offered & MEMBARRIER_GLOBAL_EXPEDITED:
        hint = "use a kernel with CONFIG_MEMBARRIER, and allow the call in the sandbox's seccomp filter"
        return Finding("membarrier", State.DEGRADED, "no global expedited barrier", hint)
    return Finding("membarrier", State.OK, "global expedited")


def file_descriptors() -> Finding:
    """RLIMIT_NOFILE leaves room for eventfds, pidfds and segments."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FDS_WANTED:
        can_raise = hard >= FDS_WANTED
        hint = f"ulimit -n {FDS_WANTED}" if can_raise else "raise nofile in /etc/security/limits.conf"
        return Finding("file descriptors", State.DEGRADED, f"{soft} a process", hint)
    return Finding("file descriptors", State.OK, f"{soft} a process")


def locked_memory() -> Finding:
    """RLIMIT_MEMLOCK, which pinning rings or guest RAM in memory would count against."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return Finding("locked memory", State.OK, "no limit")
    if soft < 8 * MIB:
        return Finding("locked memory", State.NOTE, f"{soft // 1024} KiB", "ulimit -l 65536, to lock pages")
    return Finding("locked memory", State.OK, f"{soft // MIB} MiB")


def kernel(release: str | None = None) -> Finding:
    """The kernel is Linux, new enough, on a machine that the data path is built for."""
    release = platform.release() if release is None else release
    digits = ["".join(filter(str.isdigit, part)) for part in release.split(".")[:2]]
    version = tuple(int(part or 0) for part in digits)
    detail = f"Linux {release} on {platform.machine()}"
    if version < KERNEL_NEEDED:
        hint = f"use Linux {'.'.join(map(str, KERNEL_NEEDED))} or newer (pidfd_open)"
        return Finding("kernel", State.UNUSABLE, detail, hint)
    return Finding("kernel", State.OK, detail)


def toolchain() -> Finding:
    """Compiler and assembler, for building the core and guests."""
    packages = {"gcc": "gcc", "as": "binutils", "ld": "binutils"}
    missing = [tool for tool in packages if shutil.which(tool) is None]
    if missing:
        hint = f"apt-get install {' '.join(sorted({packages[tool] for tool in missing}))}"
        return Finding("toolchain", State.NOTE, f"no {', '.join(missing)}: no guest can be built here", hint)
    return Finding("toolchain", State.OK, "gcc, as and ld")


def seabios() -> Finding:
    """Debian's SeaBIOS image, which `shardio run --firmware bios.bin` finds by name."""
    image = find_firmware("bios.bin", Path("/usr/share/seabios"))
    if not image.exists():
        return Finding("SeaBIOS", State.NOTE, "not installed", "apt-get install seabios")
    return Finding("SeaBIOS", State.OK, str(image))


CHECKS: tuple[Callable[[], Finding | tuple[Finding, ...]], ...] = (
    core,
    vcpus,
    kvm_capabilities,
    shared_memory,
    cpus,
    cpu_quota,
    membarrier,
    file_descriptors,
    locked_memory,
    kernel,
    toolchain,
    seabios,
)


def findings() -> list[Finding]:
    """What every check finds, in the order of the report."""
    found: list[Finding] = []
    for check in CHECKS:
        outcome = check()
        found += (outcome,) if isinstance(outcome, Finding) else outcome
    return found
