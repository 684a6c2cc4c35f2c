"""`host.spawn`: a helper runs as started, and does not outlive its shard or the VMM, however they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shardio.errors import MachineError
from shardio.shard.helper import spawn
from tests.e2e.support import until
from tests.shard.enclosed import Enclosed
from tests.supervisor.support import cluster

VMM = """
import sys
from shardio import Dispatcher
from tests.shard.enclosed import Enclosed
with Dispatcher(vcpus=1, shards=1) as dispatcher:
    handle = dispatcher.add(Enclosed, mmio=0xD0000000)
    dispatcher.start()
    print(handle.call("helper", "sleep", "600"), flush=True)
    sys.stdin.read()
"""


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has, whoever has to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_helper_ends_with_its_shard(number: signal.Signals) -> None:
    with cluster() as c:
        c.add(Enclosed)
        helper, shard = c.call("Enclosed", "helper", "sleep", "600"), c.shards[0].pid
        assert not gone(helper)
        os.kill(shard, number)
        until(lambda: gone(helper), "the helper's end")


def test_a_helper_ends_when_its_shard_is_told_to_quit() -> None:
    with cluster() as c:
        c.add(Enclosed)
        helper = c.call("Enclosed", "helper", "sleep", "600")
    until(lambda: gone(helper), "the helper's end")


def test_a_helper_ends_with_a_killed_vmm() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", VMM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as vmm:
        assert vmm.stdout is not None
        helper = int(vmm.stdout.readline())
        assert not gone(helper)
        vmm.kill()
    until(lambda: gone(helper), "the helper's end")


def test_a_helper_runs_as_it_is_started() -> None:
    with cluster() as c:
        c.add(Enclosed)
        script = 'printf "%s|" "$0" "$@"; exit 7'
        answer = c.call("Enclosed", "answer_of_helper", "sh", "-c", script, "name", "a b", "")
        ignored = c.call("Enclosed", "answer_of_helper", "grep", "SigIgn", "/proc/self/status")

    assert answer == ["name|a b||", 7]
    # What this program was started with is ignored still; what Python ignores is not.
    python_ignores = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    mine = next(line for line in Path("/proc/self/status").read_text().splitlines() if "SigIgn" in line)
    assert int(ignored[0].split()[1], 16) == int(mine.split()[1], 16) & ~python_ignores


@pytest.mark.parametrize(
    ("words", "options", "part"),
    [
        (("no-such-program",), {}, "there is no program"),
        ((), {}, "there is no program"),
        (("sleep", "1"), {"shell": True}, "without shell"),
        (("sleep", "1"), {"executable": "/bin/sh"}, "without executable"),
    ],
)
def test_what_cannot_be_a_helper_is_refused(
    words: tuple[str, ...], options: dict[str, object], part: str
) -> None:
    with pytest.raises(MachineError, match=part):
        spawn(words, **options)
