"""`MetricsServer`: gives a machine's metrics to whoever may ask, over HTTP, at a Unix socket or a port.

A scrape reads counters in memory that the VMM maps, in a thread of its own: it waits for nobody but a turn of
the machine, for a bounded time, and vCPUs, shards and the supervisor wait for nobody here (`Exchange`).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from shardio.dispatcher import metrics
from shardio.dispatcher.life import Life
from shardio.dispatcher.statistics import MachineStatistics
from shardio.errors import MachineError, ShardioError
from shardio.exchange import MOST_CLIENTS, Exchange

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

LONGEST_REQUEST = 8192
TURN_S = 1.0
"""How long a scrape waits for a turn of the machine."""
FRESH_S = 0.1
"""For so long a reply is given again: the next scrape costs nothing."""
UNIX = "unix:"

log = logging.getLogger("shardio.metrics")


class MetricsServer(Exchange):
    """Serves metrics of `statistics` at `address`, "unix:PATH" or "HOST:PORT", until `close`.

    The socket at PATH is its user's alone (mode 0600), and goes with `close`. Port 0 is any that is free:
    `address` says which. Raises `MachineError` for an address that cannot be or is taken, `HostError` without
    prometheus_client.
    """

    def __init__(
        self, statistics: Callable[[], MachineStatistics], life: Life, address: str, version: str
    ) -> None:
        metrics.check()
        self._statistics, self._life, self._version = statistics, life, version
        self._kept: tuple[float, str, bytes] | None = None
        listener, self.address = listening(address)
        self._path = listener.getsockname() if self.address.startswith(UNIX) else ""
        try:
            super().__init__(listener, "shardio-metrics", LONGEST_REQUEST)
        except BaseException:
            self._remove_path()
            raise

    def close(self) -> None:
        """See `Exchange.close`; the socket's path is gone afterwards."""
        super().close()
        if os.getpid() == self._pid:
            self._remove_path()

    def _remove_path(self) -> None:
        path, self._path = self._path, ""
        if path:
            with contextlib.suppress(OSError):  # somebody has removed it
                os.unlink(path)

    def request(self, received: bytearray) -> bytes | None:
        """See `Exchange.request`: what stands before the empty line."""
        for end in (b"\r\n\r\n", b"\n\n"):
            if end in received:
                return bytes(received).partition(end)[0]
        if len(received) > LONGEST_REQUEST:
            raise MachineError("a request that is too long", f"send {LONGEST_REQUEST} bytes at most")
        return None

    def reply(self, request: bytes) -> bytes:
        """See `Exchange.reply`."""
        lines = request.decode("latin-1").splitlines() or [""]
        method, _, rest = lines[0].partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return _answer(HTTPStatus.METHOD_NOT_ALLOWED, "use GET\n", more=("Allow: GET, HEAD",))
        if path not in ("/", "/metrics"):
            return _answer(HTTPStatus.NOT_FOUND, "the metrics are at /metrics\n")
        accept = ", ".join(
            line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("accept:")
        )
        try:
            whole = self._metrics(accept)
        except ShardioError as error:
            return _answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        except Exception:
            log.exception("the metrics could not be told")
            return _answer(HTTPStatus.INTERNAL_SERVER_ERROR, "see the machine's log\n")
        return whole if method == "GET" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def refusal(self, error: ShardioError) -> bytes:
        """See `Exchange.refusal`."""
        return _answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"{error}\n")

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client calls. Raises `MachineError` where the machine is busy."""
        with self._life.turn_within(TURN_S):
            found, state = self._statistics(), self._life.state
        return metrics.families(state.name.lower(), self._version, found)

    def _metrics(self, accept: str) -> bytes:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        kept, now = self._kept, time.monotonic()
        if kept is not None and kept[1] == accept and now - kept[0] < FRESH_S:
            return kept[2]
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        encode, kind = choose_encoder(accept)
        whole = _answer(HTTPStatus.OK, encode(registry), kind)
        self._kept = (now, accept, whole)
        return whole


def listening(address: str) -> tuple[socket.socket, str]:
    """A socket that listens at `address`, and that address with its port. Raises `MachineError`."""
    try:
        if address.startswith(UNIX):
            return _at_path(address.removeprefix(UNIX)), address
        return _at_port(address)
    except OSError as error:
        hints = {
            errno.EADDRINUSE: "another program has that port: choose another one, or 0 for any",
            errno.EACCES: "choose a port from 1024 on, or a folder that is yours",
            errno.EADDRNOTAVAIL: "use an address of this host, 127.0.0.1 say",
            errno.ENOENT: "make the folder first",
        }
        hint = hints.get(error.errno or 0, "use unix:PATH, or 127.0.0.1:PORT")
        raise MachineError(f"metrics at {address}: {error.strerror or error}", hint) from None


def _at_path(path: str) -> socket.socket:
    path = os.path.abspath(path) if path else ""
    if not path:
        raise MachineError("metrics at unix:, which is no path", "use unix:/tmp/machine.metrics, say")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _taken(path) from None
            raise
        os.chmod(path, 0o600)  # nobody can connect before it listens
        listener.listen(MOST_CLIENTS)
    except BaseException:
        listener.close()
        raise
    return listener


def _taken(path: str) -> MachineError:
    """What is there instead."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return MachineError(f"metrics at {path}: there is a file that is no socket", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            what = f"metrics at {path}: a machine that is gone has left its socket"
            return MachineError(what, f"rm {path}")
        except OSError:
            pass
    return MachineError(f"metrics at {path}: another program listens there", "choose another path")


def _at_port(address: str) -> tuple[socket.socket, str]:
    host, colon, port = address.rpartition(":")
    try:
        given = ipaddress.ip_address(host.strip("[]"))
        number = int(port)
        if not colon or not 0 <= number <= 0xFFFF or not port.isascii():
            raise ValueError(address)
    except ValueError:
        hint = "use unix:PATH, or an IP address and port: 127.0.0.1:9100, [::1]:9100"
        raise MachineError(f"metrics at {address!r}, which is no address", hint) from None
    family = socket.AF_INET if given.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(given), number))
        listener.listen(MOST_CLIENTS)
        number = listener.getsockname()[1]
    except BaseException:
        listener.close()
        raise
    return listener, f"{given}:{number}" if given.version == 4 else f"[{given}]:{number}"


def _answer(
    status: HTTPStatus, body: str | bytes, kind: str = "text/plain; charset=utf-8", more: tuple[str, ...] = ()
) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Connection: close",
        *more,
    )
    return "\r\n".join((*head, "", "")).encode("latin-1") + data
