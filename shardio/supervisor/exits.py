"""What becomes of an exit that no worker serves: it is repaired, or put to the user's hook, or ends the vCPU.

The worker stands still meanwhile (`VcpuState.ASKING`) and the other vCPUs go on. Repairs are made at once, in
the supervisor's thread; the hook is the user's code and may take its time, so it runs in a thread of its own,
for one exit at a time.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from shardio._core import lib
from shardio.errors import ExitHookFailed
from shardio.supervisor import events
from shardio.threads import start
from shardio.vcpu import Vcpu

Hook = Callable[[Vcpu, Any], str]
"""Gets the vCPU and its exit; "resume" lets the guest go on, "end" does not."""


class Debugger(Protocol):
    """Who may have vCPUs stand still: `shardio.gdb`. In the supervisor's thread."""

    def begins(self, vcpu: Vcpu) -> None:
        """A worker of this vCPU is about to be started."""

    def takes(self, vcpu: Vcpu) -> bool:
        """Whether the exit about which it asks is the debugger's, who answers it then."""

    def takes_fault(self, vcpu: Vcpu) -> bool:
        """Whether the debugger looks at it first: an exit that ends this vCPU."""


VERDICTS: Final = ("resume", "end")
CLOSE_S = 2.0
"""How long a hook may take to return when everything ends."""

log = logging.getLogger("shardio.supervisor")


class UnservedExits:
    """Those of one machine. `hook`: the user's, None without one; `failure`: how it failed, None before."""

    def __init__(self) -> None:
        self.hook: Hook | None = None
        self.debugger: Debugger | None = None
        """Looked to before all others, None without one."""
        self.failure: ExitHookFailed | None = None
        self.on_event: Callable[[events.Event], None] = lambda _: None
        """Called with what is to be told, in either thread."""
        self._lock = threading.Lock()
        self._in_hand: set[int] = set()
        self._last: dict[int, dict[str, int]] = {}
        self._repaired: set[str] = set()
        self._todo: queue.SimpleQueue[Vcpu | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def look(self, vcpu: Vcpu) -> None:
        """In the supervisor's thread: see to a vCPU that may be waiting."""
        with self._lock:
            if vcpu.index in self._in_hand or not vcpu.asked:
                return
        if self.debugger is not None and self.debugger.takes(vcpu):
            return
        if name := vcpu.repair():
            if name not in self._repaired:
                self._repaired.add(name)
                log.info("vCPU %d: KVM cannot emulate %s here: it is repaired, and counted", vcpu.index, name)
            vcpu.answer(lib.SIO_GO_ON)
        elif vcpu.inspected:
            vcpu.answer(lib.SIO_GO_ON)
        elif self.hook is None:
            if self.debugger is not None and self.debugger.takes_fault(vcpu):
                return
            vcpu.answer(lib.SIO_GIVE_UP)
        else:
            self._in_hand.add(vcpu.index)
            self._todo.put(vcpu)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shardio-exits", daemon=True)
                start(self._thread)

    def close(self) -> None:
        """End the thread; a hook that does not return within 2 s is left alone. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            self._todo.put(None)
            thread.join(CLOSE_S)

    def _run(self) -> None:
        while (vcpu := self._todo.get()) is not None:
            verdict = self._put_to_hook(vcpu)
            with self._lock:
                self._in_hand.discard(vcpu.index)
                vcpu.answer(verdict)

    def _put_to_hook(self, vcpu: Vcpu) -> int:
        exit_ = vcpu.exit
        assert self.hook is not None
        try:
            registers = vcpu.registers.all()
            verdict = self.hook(vcpu, exit_)
        except BaseException as error:
            self._fail(ExitHookFailed(vcpu.index, str(exit_), f"{type(error).__name__}: {error}"), error)
            return int(lib.SIO_GIVE_UP)
        if verdict not in VERDICTS:
            hint = 'return "resume" or "end"'
            self._fail(ExitHookFailed(vcpu.index, str(exit_), f"it returned {verdict!r}", hint), None)
            return int(lib.SIO_GIVE_UP)
        if verdict == "end":
            return int(lib.SIO_GIVE_UP)
        again = self._last.get(vcpu.index) == registers
        self._last[vcpu.index] = registers
        return int(lib.SIO_TRY_AGAIN if again else lib.SIO_GO_ON)

    def _fail(self, failure: ExitHookFailed, cause: BaseException | None) -> None:
        failure.__cause__ = cause
        if self.failure is None:
            self.failure = failure
        log.error("%s", failure, exc_info=cause)
        self.on_event(events.HookFailed(failure.vcpu, str(failure)))
