"""A device that a shard holds, with all that it was given."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from shardio.shard.blame import blame
from shardio.shard.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardio.shard.profiling import Profile
    from shardio.shard.recorder import Recorder


class Held:
    """A device: the object, its class and file (`kind`), what it was given, and its ranges by their index."""

    __slots__ = ("device", "host", "keep", "kind", "profile", "ranges", "recorder")

    def __init__(
        self,
        device: Any,
        kind: str,
        host: Host,
        keep: Callable[[], None] | None = None,
        recorder: Recorder | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.device = device
        self.profile = profile
        self.kind = kind
        self.host = host
        self.recorder = recorder
        self.keep = keep
        """Saves the device's state, where it has a memory for it and does not do that by itself."""
        self.ranges: list[int] = []

    def detach(self, name: str) -> None:
        """Call the device's `detach`, and close all that it was given. Raises `Blamed`, with all closed."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(close_all, self.host.passed_fds)
            if self.host.persistent is not None:
                last_first.callback(self.host.persistent.close)
            if self.recorder is not None:
                last_first.callback(self.recorder.close)
            last_first.callback(self.host.interrupts.close)
            if self.profile is not None:
                last_first.callback(self.profile.close)
            if (detach := getattr(self.device, "detach", None)) is not None:
                last_first.enter_context(blame(name, self.kind, "detach()"))
                last_first.callback(detach)
            # What the guest rang before is delivered while the device still has its host.
            for doorbells in self.host.doorbells:
                last_first.callback(doorbells.close)


def close_all(passed: dict[int, int]) -> None:
    """Close the descriptors that a device was given."""
    for fd in passed.values():
        os.close(fd)
