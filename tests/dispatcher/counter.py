"""A device that says which process it is in. Apart from the tests: each of many shards imports it."""

from __future__ import annotations

import os
import signal
import threading

from shardio import MutDeviceMmio


class Counter(MutDeviceMmio):
    """Counts what is added; `who` tells about its process."""

    def __init__(self) -> None:
        self.value = 0
        self.heard: list[int] = []

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value += value

    def who(self) -> dict[str, object]:
        signal.signal(signal.SIGUSR1, lambda number, _: self.heard.append(number))
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "thread": threading.get_native_id(),
            "threads": threading.active_count(),
            "heard": list(self.heard),
        }
