"""`sys.breakpointhook` of a shard. pdb is loaded by the first `breakpoint()`: no shard's start waits for it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any


def breakpoint_hook(ask: Callable[[str], int | None], give_back: Callable[[], None]) -> Callable[..., Any]:
    """The hook, for breakpoints in this thread. `ask`, `give_back`: see `shardio.shard.debugger.Terminal`."""
    debugger: Any = None
    thread = threading.get_ident()

    def hook(*arguments: Any, **options: Any) -> Any:
        nonlocal debugger
        if debugger is None:
            from shardio.shard.debugger import Debugger, Terminal

            debugger = Debugger(Terminal(ask, give_back), thread)
        return debugger.stop_at(sys._getframe(1), arguments, options)

    return hook
