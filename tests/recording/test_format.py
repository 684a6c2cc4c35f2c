"""Recordings as files: what is whole is read as it was written, what is not is refused by name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import RecordingError, ShardioError
from shardio.recording.format import (
    MAGIC,
    End,
    Event,
    Events,
    Frame,
    Made,
    Moved,
    Span,
    What,
    append,
    create,
    load,
)
from shardio.testing import replay


class Register:
    """Takes any access."""

    def __init__(self, **options: Any) -> None:
        self.value = 0x41

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


MADE = Made("uart", "mydevices:Uart", {"output": "null"}, [Span(0, 0x3F8, 8)])
READ = Event(What.READ, 0, 0x3F8, 1, 0x41)
WRITE = Event(What.WRITE, 1, 0xD000_0000, 8, 2**64 - 1, True)
DMA = Event(What.DMA, address=0x1000, width=3, data=b"abc")
WHOLE = [MADE, Events("uart", 0, [READ, WRITE]), Events("uart", 2, [DMA]), End()]


def written(path: Path, *frames: Frame) -> Path:
    """A file of these frames."""
    file = path / "run.rec"
    fd = create(file)
    for frame in frames:
        append(fd, frame)
    os.close(fd)
    return file


def refusal(file: Path) -> str:
    """Why it cannot be read."""
    with pytest.raises(RecordingError) as caught:
        load(file)
    assert caught.value.path == str(file)
    assert caught.value.hint
    return caught.value.what


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    [life] = load(written(tmp_path, *WHOLE)).lives("uart")

    assert life.made == MADE
    assert life.events == [READ, WRITE, DMA]
    assert life.accesses == 2


def test_devices_may_be_written_in_any_order_and_live_again(tmp_path: Path) -> None:
    other = Made("rtc", "mydevices:Rtc", {}, [], b"state", True)
    moved = Moved("uart", [Span(0, 0x2F8, 8)])
    file = written(
        tmp_path, other, MADE, Events("uart", 0, [READ]), Events("rtc", 0, [DMA]), moved,
        Events("uart", 1, [WRITE]), MADE, Events("uart", 0, [WRITE]), End(),
    )  # fmt: skip
    recording = load(file)

    assert [life.events for life in recording.lives("uart")] == [[READ, moved, WRITE], [WRITE]]
    assert [(life.made, life.events) for life in recording.lives("rtc")] == [(other, [DMA])]


def test_a_device_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"no device 'rtc'; name one of these: uart"):
        load(written(tmp_path, *WHOLE)).lives("rtc")


def test_a_recording_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path, *WHOLE).read_bytes()
    cut = tmp_path / "cut.rec"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        told = refusal(cut)
        assert length < len(MAGIC) or "cut off" in told


@pytest.mark.parametrize("contents", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(100), bytes(4096), MAGIC[:-2]])
def test_another_file_is_refused(tmp_path: Path, contents: bytes) -> None:
    file = tmp_path / "alien.rec"
    file.write_bytes(contents)

    assert refusal(file) == "is no recording"


def test_another_version_is_refused_by_its_number(tmp_path: Path) -> None:
    file = written(tmp_path, *WHOLE)
    file.write_bytes(MAGIC[:-1] + b"\x63" + file.read_bytes()[len(MAGIC) :])

    assert "version 99" in refusal(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.rec")


@pytest.mark.parametrize(("frames", "complaint"), [
    ([Events("uart", 0, [READ]), End()], "before it was made"),
    ([Moved("uart", []), End()], "before it was made"),
    ([MADE, Events("uart", 3, [READ]), End()], "lacks events 0 to 2 of 'uart'"),
    ([MADE, End(), MADE], "goes on behind its end"),
    ([MADE, Events("uart", 0, [Event(What.READ, 0, 0x3F8, 3)]), End()], "what no processor does"),
    ([MADE, Events("uart", 0, [Event(What.WRITE, 0, 0x3F8, 1, 256)]), End()], "what no processor does"),
    ([MADE, Events("uart", 0, [Event(What.DMA, 0, 0x3F8, 9, data=b"8 bytes.")]), End()], "what no processor"),
    ([MADE, Events("uart", 0, [Event(4)]), End()], "is damaged at byte"),
    ([Made("uart", "x:Uart", {}, [Span(0, 0x3F8, 0)]), End()], "is damaged at byte"),
    ([MADE, Events("uart", 0, [Event(What.READ, 0, -1, 1)]), End()], "is damaged at byte"),
])  # fmt: skip
def test_frames_that_make_no_sense_are_refused(tmp_path: Path, frames: list[Frame], complaint: str) -> None:
    assert complaint in refusal(written(tmp_path, *frames))


@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_damaged_recording_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    file = written(tmp_path_factory.mktemp("damaged"), *WHOLE)
    data = bytearray(file.read_bytes())
    data[at % len(data)] = value
    file.write_bytes(data)

    with contextlib.suppress(ShardioError):  # nothing else is raised
        for name in load(file).devices:
            replay(file, Register, name=name)
