"""`Workers`: threads that do a device's jobs, and a loop that gets what came of them.

Facts. An executor's future has a lock, a condition and a list for each job, which is more work than a small
write into the page cache. Consequence: jobs and results go through two queues in C, and how many jobs run is
a number that only the loop's thread knows.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers(Generic[Job, Result]):
    """Up to `most` threads that call `run(job)`, which must not raise, and then, unless somebody is on the
    way already, `fetch()`: it has the loop call `results`. All methods are for the loop's thread.
    """

    def __init__(
        self, run: Callable[[Job], Result], fetch: Callable[[], None], *, most: int, name: str
    ) -> None:
        self._run, self._fetch, self._most, self._name = run, fetch, most, name
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._ended: SimpleQueue[Result] = SimpleQueue()
        self._results: list[Result] = []
        self._threads: list[Thread] = []
        self._running = 0
        self._fetching = False

    def submit(self, job: Job) -> None:
        """Have a thread do it."""
        self._running += 1
        if len(self._threads) < min(self._running, self._most):
            thread = Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def results(self) -> list[Result]:
        """What came of the jobs that have ended and were not asked for before."""
        self._fetching = False  # first: what ends from now on is fetched again
        try:
            while True:
                self._results.append(self._ended.get_nowait())
                self._running -= 1
        except Empty:
            results, self._results = self._results, []
            return results

    def wait(self) -> None:
        """Until no job runs."""
        for _ in range(self._running):
            self._results.append(self._ended.get())
        self._running = 0

    def keep(self, wanted: Callable[[Result], bool]) -> None:
        """Wait, and forget all results but these."""
        self.wait()
        self._results = [result for result in self._results if wanted(result)]

    def close(self) -> None:
        """Wait, and end the threads."""
        self.wait()
        for _ in self._threads:
            self._jobs.put(None)
        while self._threads:
            self._threads.pop().join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._ended.put(self._run(job))
            if not self._fetching:
                self._fetching = True
                self._fetch()
