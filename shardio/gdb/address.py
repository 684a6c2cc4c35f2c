"""Where a debugger is waited for: `unix:PATH`, `:PORT` or `HOST:PORT`."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from shardio.errors import DebuggerError

_FORMS = "write unix:PATH, :PORT (of this host alone) or HOST:PORT"
LOOPBACK = "127.0.0.1"


def parse(where: str) -> str | tuple[str, int]:
    """A path, or host and port. Raises `DebuggerError` for what is neither.

    >>> parse("unix:/tmp/gdb"), parse(":1234"), parse("[::1]:1234")
    ('/tmp/gdb', ('127.0.0.1', 1234), ('::1', 1234))
    """
    if where.startswith("unix:"):
        path = where.removeprefix("unix:")
        if not path:
            raise DebuggerError("a Unix socket without a path", _FORMS)
        return path
    host, colon, port = where.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise DebuggerError(f"{where!r} is no address for a debugger", _FORMS)
    return host.strip("[]") or LOOPBACK, int(port)


def listen(where: str) -> socket.socket:
    """A socket that listens there, a Unix socket with mode 0600. Raises `DebuggerError`."""
    address = parse(where)
    try:
        return _unix(address) if isinstance(address, str) else _tcp(*address)
    except OSError as error:
        hints = {errno.EADDRINUSE: "use another address, or end what has it"}
        hint = hints.get(error.errno or 0, "use an address that this user may listen at")
        raise DebuggerError(f"cannot listen at {where}: {error.strerror or error}", hint) from None


def _unix(path: str) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), 0o600)  # what the name gets, however wide the umask is
        listener.bind(path)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """The name of a socket at which nobody listens any more."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)


def _tcp(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def shown(listener: socket.socket) -> str:
    """Where it listens, as a debugger's `target remote` has it."""
    name = listener.getsockname()
    if isinstance(name, str):
        return name
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"{host}:{name[1]}"
