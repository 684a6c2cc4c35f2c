"""Devices that look at the walls from inside, and try to get through."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path

from shardio import MutDeviceMmio
from shardio.device import DeviceHost


class Enclosed(MutDeviceMmio):
    """Tells what its process may do."""

    mmio_size = 0x100

    def attach(self, host: DeviceHost) -> None:
        self.host = host

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing."""

    def status(self) -> dict[str, str]:
        """The fields of its /proc/self/status."""
        return _fields(Path("/proc/self/status").read_text())

    def status_of_executed(self) -> dict[str, str]:
        """Those of a program that it executes."""
        return _fields(subprocess.check_output(["cat", "/proc/self/status"], text=True))

    def limits(self) -> dict[str, list[int]]:
        """Its soft and hard limits on core files and descriptors."""
        return {name: list(resource.getrlimit(getattr(resource, name)))
                for name in ("RLIMIT_CORE", "RLIMIT_NOFILE")}  # fmt: skip

    def opened(self, path: str, flags: int) -> str:
        """Opens `path`: the error's name, empty without one."""
        try:
            os.close(os.open(path, flags))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return ""

    def leads_to(self) -> list[str]:
        """What its descriptors are."""
        paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return [os.readlink(path) for path in paths if os.path.exists(path)]

    def helper(self, *words: str) -> int:
        """The pid of a helper that runs on."""
        self.process = self.host.spawn(words)
        return self.process.pid

    def answer_of_helper(self, *words: str) -> list[object]:
        """The output of a helper and its status."""
        with self.host.spawn(words, stdout=subprocess.PIPE, text=True) as process:
            output, _ = process.communicate()
        return [output, process.returncode]


class NetAdmin(Enclosed):
    """The same, and it declares a capability."""

    capabilities = ("CAP_NET_ADMIN",)


def _fields(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
