"""How a shard's process ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn


def leave() -> NoReturn:
    """End the process as one of `multiprocessing` ends: threads joined, exit functions run, output written.
    To take the interpreter apart object by object takes longer than a start, and in a fork it copies each
    page that is shared.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, full, or none
            stream.flush()
    os._exit(os.EX_OK)
