"""The log: each line says which machine, shard and device it is of, whoever logs and from where."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shardio.shard.log import DEVICE, Names
from tests.guests.build import program

ROOT = Path(__file__).resolve().parent.parent.parent
LINE = re.compile(r"^shardio\[(\d+)\] (\S+) (\S+): (\w+): (.*)$", re.MULTILINE)

GUEST = ".code16\n mov $5, %al\n out %al, $0x90\n xor %al, %al\n out %al, $0xf4\n hlt\n"
DEVICE_SOURCE = '''
import logging
from shardio import MutDevicePio

log = logging.getLogger("lamp")


class Inner:
    """Part of a device, which its shard does not know."""

    def tell(self, text):
        log.info("%s", text)


class Lamp(MutDevicePio):
    pio_size = 1

    def __init__(self):
        self.inner = Inner()
        log.info("made")

    def attach(self, host):
        host.loop.call_soon(self.inner.tell, "from the loop")
        self.host = host

    def read(self, offset, size):
        return 0

    def write(self, offset, size, value):
        self.inner.tell(f"switched to {value}")
        log.debug("not at this level")
'''


def record(names: Names) -> logging.LogRecord:
    """One record, as `names` has completed it."""
    made = logging.LogRecord("x", logging.INFO, __file__, 1, "text", (), None)
    assert names.filter(made)
    return made


class Known:
    """A device that logs."""

    def logs(self, names: Names) -> logging.LogRecord:
        return record(names)


def test_the_device_on_the_stack_is_named_before_the_one_that_asked() -> None:
    known = Known()
    names = Names(7, "one", lambda device: "lamp" if device is known else None)
    token = DEVICE.set("other")

    inside, outside = known.logs(names), record(names)
    DEVICE.reset(token)
    nobodys = record(names)

    assert [each.__dict__["device"] for each in (inside, outside, nobodys)] == ["lamp", "other", "-"]
    assert (inside.__dict__["machine"], inside.__dict__["shard"]) == (7, "one")


@pytest.mark.machine
def test_verbose_shows_the_log_with_machine_shard_and_device(tmp_path: Path) -> None:
    (tmp_path / "lamps.py").write_text(DEVICE_SOURCE)
    image = tmp_path / "guest.bin"
    image.write_bytes(program(GUEST))
    device = "lamps:Lamp,pio=0x90,name=hall,shard=lights"

    done = subprocess.run(
        [sys.executable, "-m", "shardio", "run", "--image", image, "--device", device, "-v", "--quiet"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip

    lines = [found for found in LINE.findall(done.stderr) if found[2] == "hall"]
    assert [(shard, level, text) for _, shard, _, level, text in lines] == [
        ("lights", "INFO", "made"),
        ("lights", "INFO", "from the loop"),
        ("lights", "INFO", "switched to 5"),
    ], done.stderr
    assert len({machine for machine, *_ in lines}) == 1
    assert "not at this level" not in done.stderr


@pytest.mark.machine
def test_an_unclaimed_access_right_before_the_end_is_logged_and_in_the_table(tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    accesses = "in $0xe0, %al\n outw %ax, $0xe2\n xor %al, %al\n out %al, $0xf4\n hlt\n"
    image.write_bytes(program(f".code16\n {accesses}"))

    done = subprocess.run(
        [sys.executable, "-m", "shardio", "run", "--image", image, "-v"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=50,
    )  # fmt: skip

    told = [text for *_, text in LINE.findall(done.stderr) if "unclaimed" in text]
    assert sum(int(count) for text in told for count in re.findall(r"(\d+) accesses", text)) == 2, done.stderr
    assert told[-1].endswith("the last: write of 2 bytes at pio 0xe2")
    assert re.search(r"unclaimed +vCPU 0 +2 +write of 2 bytes at pio 0xe2", done.stderr), done.stderr
