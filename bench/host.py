"""Where a benchmark runs: which two CPUs, and what a reader must know of the machine to read its figures."""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import shardio
from shardio.bench.errors import BenchError
from shardio.bench.results import Host
from shardio.version import commit

BUSY = 0.5
"""A load above the CPUs' number times this disturbs."""


def two_cpus() -> tuple[int, int]:
    """The CPUs of the near and the far process: two cores where there are, not two threads of one.

    Raises `BenchError` where this process may use only one CPU.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise BenchError(
            "one CPU: no figure of this table can be measured on it",
            "allow the process two CPUs (taskset, cgroup cpuset)",
        )
    near = usable[0]
    siblings = _siblings(near)
    return near, next((cpu for cpu in usable[1:] if cpu not in siblings), usable[1])


def describe(pinned: tuple[int, int] | None, *, spread: bool = False) -> Host:
    """This machine, now. `spread`: every thread and process is pinned, over all CPUs."""
    usable, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    cautions = {
        "not pinned: the scheduler moves the processes, every figure means less": not (pinned or spread),
        f"CPUs {pinned} are threads of one core: floors are lower and handlers slower than on two cores":
            pinned is not None and pinned[1] in _siblings(pinned[0]),
        f"{usable} usable CPUs: figures of more than {usable} processes that compute are about sharing CPUs, "
        "not about scaling; this program itself disturbs": usable < 4,
        f"other programs run (load {load:.1f} on {usable} CPUs): times and tails mean little, ratios less":
            load > usable * BUSY,
    }  # fmt: skip
    return Host(
        machine=_cpu_model(),
        cpus=os.cpu_count() or 1,
        usable_cpus=usable,
        pinned=pinned,
        spread=spread,
        kernel=platform.release(),
        python=_python(),
        shardio=shardio.__version__,
        commit=commit(),
        when=time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        load=load,
        caution=[text for text, holds in cautions.items() if holds],
    )


def _siblings(cpu: int) -> set[int]:
    """The CPUs on this one's core, itself included; none where the kernel does not tell."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return set()
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _cpu_model() -> str:
    """The processor's name, and what tells its generation where names do not: family and model."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    name = facts.get("model name", platform.machine())
    if "cpu family" in facts:
        name += f", family {facts['cpu family']} model {facts.get('model', '')}"
    return name + (" (a virtual machine)" if "hypervisor" in facts.get("flags", "").split() else "")


def _python() -> str:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return f"{platform.python_implementation()} {platform.python_version()}{'' if gil else ', free-threaded'}"
