"""The device's owner is a subinterpreter with a GIL of its own, in a thread of its own. Objects cannot be
shared, so the vCPU asks it through words of shared memory, both polling: there is nothing quicker between the
two.
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
import threading
from pathlib import Path

REST, STOP = 2, 3


class Served:
    """The vCPU's side. Where the owner fails, the program ends."""

    def __init__(self, _folder: str, cpu: int) -> None:
        fd = os.memfd_create("shardio-bench")
        os.ftruncate(fd, mmap.PAGESIZE)
        words = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("B").cast("Q")
        waits, self._doorbell = os.pipe()
        here = str(Path(__file__).parent)
        script = f"import sys; sys.path.insert(0, {here!r}); import owner; owner.serve({fd}, {waits}, {cpu})"
        self._thread = threading.Thread(target=_own, args=(script,))
        self._thread.start()

        def access(op: int, offset: int, size: int, value: int) -> int:
            words[1], words[2], words[3], words[4] = op, offset, size, value
            words[0] += 1
            while words[0] & 1:
                pass
            return words[4]

        self.access = access

    def wake(self) -> None:
        """The owner polls from now on."""
        os.write(self._doorbell, b"!")

    def rest(self) -> None:
        """The owner sleeps until it is woken."""
        self.access(REST, 0, 0, 0)

    def close(self) -> None:
        """End the subinterpreter."""
        self.wake()
        self.access(STOP, 0, 0, 0)
        self._thread.join()


def _own(script: str) -> None:
    try:
        run_isolated(script)
    except BaseException as error:
        print(f"shardio bench: the subinterpreter failed: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def run_isolated(script: str) -> None:
    """Run a text in a subinterpreter with a GIL of its own (Python 3.12 or later). Raises where it fails."""
    if sys.version_info >= (3, 14):
        interpreter = importlib.import_module("concurrent.interpreters").create()
        interpreter.exec(script)
        interpreter.close()
        return
    new = sys.version_info >= (3, 13)
    module = importlib.import_module("_interpreters" if new else "_xxsubinterpreters")
    number = module.create("isolated") if new else module.create(isolated=True)
    failed = module.run_string(number, script)
    module.destroy(number)
    if failed is not None:
        raise RuntimeError(failed.formatted)
