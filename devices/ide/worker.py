"""`Worker`: does what waits for the host's disk in a thread, one thing at a time, and goes on in the loop.

Without a loop, in a unit test say, everything is done at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from shardio.rate import guest_log

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger("shardio.devices.ide")

Work = Callable[[], None]
Then = Callable[[BaseException | None], None]
"""Called with what the work raised, in the loop's thread."""


class _Job(NamedTuple):
    future: Future[BaseException | None]
    then: Then


class Worker:
    """Its owner sets `loop` when it has one."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._job: _Job | None = None

    def run(self, work: Work, then: Then) -> None:
        """Do `work`, then call `then`; nothing else may be under way."""
        loop = self.loop
        if loop is None:
            then(_attempt(work))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="ide")
        future = self._pool.submit(_attempt, work)
        job = self._job = _Job(future, then)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finish, job))

    def _finish(self, job: _Job) -> None:
        if self._job is job:
            self._job = None
            job.then(job.future.result())

    def settle(self) -> None:
        """Wait for what is under way, and do what comes after it."""
        if (job := self._job) is not None:
            job.future.result()
            self._finish(job)

    def forget(self) -> None:
        """Wait for what is under way; nothing comes after it."""
        job, self._job = self._job, None
        if job is not None:
            job.future.result()

    def close(self) -> None:
        """`settle`, and give the thread back."""
        self.settle()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self.loop = None


def _attempt(work: Work) -> BaseException | None:
    try:
        work()
    except OSError as error:
        return error
    except Exception as error:  # a command that is never answered would hang the guest
        if guest_log.admits():
            log.exception("an IDE drive fails a command")
        return error
    return None
