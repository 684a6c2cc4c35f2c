"""`shardio ls`, `pause`, `resume`, `stop` on machines that run: of `shardio run`, and of a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shardio import Machine
from shardio.control import client
from shardio.errors import MachineError
from tests.e2e.support import PATIENCE_S, add_exit_port, command, machine, read_until, until
from tests.guests.build import program

pytestmark = [pytest.mark.machine, pytest.mark.timeout(180)]

# Other test runs of this host have machines too.
OWN, LAMP, BUSY = (f"{name}-{os.getpid()}" for name in ("own", "lamp", "busy"))
LOOP = """
    .code16
    mov $0x3f8, %dx
    mov $'!', %al
    out %al, %dx
next:
    in $0x80, %al
    jmp next
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A guest that says "!" and then reads a port for ever."""
    file = tmp_path / f"busy {os.getpid()}.bin"
    file.write_bytes(program(LOOP))
    return file


def shardio(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "shardio", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def listed(pid: int) -> list[dict[str, Any]]:
    return [row for row in json.loads(shardio("ls", "--json").stdout) if row["pid"] == pid]


def busy(image: Path, *words: str) -> Any:
    return command("run", "--quiet", "--image", image, *words)


def test_a_machine_of_the_command_is_listed_paused_resumed_and_stopped(image: Path) -> None:
    with busy(image, "--name", LAMP, "--vcpus", "2", "--shards", "1") as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"!")
        (running,) = listed(process.pid)
        paused = shardio("pause", process.pid)
        (standing,) = listed(process.pid)
        resumed = shardio("resume", process.pid)
        (again,) = listed(process.pid)
        stopped = shardio("stop", LAMP)
        left = listed(process.pid)
        said = process.communicate(timeout=PATIENCE_S)[1]

    assert (running["name"], running["vcpus"], running["devices"] >= 2) == (LAMP, 2, True)
    assert [row["state"] for row in (running, standing, again)] == ["running", "paused", "running"]
    assert [done.returncode for done in (paused, resumed, stopped)] == [0, 0, 0]
    assert (left, process.returncode, said) == ([], 0, b"")


def test_it_is_called_after_its_file(image: Path) -> None:
    with busy(image) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"!")
        table = shardio("ls").stdout
        stopped = shardio("stop", BUSY)

    assert f"{process.pid}" in table
    assert BUSY in table
    assert stopped.returncode == 0


def test_a_paused_guest_makes_no_access_and_goes_on() -> None:
    with _program() as vm:
        entry = client.find(OWN)
        vm.start()
        until(lambda: _reads(vm) > 0, "the guest's first read")
        client.ask(entry, "pause")
        state, before = client.status(entry).state, _reads(vm)
        after = _reads(vm)
        client.ask(entry, "resume")
        until(lambda: _reads(vm) > after, "a read after the pause")

        assert (state, before) == ("paused", after)
        assert client.status(entry).state == "running"


def test_a_stop_ends_the_wait_of_a_program() -> None:
    with _program() as vm:
        vm.start()
        client.stop(client.find(OWN))

        ended = vm.wait(PATIENCE_S)
        found = client.status(client.find(OWN))

    assert ended is not None
    assert (ended.reason, found.state, found.ended) == ("stopped", "stopped", ended)


def test_a_machine_that_does_not_run_yet_says_so() -> None:
    with _program():
        entry = client.find(OWN)

        with pytest.raises(MachineError, match=rf"{OWN} .*does not run; start\(\) it first"):
            client.ask(entry, "pause")
        assert client.status(entry).state == "new"


def test_a_closed_machine_is_not_listed() -> None:
    with _program():
        pass

    assert [entry for entry in client.machines() if entry.pid == os.getpid()] == []


ANSWERING = """
from shardio import MutDevicePio

class Answering(MutDevicePio):
    pio_size = 1

    def read(self, offset, size):
        return {answer}
"""
# Says "2" when it reads 0x22 at port 0x90, and goes on.
EDITED = """
    .code16
    mov $0x3f8, %dx
    mov $'!', %al
    out %al, %dx
next:
    in $0x90, %al
    cmp $0x22, %al
    jne next
    mov $'2', %al
    out %al, %dx
stay:
    in $0x90, %al
    jmp stay
"""


def test_a_device_is_reloaded_while_its_guest_runs(tmp_path: Path, cpu: str) -> None:
    image, device, machine_file = tmp_path / "edited.bin", tmp_path / "answering.py", tmp_path / "edited.toml"
    image.write_bytes(program(EDITED))
    device.write_text(ANSWERING.format(answer="0x11"))
    machine_file.write_text(
        f'[machine]\nimage = "{image}"\nmemory = "1M"\ncpu = "{cpu}"\n'
        '[[device]]\ntype = "shardio.devices:Uart16550"\npio = 0x3f8\nname = "com1"\n'
        '[[device]]\ntype = "answering:Answering"\npio = 0x90\nname = "answering"\n'
    )
    with command("run", "--quiet", machine_file, "--name", OWN) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"!")
        device.write_text(ANSWERING.format(answer="0x22 if"))
        broken = shardio("reload", "answering", "--machine", OWN)
        device.write_text(ANSWERING.format(answer="0x22"))
        mended = shardio("reload", "answering", "--machine", OWN)
        read_until(process.stdout.fileno(), b"2")
        unknown = shardio("reload", "no-such-device", "--machine", process.pid)
        stopped = shardio("stop", OWN)
        process.wait(PATIENCE_S)

    assert (broken.returncode, "SyntaxError" in broken.stderr, broken.stderr.count("\n")) == (2, True, 1)
    assert (mended.returncode, mended.stderr) == (0, "")
    assert (unknown.returncode, "no-such-device" in unknown.stderr) == (2, True)
    assert stopped.returncode == 0


def test_nothing_to_tell_is_one_line() -> None:
    done = shardio("stop", "no-such-machine")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("shardio: error: no machine no-such-machine runs here (")
    assert done.stderr.count("\n") == 1


def _reads(vm: Machine) -> int:
    return vm.statistics().vcpus[0].unclaimed_reads


def _program() -> Machine:
    vm = machine(vcpus=1, shards=1)
    vm.load(program(LOOP))
    add_exit_port(vm)
    vm.control(OWN)
    return vm
