"""Where a debugger is waited for."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from shardio.errors import DebuggerError
from shardio.gdb.address import listen, parse, shown


@pytest.mark.parametrize("where", ["", "gdb", "unix:", "host:", ":x", ":65536", ":-1", "/tmp/gdb", ":1²"])
def test_what_is_no_address(where: str) -> None:
    with pytest.raises(DebuggerError):
        parse(where)


def test_a_port_alone_is_of_this_host_alone() -> None:
    with listen(":0") as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        assert shown(listener) == f"127.0.0.1:{port}"


def test_a_unix_socket_is_its_users_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with listen(f"unix:{tmp_path / 'gdb'}"):
            assert stat.S_IMODE(os.stat(tmp_path / "gdb").st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_name_that_a_dead_server_left_is_taken_and_a_live_ones_is_not(tmp_path: Path) -> None:
    where = f"unix:{tmp_path / 'gdb'}"
    with listen(where):
        pass
    with listen(where):
        with pytest.raises(DebuggerError, match="in use"):
            listen(where)


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "gdb").write_text("mine")
    with pytest.raises(DebuggerError, match="in use"):
        listen(f"unix:{tmp_path / 'gdb'}")
    assert (tmp_path / "gdb").read_text() == "mine"


def test_a_port_that_is_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DebuggerError, match="in use"):
            listen(f":{port}")


def test_a_host_that_cannot_be_is_an_error() -> None:
    with pytest.raises(DebuggerError, match="cannot listen"):
        listen("no host at all:1234")
