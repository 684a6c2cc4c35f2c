"""What is done aside: in order, at once where it can be, without its caller where it cannot, bounded."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator

import pytest

from shardio import aside
from shardio.aside import MOST, Aside, aside_logger, wait_for_nobody
from shardio.shard.log import AsideHandler

PATIENCE_S = 20.0


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """An action that waits until this is set."""
    event = threading.Event()
    yield event
    event.set()


def test_what_can_be_done_at_once_is_done_when_do_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "PATIENCE_S", PATIENCE_S)
    done: list[int] = []
    made = Aside("test")

    seen = [(made.do(lambda n=n: done.append(n)), list(done)) for n in range(3)]  # type: ignore[misc]

    assert seen == [(True, [0]), (True, [0, 1]), (True, [0, 1, 2])]


def test_nobody_waits_for_an_action_that_does_not_end(held: threading.Event) -> None:
    """Nor behind it; what it holds up is done in order once it has ended."""
    done: list[int] = []
    made = Aside("test")
    began = time.monotonic()
    made.do(lambda: held.wait(PATIENCE_S) and None)
    kept = [made.do(lambda n=n: done.append(n)) for n in range(MOST - 1)]  # type: ignore[misc]
    took = time.monotonic() - began
    before = list(done)
    held.set()

    assert made.drain(PATIENCE_S)
    assert (before, all(kept), done) == ([], True, list(range(MOST - 1)))
    assert took < PATIENCE_S / 4


def test_what_finds_no_room_is_lost_and_counted(held: threading.Event) -> None:
    made = Aside("test")
    taken = [made.do(lambda: held.wait(PATIENCE_S) and None) for _ in range(MOST + 3)]

    assert (taken.count(True), taken[-3:], made.lost) == (MOST, [False] * 3, 3)


def test_where_no_thread_can_be_started_it_is_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made = Aside("test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        refused = made.do(lambda: None)

    assert (refused, made.lost, made.do(lambda: None)) == (False, 1, True)


def test_a_fork_starts_anew(held: threading.Event) -> None:
    made = Aside("test")
    made.do(lambda: held.wait(PATIENCE_S) and None)
    child = os.fork()
    if not child:
        done: list[int] = []
        made.do(lambda: done.append(1))
        os._exit(0 if made.drain(PATIENCE_S) and done == [1] else 1)

    assert os.waitpid(child, 0)[1] == 0


def fill(fd: int) -> None:
    """Writes into a pipe until it has no room."""
    os.set_blocking(fd, False)
    with pytest.raises(BlockingIOError):
        while os.write(fd, b"x"):
            pass
    os.set_blocking(fd, True)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's ends: nobody reads what is in it."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("x", logging.ERROR, __file__, 1, "%s", (text,), None)


def test_a_log_that_nobody_reads_holds_nobody_up_and_says_what_was_lost(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = AsideHandler(writer)
    fill(writer)
    began = time.monotonic()
    for n in range(MOST + 5):
        handler.handle(record(f"line {n}"))
    took = time.monotonic() - began
    got = b""
    while f"line {MOST - 1}\n".encode() not in got:
        got += os.read(reader, 1 << 16)
    handler.flush()
    handler.handle(record("and on"))
    handler.flush()
    got += os.read(reader, 1 << 16)
    handler.close()

    lines = got.lstrip(b"x").decode().splitlines()
    told = [line for line in lines if "are lost" in line]
    assert [line for line in lines if line not in told] == [*(f"line {n}" for n in range(MOST)), "and on"]
    assert told == ["5 lines of this log are lost: nobody read them"]
    assert took < PATIENCE_S / 4


def test_a_descriptor_that_does_not_block_is_waited_for_too(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = AsideHandler(writer)
    fill(writer)
    os.set_blocking(writer, False)
    handler.handle(record("the line"))
    got = b""
    while b"the line\n" not in got:
        got += os.read(reader, 1 << 16)
    handler.close()


def test_a_thread_that_waits_for_nobody_is_not_held_up_by_a_handler(held: threading.Event) -> None:
    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            held.wait(PATIENCE_S)

    logger = aside_logger("shardio.test_aside")
    logger.propagate = False
    logger.addHandler(Stuck())

    def work() -> None:
        wait_for_nobody()
        logger.error("one")
        logger.error("two")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE_S / 4)
    assert not thread.is_alive()


def test_other_threads_call_their_handlers_themselves(caplog: pytest.LogCaptureFixture) -> None:
    aside_logger("shardio.test_direct").error("direct")

    assert caplog.messages == ["direct"]
