"""Standard input, output and error as the command needs them, however it was started."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import TextIO

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed() -> None:
    """Have each standard descriptor that is closed be /dev/null.

    Left closed, its number would be the next file's, guest RAM say: what a shard or the C library writes to
    "standard error" would go there. Raises OSError where no descriptor is to be had.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) < len(STREAMS):
        os.set_inheritable(fd, True)
    os.close(fd)
    for number, (name, mode) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def give_up(stream: TextIO) -> None:
    """Nobody takes what is written to `stream`: what it still holds, and all that comes, goes nowhere.
    Without this the interpreter would try again at its end, and fail.
    """
    with contextlib.suppress(OSError):  # a stream without a descriptor, a test's say
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def say(line: str) -> None:
    """One line on standard error, whatever `line` holds, where somebody takes it."""
    try:
        print(" ".join(line.split()), file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def say_lines(lines: Iterable[str]) -> None:
    """Several lines on standard error as they are, where somebody takes them."""
    try:
        print(*lines, sep="\n", file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def drain(stream: TextIO | None) -> None:
    """What `stream` still holds is written, or given up where that fails."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        give_up(stream)
