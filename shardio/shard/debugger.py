"""`breakpoint()` in a device: pdb at the terminal of the machine's user, who lends it to one shard at a time.

Facts. A shard has no terminal: its standard input is a pipe with the guest's keys, or /dev/null. The VMM may
have one, in raw mode and read by a thread. A handler that stands at a prompt keeps its vCPU waiting, which
the VMM takes for hanging unless it knows. pdb goes on into the callers of what it traces, up to the event
loop.

Consequences. The shard asks the VMM for the terminal, waits for it inside of the handler, and gives it back
at `continue`, at `quit` and Ctrl-D (which go on too: a handler that is broken off would be a device that
fails), and when the handler returns. Tracing ends with the device's own frames.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pdb
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TextIO

log = logging.getLogger("shardio.shard")

REMEDY = "run it by shardio run on a terminal, or set PYTHONBREAKPOINT (docs/how-to/debugging.md)"
_INNER = ("shardio.", "asyncio.")


def is_devices(frame: FrameType) -> bool:
    """Whether a frame is a device's, and not the library's or the event loop's."""
    module = str(frame.f_globals.get("__name__", ""))
    return module.startswith("shardio.devices") or not f"{module}.".startswith(_INNER)


class Terminal:
    """The user's terminal, as far as it is lent. `ask(where)`: its descriptor, the caller's own, once it is
    lent; None where there is none. `give_back()`: it is not needed any more.
    """

    def __init__(self, ask: Callable[[str], int | None], give_back: Callable[[], None]) -> None:
        self._ask, self._give_back = ask, give_back
        self.streams: tuple[TextIO, TextIO] | None = None

    def take(self, where: str) -> bool:
        """Have it; False where it cannot be had."""
        if self.streams is None and (fd := self._ask(where)) is not None:
            reader = open(fd, encoding="utf-8", errors="replace")  # noqa: SIM115
            writer = open(os.dup(fd), "w", encoding="utf-8", errors="replace")  # noqa: SIM115
            self.streams = reader, writer
        return self.streams is not None

    def release(self) -> None:
        """Give it back. Nothing where it is not lent."""
        streams, self.streams = self.streams, None
        if streams is not None:
            for stream in streams:
                with contextlib.suppress(OSError):  # a terminal that has hung up
                    stream.close()
            self._give_back()


class DevicePdb(pdb.Pdb):
    """pdb in a handler, until it returns or goes on."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(nosigint=True, readrc=False)
        self.use_rawinput = False
        self._terminal = terminal
        self._goes_on = False

    def begin(self, frame: FrameType) -> None:
        """Trace `frame` and those of its callers that are the device's."""
        outermost = frame
        while outermost.f_back is not None and is_devices(outermost.f_back):
            outermost = outermost.f_back
        super().set_trace(frame)
        inner = outermost.f_back
        while inner is not None:
            inner.f_trace = None
            inner = inner.f_back
        self.botframe = outermost

    def interaction(self, frame: FrameType | None, *more: Any) -> None:
        """One prompt, at the user's terminal."""
        if frame is None or not self._terminal.take(where(frame)):
            self.set_continue()
            return
        assert self._terminal.streams is not None
        self.stdin, self.stdout = self._terminal.streams
        self._goes_on = False
        try:
            super().interaction(frame, *more)
        finally:
            if self._goes_on:
                self._terminal.release()

    def dispatch_return(self, frame: FrameType, arg: Any) -> Any:
        """A frame returns; with the outermost one tracing ends, unless a breakpoint was set."""
        traced = super().dispatch_return(frame, arg)
        if frame is self.botframe:
            self.set_continue()
            self._terminal.release()
        return traced

    def do_continue(self, arg: str) -> bool | None:
        """Go on, and give the terminal back."""
        self._goes_on = True
        return super().do_continue(arg)

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> bool | None:
        """Forget the breakpoints, and go on: a handler is not broken off."""
        self.clear_all_breaks()
        return self.do_continue(arg)

    do_q = do_exit = do_quit

    def do_EOF(self, arg: str) -> bool | None:
        """Ctrl-D: as `quit`."""
        self.message("")
        return self.do_quit(arg)

    def do_run(self, arg: str) -> None:
        """There is no program to start again."""
        self.error("a device cannot be run again from here")

    do_restart = do_run


def where(frame: FrameType) -> str:
    """A frame in words: function, file and line."""
    code = frame.f_code
    return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"


class Debugger:
    """What `breakpoint()` does in a shard whose event loop runs in `thread`."""

    def __init__(self, terminal: Terminal, thread: int) -> None:
        self._terminal, self._thread = terminal, thread
        self._pdb: DevicePdb | None = None
        self._told: set[str] = set()

    def stop_at(self, frame: FrameType, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """`breakpoint(*arguments, **options)` in this frame. PYTHONBREAKPOINT, and a program's terminal that
        is the shard's own standard input, work as in any program.
        """
        if os.environ.get("PYTHONBREAKPOINT"):
            return sys.__breakpointhook__(*arguments, **options)
        if threading.get_ident() != self._thread:
            self._refuse(frame, "it is in a thread of the device's own, not in a handler")
            return None
        if self._terminal.take(where(frame)):
            if self._pdb is None:
                self._pdb = DevicePdb(self._terminal)
            self._pdb.begin(frame)
            return None
        if sys.stdin is not None and sys.stdin.isatty():
            pdb.Pdb(nosigint=True).set_trace(frame)
            return None
        self._refuse(frame, "there is no terminal")
        return None

    def _refuse(self, frame: FrameType, why: str) -> None:
        place = where(frame)
        if place not in self._told:
            self._told.add(place)
            log.error("breakpoint() at %s is passed over: %s; %s", place, why, REMEDY)
