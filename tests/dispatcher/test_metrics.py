"""Prometheus metrics: what they say, read by prometheus_client's own parser; scrapers that misbehave."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import sys
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from shardio import Dispatcher, HostError, MachineError, MutDeviceMmio, exchange
from shardio.dispatcher import metrics_server
from shardio.dispatcher.life import Life, State
from shardio.dispatcher.metrics_server import MetricsServer
from shardio.dispatcher.statistics import MachineStatistics
from shardio.fabric.statistics import Histogram
from tests.cli.top.looks import device, shard, times, vcpu
from tests.e2e.support import until

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "reference" / "metrics.md"
STATISTICS = MachineStatistics(
    (vcpu({"IO": 5, "HLT": 2}, unclaimed_reads=3, waiting_ns=1_500_000_000),),
    (
        device(
            'disk "0"', reads=7, writes=9, posted=4, refused=1, interrupts=6, interrupts_dropped=2,
            waits=times(ns100=3, ns1000=4, ns9000000000=1), service=times(ns500=2),
        ),
    ),
    (shard("shard0", served=20, cpu_ns=2_500_000_000, spawns=3), shard("shard1", pid=0, quarantined=True)),
)  # fmt: skip
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def life() -> Life:
    running = Life()
    running.state = State.RUNNING
    return running


@pytest.fixture
def server(life: Life) -> Iterator[MetricsServer]:
    with MetricsServer(lambda: STATISTICS, life, "127.0.0.1:0", "1.2.3") as made:
        yield made


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is dropped soon."""
    monkeypatch.setattr(exchange, "PATIENCE_S", 0.05)


def get(server: MetricsServer, path: str = "/metrics", **headers: str) -> tuple[int, Any, str]:
    """Status, headers and text."""
    request = urllib.request.Request(f"http://{server.address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def ask(connection: socket.socket, request: bytes) -> bytes:
    connection.settimeout(10)
    connection.sendall(request)
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


@contextlib.contextmanager
def connected(server: MetricsServer) -> Iterator[socket.socket]:
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        yield connection


def samples(text: str) -> dict[str, float]:
    """By name and labels, these in order: `name{a="b"}`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(each.labels.items()))
            found[f"{each.name}{{{labels}}}"] = each.value
    return found


def test_what_a_scrape_says(server: MetricsServer) -> None:
    status, headers, text = get(server)

    found = samples(text)
    disk = 'device="disk "0"",'
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    assert found['shardio_info{version="1.2.3"}'] == 1
    assert found['shardio_machine_state{state="running"}'] == 1
    assert found['shardio_machine_state{state="stopped"}'] == 0
    assert found['shardio_vcpu_exits_total{reason="IO",vcpu="0"}'] == 5
    assert found['shardio_vcpu_unclaimed_accesses_total{direction="read",vcpu="0"}'] == 3
    assert found['shardio_vcpu_unclaimed_accesses_total{direction="write",vcpu="0"}'] == 0
    assert found['shardio_vcpu_waiting_seconds_total{vcpu="0"}'] == 1.5
    assert found['shardio_vcpu_state{state="running",vcpu="0"}'] == 1
    assert found[f'shardio_device_accesses_total{{{disk}direction="read",shard="shard0"}}'] == 7
    assert found[f'shardio_device_accesses_total{{{disk}direction="write",shard="shard0"}}'] == 9
    assert found[f'shardio_device_posted_writes_total{{{disk}shard="shard0"}}'] == 4
    assert found[f'shardio_device_interrupts_total{{{disk}shard="shard0"}}'] == 6
    assert found[f'shardio_device_interrupts_dropped_total{{{disk}shard="shard0"}}'] == 2
    assert found['shardio_shard_cpu_seconds_total{shard="shard0"}'] == 2.5
    assert found['shardio_shard_recoveries_total{shard="shard0"}'] == 2
    assert (found['shardio_shard_up{shard="shard0"}'], found['shardio_shard_up{shard="shard1"}']) == (1, 0)
    assert found['shardio_shard_quarantined{shard="shard1"}'] == 1


def test_histograms_are_cumulative_and_have_all_that_was_timed(server: MetricsServer) -> None:
    found = samples(get(server)[2])

    prefix = "shardio_device_wait_seconds_bucket"
    labels = {key: value for key, value in found.items() if key.startswith(prefix)}
    bounds = [float(re.search(r'le="([^"]+)"', key)[1]) for key in labels]  # type: ignore[index]
    by_bound = dict(zip(bounds, labels.values(), strict=True))
    values = [by_bound[bound] for bound in sorted(by_bound)]
    name = 'shardio_device_wait_seconds_{}{{device="disk "0"",shard="shard0"}}'
    assert values == sorted(values)
    assert (by_bound[6.4e-08], by_bound[1.28e-07], by_bound[1.024e-06]) == (0, 3, 7)
    assert (by_bound[4.294967296], by_bound[float("inf")]) == (7, 8)
    assert found[name.format("count")] == 8
    assert found[name.format("sum")] == pytest.approx(9.0000043)


def test_a_machine_that_has_done_nothing_has_metrics_too(life: Life) -> None:
    life.state = State.NEW
    with MetricsServer(lambda: MachineStatistics((), (), ()), life, "127.0.0.1:0", "1") as server:
        found = samples(get(server)[2])

    assert found['shardio_machine_state{state="new"}'] == 1


def test_a_device_without_a_sample_has_an_empty_histogram() -> None:
    from shardio.dispatcher.metrics import buckets

    assert {count for _, count in buckets(Histogram())} == {0}


def test_open_metrics_where_they_are_asked_for(server: MetricsServer) -> None:
    _, headers, text = get(server, Accept="application/openmetrics-text; version=1.0.0")

    names = {family.name for family in open_metrics(text)}
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert {"shardio_device_wait_seconds", "shardio_vcpu_exits"} <= names


def test_every_metric_is_in_the_documentation(server: MetricsServer) -> None:
    told = DOCS.read_text()

    families = list(text_string_to_metric_families(get(server)[2]))
    total = [f"{f.name}_total" if f.type == "counter" else f.name for f in families]
    assert len(total) > 30
    assert [name for name in total if f"`{name}`" not in told] == []
    assert set(re.findall(r"`(shardio_[a-z_]+)`", told)) - set(total) == set()


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/metrics?x=1", 200), ("/other", 404), ("/metrics/more", 404)]
)
def test_paths(server: MetricsServer, path: str, status: int) -> None:
    assert get(server, path)[0] == status


@pytest.mark.parametrize(
    ("request_", "first"),
    [
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET /metrics\n\n", b"HTTP/1.1 200 OK"),
        (b"\xff\xfe\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 9000, b"HTTP/1.1 431 Request Header Fields Too Large"),
    ],
)
def test_requests_of_every_kind_are_answered(server: MetricsServer, request_: bytes, first: bytes) -> None:
    with connected(server) as connection:
        assert ask(connection, request_).split(b"\r\n")[0] == first


def test_head_has_no_body(server: MetricsServer) -> None:
    with connected(server) as connection:
        answer = ask(connection, GET.replace(b"GET", b"HEAD"))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" not in answer


def test_a_busy_machine_is_unavailable(
    server: MetricsServer, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "TURN_S", 0.01)
    with life.turn():
        status, _, text = get(server)

    assert (status, text) == (503, "the machine is busy: it starts, pauses or stops; try again\n")


def test_a_fault_of_ours_is_told_and_the_server_goes_on(life: Life) -> None:
    found = iter([ZeroDivisionError, None])

    def statistics() -> MachineStatistics:
        if (error := next(found)) is not None:
            raise error
        return STATISTICS

    with MetricsServer(statistics, life, "127.0.0.1:0", "1") as server:
        assert [get(server)[0] for _ in range(2)] == [500, 200]


def test_scrapes_close_together_cost_one_look(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "FRESH_S", 60.0)
    looks = []
    with MetricsServer(lambda: looks.append(1) or STATISTICS, life, "127.0.0.1:0", "1") as server:
        first, second = get(server)[2], get(server)[2]

    assert (first, looks) == (second, [1])


def test_a_client_that_sends_half_a_request_is_dropped(short: None, server: MetricsServer) -> None:
    with connected(server) as connection:
        assert ask(connection, GET[:-2]) == b""

    assert get(server)[0] == 200


def test_clients_that_never_read_and_never_ask_hold_up_nobody(short: None, server: MetricsServer) -> None:
    with contextlib.ExitStack() as crowd:
        for n in range(exchange.MOST_CLIENTS + 4):
            connection = crowd.enter_context(connected(server))
            connection.sendall(GET if n % 2 else b"")

        assert get(server)[0] == 200


# ---- where it listens ----


def test_a_socket_of_a_path_is_its_users_alone_and_goes_with_the_server(tmp_path: Path, life: Life) -> None:
    path = tmp_path / "metrics"
    with MetricsServer(lambda: STATISTICS, life, f"unix:{path}", "1") as server:
        mode = stat.S_IMODE(path.stat().st_mode)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            answer = ask(connection, GET)

    assert (mode, server.address, answer[:15]) == (0o600, f"unix:{path}", b"HTTP/1.1 200 OK")
    assert not path.exists()


def test_a_path_that_a_dead_machine_has_left_is_told_with_the_remedy(tmp_path: Path, life: Life) -> None:
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    with pytest.raises(MachineError, match=rf"a machine that is gone has left its socket; rm {path}"):
        MetricsServer(lambda: STATISTICS, life, f"unix:{path}", "1")


def test_a_path_where_somebody_listens_is_refused_and_stays(tmp_path: Path, life: Life) -> None:
    address = f"unix:{tmp_path / 'metrics'}"
    with MetricsServer(lambda: STATISTICS, life, address, "1"):
        with pytest.raises(MachineError, match=r"another program listens there; choose another path"):
            MetricsServer(lambda: STATISTICS, life, address, "1")

        assert (tmp_path / "metrics").exists()


def test_a_path_that_is_a_file_is_refused_and_stays(tmp_path: Path, life: Life) -> None:
    (tmp_path / "notes").write_text("kept")

    with pytest.raises(MachineError, match="a file that is no socket"):
        MetricsServer(lambda: STATISTICS, life, f"unix:{tmp_path / 'notes'}", "1")
    assert (tmp_path / "notes").read_text() == "kept"


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("", "is no address; use unix:PATH"),
        ("9100", "is no address"),
        (":9100", "is no address"),
        ("localhost:9100", "is no address"),
        ("127.0.0.1:", "is no address"),
        ("127.0.0.1:99999", "is no address"),
        ("127.0.0.1:-1", "is no address"),
        ("unix:", "no path"),
        ("unix:/nowhere/at/all", "make the folder first"),
        ("unix:/tmp/" + "x" * 200, "too long"),
        ("192.0.2.1:0", "use an address of this host"),
    ],
)
def test_an_address_that_cannot_be_is_told(life: Life, address: str, part: str) -> None:
    with pytest.raises(MachineError, match=part):
        MetricsServer(lambda: STATISTICS, life, address, "1")


def test_a_port_that_is_taken_is_told(server: MetricsServer, life: Life) -> None:
    with pytest.raises(MachineError, match="another program has that port"):
        MetricsServer(lambda: STATISTICS, life, server.address, "1")


def test_ip_version_6(life: Life) -> None:
    with MetricsServer(lambda: STATISTICS, life, "[::1]:0", "1") as server:
        assert re.fullmatch(r"\[::1\]:[1-9]\d*", server.address)
        assert get(server)[0] == 200


def test_without_prometheus_client_it_says_what_to_install(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(HostError, match=r"pip install 'shardio\[metrics\]'"):
        MetricsServer(lambda: STATISTICS, life, "127.0.0.1:0", "1")


def test_in_a_fork_closing_leaves_the_path(tmp_path: Path, life: Life) -> None:
    path = tmp_path / "metrics"
    with MetricsServer(lambda: STATISTICS, life, f"unix:{path}", "1") as server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
            if (child := os.fork()) == 0:
                server.close()
                os._exit(0)
        os.waitpid(child, 0)

        assert path.exists()


# ---- of a dispatcher ----


class Latch(MutDeviceMmio):
    value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


def test_scrapers_that_never_read_do_not_keep_a_shard_from_its_successor() -> None:
    with Dispatcher(vcpus=1, shards=1, hang_deadline=60) as dispatcher, contextlib.ExitStack() as crowd:
        dispatcher.add(Latch, mmio=0xD000_0000, size=8)
        server = dispatcher.metrics("127.0.0.1:0")
        port, answer = dispatcher.port(0), bytearray(4)
        for _ in range(exchange.MOST_CLIENTS + 4):
            crowd.enter_context(connected(server)).sendall(GET)
        os.kill(dispatcher.statistics().shards[0].pid, signal.SIGKILL)
        until(lambda: dispatcher.statistics().shards[0].recoveries == 1, "a successor")
        port.mmio_write(0xD000_0000, b"mend")
        port.mmio_read(0xD000_0000, answer)

    assert bytes(answer) == b"mend"


def test_a_dispatcher_is_scraped_and_takes_its_server_along() -> None:
    with Dispatcher(vcpus=1, shards=1) as dispatcher:
        dispatcher.add(Latch, mmio=0xD000_0000, size=8, name="latch")
        server = dispatcher.metrics("127.0.0.1:0")
        new = samples(get(server)[2])
        port = dispatcher.port(0)
        port.mmio_write(0xD000_0000, b"sync")
        port.mmio_read(0xD000_0000, bytearray(4))
        dispatcher.stop()
        server._kept = None
        found = samples(get(server)[2])

    labels = 'device="latch",direction="{}",shard="shard0"'
    assert new['shardio_machine_state{state="new"}'] == 1
    assert found[f"shardio_device_accesses_total{{{labels.format('read')}}}"] == 1
    assert found[f"shardio_device_accesses_total{{{labels.format('write')}}}"] == 1
    assert found['shardio_machine_state{state="stopped"}'] == 1
    assert "shardio-metrics" not in [thread.name for thread in threading.enumerate()]
