"""`python peers/other FOLDER (threads | subinterpreter) OWNER_CPU`: requests and replies are structs on
standard input and output (`other_python`); an access is timed here, by the vCPU that makes it.
"""

from __future__ import annotations

import importlib
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

REQUEST = struct.Struct("<5Q")


def timed(access: Callable[..., int], request: tuple[int, ...], count: int) -> list[int]:
    """Nanoseconds of each of `count` accesses."""
    clock, times = time.perf_counter_ns, []
    for _ in range(count):
        begin = clock()
        access(*request)
        times.append(clock() - begin)
    return times


def main(folder: str, kind: str, cpu: str) -> None:
    """Serve requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the near process to act on
    sys.path.append(folder)
    served: Any = importlib.import_module(kind).Served(folder, int(cpu))
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(data := source.read(REQUEST.size)) == REQUEST.size:
        *request, count = REQUEST.unpack(data)
        served.wake()
        found = [served.access(*request)] if count == 1 else timed(served.access, tuple(request), count)
        served.rest()
        sink.write(struct.pack(f"<{count}Q", *found))
        sink.flush()
    served.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
