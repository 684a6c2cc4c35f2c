"""`Closing`: what has a `close` is a context manager too.

>>> class Door(Closing):
...     def close(self):
...         print("closed")
>>> with Door():
...     print("open")
open
closed
"""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """Closed at the end of a `with`."""

    def close(self) -> None:
        """Give back what it holds."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
