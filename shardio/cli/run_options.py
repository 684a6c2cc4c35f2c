"""The options of `shardio run`, which `shardio record` has too."""

from __future__ import annotations

import argparse
import math

from shardio.cli.script import AddStep

LOG_LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("config", nargs="?", metavar="CONFIG.toml", help="the machine's configuration file")
    parser.add_argument("--image", metavar="FILE", help="load this flat binary; brings COM1 and exit port")
    parser.add_argument("--at", metavar="ADDRESS", help="where the image goes (default 0x1000)")
    parser.add_argument("--entry", metavar="ADDRESS", help="where vCPU 0 starts (default: at the image)")
    parser.add_argument("--mode", help="how vCPU 0 starts: real (default), protected or long")
    parser.add_argument("--firmware", metavar="FILE", help="boot this BIOS image; brings the devices of a PC")
    parser.add_argument(
        "--kernel", metavar="FILE",
        help="boot this kernel: Linux (vmlinux, bzImage), PVH, Multiboot or another ELF; "
        "brings the devices of a PC",
    )  # fmt: skip
    parser.add_argument("--initrd", metavar="FILE", help="the kernel's initrd, or its first module")
    parser.add_argument("--append", metavar="TEXT", help="the kernel's command line")
    parser.add_argument("--payload", metavar="FILE", help="boot this coreboot payload; brings them too")
    parser.add_argument(
        "--disk", action="append", dest="disks", metavar="FILE",
        help="a raw disk image: of an IDE disk, or for a kernel of a virtio disk on PCI (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--cdrom", metavar="FILE", help="a raw image of a disc, in an IDE drive")
    parser.add_argument(
        "--net", action="append", dest="nets", metavar="HOW",
        help="a virtio network card on PCI: tap:NAME, or pair:OWN,PEER, two socket paths of which another "
        "machine has the same the other way round (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--vcpus", type=int, metavar="N", help="how many vCPUs (default 1)")
    parser.add_argument("--memory", metavar="SIZE", help="guest RAM, such as 64M (the default)")
    parser.add_argument("--shards", type=int, metavar="N", help="how many device processes to spread over")
    parser.add_argument(
        "--device", action="append", default=[], metavar="TYPE,KEY=VALUE,...",
        help="add a device: its dotted path, then the keys of a [[device]] table (may be repeated)",
    )  # fmt: skip
    parser.add_argument("--no-platform", action="store_true", help="bring no devices but those named")
    parser.add_argument(
        "--cpu", metavar="KIND",
        help="what runs the vCPUs: kvm, soft or auto, which is KVM where it works (the default)",
    )  # fmt: skip
    parser.add_argument("--no-irqchip", action="store_true", help="no in-kernel interrupt controller")
    parser.add_argument("--no-pin", action="store_true", help="leave processes to the scheduler")
    parser.add_argument(
        "--console", metavar="WHERE", default="stdio",
        help="where the first serial device is: stdio (the default), pty (a new pseudo-terminal, whose path "
        "is told) or unix:PATH (a socket for one client at a time)",
    )  # fmt: skip
    parser.add_argument(
        "--expect", action=AddStep, dest="script", metavar="TEXT", default=[],
        help="wait until the guest prints TEXT, which may have \\n \\r \\t \\e \\x1b; the last step "
        "ends the machine. What did not come is a failure",
    )  # fmt: skip
    parser.add_argument(
        "--send", action=AddStep, dest="script", metavar="TEXT", default=[],
        help="then type TEXT on the console, instead of standard input (both may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS",
        help="stop the machine when it has run for so long; the status is then 124",
    )  # fmt: skip
    parser.add_argument(
        "--save-config", action="store_true",
        help="print the machine, its platform's devices included, as a configuration file, and run nothing",
    )  # fmt: skip
    parser.add_argument(
        "-v", "--verbose", action="store_const", dest="log_level", const="info",
        help="tell on standard error what happens, as it happens: --log-level info",
    )  # fmt: skip
    parser.add_argument(
        "--log-level", choices=LOG_LEVELS,
        help="write the log to standard error from this level on, with machine (pid), shard and device",
    )  # fmt: skip
    parser.add_argument(
        "--trace", metavar="WHAT",
        help="trace accesses, interrupts and what becomes of workers and shards: all, unclaimed (what no "
        "device claims), or devices by name, with commas between them",
    )  # fmt: skip
    parser.add_argument(
        "--trace-file", metavar="FILE",
        help="where the trace goes: lines of text (default: to standard error), or, if FILE ends in .json, a "
        "file that Perfetto (ui.perfetto.dev) opens",
    )  # fmt: skip
    parser.add_argument(
        "--name", metavar="NAME",
        help="what shardio ls, pause, resume and stop call it (default: after the file that it runs)",
    )  # fmt: skip
    parser.add_argument(
        "--metrics", metavar="ADDRESS",
        help="give Prometheus metrics at unix:PATH or 127.0.0.1:PORT (port 0: any, which a line tells)",
    )  # fmt: skip
    parser.add_argument(
        "--gdb", metavar="WHERE",
        help="let GDB reach the guest at unix:PATH, :PORT (of this host alone) or HOST:PORT",
    )  # fmt: skip
    parser.add_argument(
        "--gdb-wait", action="store_true", help="the guest's first instruction waits for the debugger"
    )
    parser.add_argument(
        "--profile", metavar="DEVICE", help="profile the handlers of this device, by its name, with cProfile"
    )
    parser.add_argument(
        "--profile-file", metavar="FILE", help="what is profiled, for pstats (default: DEVICE.pstats)"
    )
    parser.add_argument("--quiet", action="store_true", help="no table at the end")
    parser.add_argument("--debug", action="store_true", help="tell an error with its tracebacks")
    parser.add_argument(
        "--triple-fault-ok", action="store_true", help="a triple fault is how the guest resets: no failure"
    )


def seconds(text: str) -> float:
    """A time in seconds, above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value
