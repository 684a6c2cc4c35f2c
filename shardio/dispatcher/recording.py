"""`RecordingFile`: the file that the shards of a dispatcher record their devices into."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence

from shardio.errors import HostError, MachineError
from shardio.recording.format import End, append, create
from shardio.spelling import listed, nearest

log = logging.getLogger("shardio.recording")


class RecordingFile:
    """A new file for `devices`, by name; none: for all. `fd`: what their shards append to.

    Raises `HostError` where the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], devices: Sequence[str]) -> None:
        self.path = os.fspath(path)
        self._devices = frozenset(devices)
        try:
            self.fd = create(path)
        except OSError as error:
            raise HostError(
                f"no recording in {self.path}: {error.strerror}", "name a file that can be written"
            ) from None

    def check(self, names: Iterable[str]) -> None:
        """Raises `MachineError` where what is to be recorded is none of the devices of these names."""
        known = list(names)
        for name in sorted(self._devices.difference(known)):
            hint = nearest(name, set(known)) or listed(known)
            raise MachineError(f"there is no device {name!r} to record", hint)

    def wants(self, device: str) -> bool:
        """Whether a device is to be recorded."""
        return not self._devices or device in self._devices

    def finish(self) -> None:
        """The shards have ended, and written what they had. Idempotent."""
        if self.fd < 0:
            return
        try:
            append(self.fd, End())
        except OSError as error:
            log.error("the recording %s is not complete: %s", self.path, error.strerror)
        os.close(self.fd)
        self.fd = -1
