"""Starts a device's helper process so that nothing of it is left when its shard is gone.

Facts. A shard may be killed at any instruction, and so cannot end its helpers itself. A process can ask the
kernel to be killed when the thread that started it ends (PR_SET_PDEATHSIG), and keeps that through execve(2);
but only in the process itself, after the fork.

Consequences. What is started is a Python that asks for that and then executes the helper in its own place.
The VMM's death ends the shard in the same way, and so the helper. Processes that the helper starts are its
own business.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from shardio.errors import MachineError

_LAUNCHER = """import os, signal, sys
sys.path[:] = {path!r}
from shardio._core import lib
if lib.sio_die_with_parent({parent}) != 0:
    sys.exit(1)
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what it executes would too
os.execv({program!r}, sys.argv[1:])"""
_NOT_HERE = ("shell", "executable", "preexec_fn")


def spawn(argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen(argv, **options)` of a process that is killed when the calling thread ends: call it
    in the shard's loop, whose thread lives as long as the shard. Its caller waits for it, as for any `Popen`.

    Raises `MachineError` for a program that is not found, or an option that would put something between the
    shard and the helper (`shell`, `executable`, `preexec_fn`); `OSError` when no process can be started.
    """
    for name in _NOT_HERE:
        if options.get(name):
            raise MachineError(f"a helper is started without {name}", "name the program in argv[0]")
    words = [os.fspath(word) for word in argv]
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise MachineError(f"there is no program {words[:1]}", "install it, or give its whole path")
    launcher = _LAUNCHER.format(path=sys.path, parent=os.getpid(), program=os.path.abspath(program))
    return subprocess.Popen([sys.executable, "-c", launcher, *words], **options)
