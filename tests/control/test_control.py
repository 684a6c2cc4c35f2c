"""shardio.control: a server and its clients, those that behave and those that do not."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from shardio import exchange
from shardio.control import client, messages, server
from shardio.control.client import Entry
from shardio.control.messages import HEADER, LONGEST_REQUEST, Refused, Request
from shardio.control.server import ControlServer
from shardio.dispatcher.life import Life, State
from shardio.dispatcher.statistics import MachineStatistics
from shardio.errors import MachineError
from shardio.vcpu.report import VcpuReport

NAME = f"lamp-{os.getpid()}"
OTHER = f"other-{os.getpid()}"
"""Other test runs of this host have machines too."""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and util-linux's setpriv"
)


class Recorder:
    """A machine that notes what it was told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self, timeout: float = 0) -> None:
        self.calls.append("pause")

    def resume(self, timeout: float = 0) -> None:
        raise MachineError("it does not run", "start it")

    def stop(self) -> None:
        self.calls.append("stop")
        raise ValueError("a fault of the machine's")

    def screen(self, timeout: float = 0) -> str:
        return "one\x1b[2J\ntwo"

    def examine(self, index: int) -> VcpuReport:
        return VcpuReport(index, "paused", "runnable", 16, {"rip": 0x7C00}, {}, b"\x90", "nop")

    def statistics(self) -> MachineStatistics:
        return MachineStatistics((), (), ())


@pytest.fixture
def life() -> Life:
    running = Life()
    running.state = State.RUNNING
    return running


@pytest.fixture
def machine() -> Recorder:
    return Recorder()


@pytest.fixture
def control(life: Life, machine: Recorder) -> Iterator[ControlServer]:
    with ControlServer(machine, life, NAME) as made:
        yield made


@pytest.fixture
def entry(control: ControlServer) -> Entry:
    return Entry(os.getpid(), NAME, messages.address(os.getpid(), NAME))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is dropped soon."""
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.05)


@contextlib.contextmanager
def connected(entry: Entry) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(entry.address)
        connection.settimeout(10)
        yield connection


def everything(connection: socket.socket) -> bytes:
    """What comes up to the end of the connection."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def refusal(data: bytes) -> Refused:
    reply = messages.unpacked_reply(data[HEADER.size :])
    assert isinstance(reply, Refused)
    return reply


def test_status_and_a_command(entry: Entry, machine: Recorder) -> None:
    found = client.status(entry)

    assert (found.name, found.pid, found.state) == (NAME, os.getpid(), "running")
    assert client.ask(entry, "pause") is None
    assert machine.calls == ["pause"]


def test_a_vcpu_is_examined(entry: Entry, machine: Recorder) -> None:
    assert client.examine(entry, 3) == machine.examine(3)


def test_a_screen_is_told_and_what_a_terminal_would_obey_is_not(entry: Entry) -> None:
    assert client.screen(entry) == "one?[2J\ntwo"


def test_a_screen_that_never_ends_is_cut(
    entry: Entry, machine: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "screen", lambda _: "x" * (server.LONGEST_SCREEN + 1))

    assert len(client.screen(entry)) == server.LONGEST_SCREEN


def test_what_the_machine_refuses_arrives(entry: Entry) -> None:
    with pytest.raises(MachineError, match=rf"machine {NAME} .* it does not run; start it"):
        client.ask(entry, "resume")


def test_a_fault_of_the_machine_is_told_and_the_server_goes_on(entry: Entry) -> None:
    with pytest.raises(MachineError, match="ValueError: a fault"):
        client.ask(entry, "stop")

    assert client.status(entry).state == "running"


def test_a_stop_of_ones_own_is_called(life: Life, machine: Recorder) -> None:
    asked = threading.Event()
    with ControlServer(machine, life, OTHER, asked.set):
        entry = client.find(OTHER)
        client.ask(entry, "stop")

    assert (asked.is_set(), machine.calls) == (True, [])


def test_stop_waits_until_it_has_stopped(life: Life, machine: Recorder) -> None:
    def stop() -> None:
        life.state = State.STOPPED

    with ControlServer(machine, life, OTHER, stop):
        client.stop(client.find(OTHER))

    assert life.state is State.STOPPED


def test_a_machine_that_does_not_stop_is_told_of(life: Life, machine: Recorder) -> None:
    with ControlServer(machine, life, OTHER, lambda: None):
        with pytest.raises(MachineError, match=r"has not stopped after 0\.1 s; end its process: kill"):
            client.stop(client.find(OTHER), 0.1)


def test_machines_are_listed_and_found_by_name_and_pid(entry: Entry) -> None:
    assert entry in client.machines()
    assert client.find(NAME) == client.find(str(os.getpid())) == entry


def test_a_name_that_nothing_has_is_told(entry: Entry) -> None:
    with pytest.raises(MachineError, match=f'no machine l{NAME} runs here; did you mean "{NAME}"'):
        client.find(f"l{NAME}")


def test_several_machines_of_one_pid_need_a_name(entry: Entry, life: Life, machine: Recorder) -> None:
    with ControlServer(machine, life, f"second-{os.getpid()}"):
        with pytest.raises(MachineError, match=rf"several machines.*{NAME} \(pid"):
            client.find(str(os.getpid()))


def test_a_name_is_given_once(control: ControlServer, life: Life, machine: Recorder) -> None:
    with pytest.raises(MachineError, match=f"has a machine called {NAME} already"):
        ControlServer(machine, life, NAME)


def test_closed_it_is_gone(control: ControlServer, entry: Entry) -> None:
    control.close()
    control.close()

    assert entry not in client.machines()
    with pytest.raises(MachineError, match="has gone"):
        client.status(entry)


def test_a_starting_machine_answers_without_its_turn(
    control: ControlServer, entry: Entry, life: Life
) -> None:
    life.state = State.STARTING
    with life.turn():
        assert client.status(entry).state == "starting"


def test_a_busy_machine_says_so(entry: Entry, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TURN_S", 0.01)
    with life.turn():
        with pytest.raises(MachineError, match="the machine is busy"):
            client.status(entry)


def test_close_does_not_wait_for_a_stop_that_closes(life: Life, machine: Recorder) -> None:
    """A client's stop may end the program's wait, and the program closes the machine at once."""
    made: list[ControlServer] = []
    control = ControlServer(machine, life, OTHER, lambda: made[0].close())
    made.append(control)

    client.ask(client.find(OTHER), "stop")

    control.close()
    assert [entry for entry in client.machines() if entry.name == OTHER] == []


# ---- clients that do not behave ----


def test_half_a_message_is_dropped(short: None, entry: Entry) -> None:
    with connected(entry) as connection:
        connection.sendall(messages.packed(Request("pause"))[:-1])
        assert everything(connection) == b""

    assert client.status(entry).state == "running"


def test_nothing_at_all_is_dropped(short: None, entry: Entry) -> None:
    with connected(entry) as connection:
        assert everything(connection) == b""


def test_a_huge_length_is_refused_at_once(entry: Entry) -> None:
    with connected(entry) as connection:
        connection.sendall(HEADER.pack(0xFFFF_FFFF))
        answer = everything(connection)

    assert refusal(answer) == Refused("a request of 4294967295 bytes", f"send {LONGEST_REQUEST} at most")


def test_garbage_is_refused(entry: Entry) -> None:
    with connected(entry) as connection:
        connection.sendall(HEADER.pack(3) + b"\xc1\xc1\xc1")
        assert "malformed" in refusal(everything(connection)).message


def test_a_message_in_pieces_is_one(entry: Entry, machine: Recorder) -> None:
    with connected(entry) as connection:
        for byte in messages.packed(Request("pause")):
            connection.sendall(bytes([byte]))
        assert messages.unpacked_reply(everything(connection)[HEADER.size :]) == messages.Done()


def test_a_client_that_never_reads_holds_up_nobody(
    short: None, entry: Entry, machine: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = MachineStatistics((), (), ())
    monkeypatch.setattr(machine, "statistics", lambda: large)
    monkeypatch.setattr(messages, "packed", _of_length(16 << 20))
    with connected(entry) as connection:
        connection.sendall(HEADER.pack(0) + b"")
        connection.recv(1)
        monkeypatch.undo()
        found = client.status(entry)
        rest = len(_until_reset(connection))

    assert found.state == "running"
    assert rest < 16 << 20


def test_more_clients_than_places_wait_their_turn(short: None, entry: Entry) -> None:
    with contextlib.ExitStack() as crowd:
        for _ in range(exchange.MOST_CLIENTS + 4):
            crowd.enter_context(connected(entry))

        assert client.status(entry).state == "running"


def test_without_a_descriptor_it_tries_again(
    entry: Entry, control: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says EMFILE and keeps the client in its queue: it is served when there is one again."""
    monkeypatch.setattr(exchange, "REST_S", 0.02)
    refusing = _Refusing(control._listener)
    monkeypatch.setattr(control, "_listener", refusing)

    assert client.status(entry).state == "running"
    assert refusing.refused == 1


@needs_root
def test_another_user_is_shut_out(entry: Entry) -> None:
    program = (
        "import socket, sys\n"
        "with socket.socket(socket.AF_UNIX) as s:\n"
        "    s.settimeout(10)\n"
        f"    s.connect({entry.address!r})\n"
        "    try:\n"
        f"        s.sendall({messages.packed(Request('pause'))!r})\n"
        "        sys.exit(len(s.recv(100)))\n"
        "    except (BrokenPipeError, ConnectionResetError):\n"
        "        sys.exit(0)\n"
    )
    other = ["setpriv", "--reuid=65534", "--clear-groups", "--", "/usr/bin/env", "python3", "-c", program]

    done = subprocess.run(other, cwd="/", capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert client.status(entry).state == "running"


@needs_root
def test_another_user_s_socket_is_not_believed() -> None:
    """A name says nothing about who listens. Root (uid 0) and the own user are believed."""
    address = "\0shardio/1/router"
    program = (
        "import socket, sys\n"
        "with socket.socket(socket.AF_UNIX) as s:\n"
        f"    s.bind({address!r}); s.listen(); print(flush=True); sys.stdin.read()\n"
    )
    other = ["setpriv", "--reuid=65534", "--clear-groups", "--", "/usr/bin/env", "python3", "-c", program]

    with subprocess.Popen(other, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as impostor:
        assert impostor.stdout is not None
        impostor.stdout.readline()
        found = client.machines()
        with pytest.raises(MachineError, match="another user's"):
            client.status(Entry(1, "router", address))
        impostor.communicate()

    assert [entry for entry in found if entry.address == address] == []


@pytest.mark.parametrize("address", ["\0shardio/x/name", "\0shardio/1/a b", "\0shardio/1", "\0shardio/1/a/b"])
def test_a_name_that_is_not_ours_is_passed_over(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(address)
        stranger.listen()

        assert [entry for entry in client.machines() if entry.address == address] == []


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (HEADER.pack(0xFFFF_FFFF), "answers with 4294967295 bytes"),
        (HEADER.pack(2) + b"\xc1\xc1", "makes no sense"),
        (b"\1", "has gone"),
    ],
)
def test_a_server_that_answers_nonsense_is_told_of(answer: bytes, part: str) -> None:
    address = messages.address(os.getpid(), "liar")
    with _listening(address, answer):
        with pytest.raises(MachineError, match=part):
            client.status(Entry(os.getpid(), "liar", address))


def test_a_server_that_says_nothing_is_given_up() -> None:
    address = messages.address(os.getpid(), "mute")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(address)
        mute.listen()

        with pytest.raises(MachineError, match=r"has not answered within 0\.05 s"):
            client.status(Entry(os.getpid(), "mute", address), 0.05)


def test_in_a_fork_closing_does_nothing(control: ControlServer, entry: Entry) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, from Python 3.12 on
        child = multiprocessing.get_context("fork").Process(target=control.close)
        child.start()
    child.join(20)

    assert child.exitcode == 0
    assert client.status(entry).state == "running"


class _Refusing:
    """A listener whose first accept finds no descriptor."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.refused = 0

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> object:
        if self.refused == 0:
            self.refused = 1
            raise OSError(24, "Too many open files")
        return self._listener.accept()


def _of_length(length: int) -> Callable[[object], bytes]:
    return lambda message: b"x" * length


def _until_reset(connection: socket.socket) -> bytes:
    try:
        return everything(connection)
    except ConnectionResetError:
        return b""


@contextlib.contextmanager
def _listening(address: str, answer: bytes) -> Iterator[None]:
    """A server that gives every client this answer."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(LONGEST_REQUEST)
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(10)
        listener.bind(address)
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield
        thread.join()
