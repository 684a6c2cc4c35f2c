"""A vCPU loop in C (vcpu_loop.c) against Python devices in a shard: built with the library's own header and
sources, and given a port by its descriptors.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import shardio
from shardio import Dispatcher, MutDeviceMmio

HERE = Path(__file__).resolve().parent


class Counter(MutDeviceMmio):
    """Adds up what is written."""

    def __init__(self):
        self.value = 0

    def read(self, offset, size):
        return self.value

    def write(self, offset, size, value):
        self.value += value


class Log(Counter):
    """Counts what is written."""

    def write(self, offset, size, value):
        self.value += 1


def build(folder: Path) -> Path:
    """The program."""
    include = Path(shardio.get_include())
    program = folder / "vcpu_loop"
    sources = [HERE / "vcpu_loop.c", include / "shardio.c"]
    subprocess.run([os.environ.get("CC", "cc"), "-O2", f"-I{include}", *sources, "-o", program], check=True)
    return program


def main() -> None:
    """Build it, and run it as the only vCPU of a dispatcher."""
    with tempfile.TemporaryDirectory() as folder, Dispatcher(vcpus=1, shards=1) as dispatcher:
        program = build(Path(folder))
        dispatcher.add(Counter, mmio=0xD000_0000, size=0x1000)
        dispatcher.add(Log, mmio=0xD000_1000, size=0x1000, posted=True)
        port = dispatcher.port(0)
        done = subprocess.run([program, port.text, "5000"], pass_fds=port.descriptors)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
