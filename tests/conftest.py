"""What every test is held to: it leaves no name in /dev/shm, no process and no file descriptor behind.

Also the `kvm` marker and fixture: such a test skips with the reason where /dev/kvm cannot be used, and fails
instead when SHARDIO_REQUIRE_KVM=1, so that a machine that is meant to have KVM cannot pass by skipping.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import importlib.util
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    from hypothesis import settings
except ImportError:  # the plain unit tests run without it
    pass
else:
    settings.register_profile("shardio", deadline=None, max_examples=100, print_blob=True)
    settings.load_profile("shardio")

# Inherited by every process that a test starts, however deep: it tells its descendants from everyone else's.
RUN_TOKEN = f"SHARDIO_TEST_RUN={uuid.uuid4().hex}"
os.environ.update([RUN_TOKEN.split("=")])
# Under nohup SIGHUP is ignored, and SIGINT and SIGQUIT in a script's background job,
# by every program that a test starts too; some tests send them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# A death is reported before the kernel has taken a process apart: what looks left behind has this long to go.
GRACE_S = float(os.environ.get("SHARDIO_TEST_GRACE_S", "2.0"))
# A test whose time is up is failed, and failed again at this interval while its cleaning up waits too.
OVERDUE_S = 20.0
# Standard error as it was before any test captures it.
STDERR = os.dup(2)
# Started by multiprocessing once per program, by design alive until it exits.
SHARED_HELPERS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")
# _IO(KVMIO, 0) of <linux/kvm.h>; any other device answers ENOTTY.
KVM_GET_API_VERSION = 0xAE00
# PF_KTHREAD of the kernel's sched.h, among the flags in /proc/PID/stat.
KERNEL_THREAD = 0x0020_0000
# Opened once and kept by the interpreter, by hypothesis or (fonts) by matplotlib: no growth.
SHARED_FILES = (".hypothesis", "/matplotlib/mpl-data/", "/dev/urandom", "/dev/null", "/proc/")


def shm_names() -> frozenset[str]:
    """Names in /dev/shm that are ours; other programs have theirs."""
    return frozenset(name for name in os.listdir("/dev/shm") if name.startswith("shardio"))


def open_fds() -> dict[int, str]:
    """The process's file descriptors and what each is."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return found


# Pids that were seen to be nobody's of ours: reading what each process of the host is takes milliseconds,
# before and after each test. One that is gone is forgotten, since its number may become another's.
FOREIGN: set[int] = set()


def processes() -> dict[int, str]:
    """Pids of our children and of everything started with our environment, with their command lines."""
    me = os.getpid()
    found: dict[int, str] = {}
    running = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {me}
    FOREIGN.intersection_update(running)
    for pid in running - FOREIGN:
        entry = Path("/proc", str(pid))
        try:
            _, ppid, _, _, _, _, flags, *_ = (entry / "stat").read_bytes().rpartition(b")")[2].split()
            ours = int(ppid) == me or (
                not int(flags) & KERNEL_THREAD and RUN_TOKEN.encode() in (entry / "environ").read_bytes()
            )
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if not ours:
            FOREIGN.add(pid)
        elif not any(helper in command for helper in SHARED_HELPERS):
            shown = command.replace(b"\0", b" ").decode(errors="replace").strip()
            found[pid] = shown or "(zombie)"
    return found


def overdue() -> str:
    """What each process of a test whose time is up is doing; all of them are then killed.

    A test waits for a process, so its cleaning up would wait too, and for ever: `with Popen(...)` does.
    """
    lines = []
    for pid, command in processes().items():
        with contextlib.suppress(OSError):
            folder = Path("/proc", str(pid))
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            where = [(task / "wchan").read_text() for task in (folder / "task").iterdir()]
            lines.append(f"  {pid} (parent {stat[1]}) {stat[0]} in {', '.join(where)}: {command}")
    for pid in processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return "\n".join(["its processes, killed now:", *lines])


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Fails the test when its time is up; when even that does not help, ends the run with every stack."""

    def fail(*_: object) -> None:
        pytest.fail(f"not done within {settings.timeout} s; {overdue()}")

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, OVERDUE_S)
    faulthandler.dump_traceback_later(settings.timeout + 5 * OVERDUE_S, exit=True, file=STDERR)
    return True


def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """The counterpart of `pytest_timeout_set_timer`."""
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return True


def new_fds(before: dict[int, str]) -> dict[int, str]:
    """Descriptors that are open now and were not in `before`, the interpreter's own apart."""
    return {
        fd: target
        for fd, target in open_fds().items()
        if before.get(fd) != target and not any(shared in target for shared in SHARED_FILES)
    }


def settle(left: Callable[[], object]) -> object:
    """What `left` still reports after the grace period, or the first empty report."""
    deadline = time.monotonic() + GRACE_S
    if left():
        gc.collect()  # an owner in a reference cycle is not a leak
    while (report := left()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return report


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails the test that leaves a name in /dev/shm, a process or a file descriptor."""
    names, pids, fds = shm_names(), processes(), open_fds()
    yield
    assert not settle(lambda: sorted(shm_names() - names)), "left in /dev/shm"
    assert not settle(lambda: dict(processes().items() - pids.items())), "left running"
    assert not settle(lambda: new_fds(fds)), "left open"


def kvm_obstacle() -> str | None:
    """Why /dev/kvm cannot be used here, or None. /dev/null over it opens too, and is no KVM."""
    try:
        fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, KVM_GET_API_VERSION)
        finally:
            os.close(fd)
    except OSError as error:
        return f"/dev/kvm: {error.strerror}: `shardio doctor` says what to do"
    return None


def require_kvm() -> None:
    """Skips the running test where KVM is missing, or fails it when SHARDIO_REQUIRE_KVM=1."""
    obstacle = kvm_obstacle()
    if obstacle is None:
        return
    if os.environ.get("SHARDIO_REQUIRE_KVM") == "1":
        pytest.fail(f"SHARDIO_REQUIRE_KVM=1, but {obstacle}")
    pytest.skip(obstacle)


def require_soft() -> None:
    """Skips the running test where the software CPU's library is missing."""
    if importlib.util.find_spec("unicorn") is None:
        pytest.skip("the software CPU needs the package unicorn: pip install 'shardio[soft]'")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test with the `machine` marker on each kind of CPU, unless it has the `kvm` marker too."""
    if metafunc.definition.get_closest_marker("machine") is not None:
        kvm_alone = metafunc.definition.get_closest_marker("kvm") is not None
        metafunc.parametrize("cpu", ["kvm"] if kvm_alone else ["kvm", "soft"], indirect=True)


@pytest.fixture(autouse=True)
def cpu(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The CPU of the machines of a test with the `machine` marker; None in other tests."""
    kind: str | None = getattr(request, "param", None)
    if kind is None:
        yield None
        return
    (require_kvm if kind == "kvm" else require_soft)()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARDIO_CPU", kind)
        yield kind


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Applies the `kvm` marker."""
    if item.get_closest_marker("kvm") is not None:
        require_kvm()


@pytest.fixture
def kvm() -> None:
    """For a test that needs KVM in one of its parameters only."""
    require_kvm()
