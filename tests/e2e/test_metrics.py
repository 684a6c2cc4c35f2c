"""`shardio run --metrics`: scraped while the guest runs, and gone with the machine."""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.support import PATIENCE_S, command, read_until
from tests.guests.build import program

pytestmark = pytest.mark.machine

READS = "shardio_device_accesses_total read"
WAITS = "shardio_device_wait_seconds_count"
LOOP = """
    .code16
    mov $0x3f8, %dx
    mov $'!', %al
    out %al, %dx
next:
    in %dx, %al
    jmp next
"""


def scrape(path: Path) -> dict[str, float]:
    """The samples that have no label but those of com1, and those of vCPU 0's exits by I/O."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
    families = text_string_to_metric_families(answer.partition("\r\n\r\n")[2])
    return {
        f"{each.name} {each.labels.get('direction', '')}".strip(): each.value
        for family in families
        for each in family.samples
        if each.labels.get("device") == "com1" or each.labels.get("reason") == "IO"
    }


def test_a_running_machine_is_scraped(tmp_path: Path, cpu: str) -> None:
    image, path = tmp_path / "guest.bin", tmp_path / "metrics"
    image.write_bytes(program(LOOP))
    words = ("run", "--quiet", "--cpu", cpu, "--image", image, "--metrics", f"unix:{path}")
    with command(*words) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"!")
        first = second = scrape(path)
        # A read is counted by the shard as it answers, and timed by the vCPU once it runs again.
        deadline = time.monotonic() + PATIENCE_S
        while not (second[READS] and second[WAITS]):
            assert time.monotonic() < deadline, second
            second = scrape(path)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)

    assert process.returncode == 128 + signal.SIGTERM
    assert first["shardio_device_accesses_total write"] == 1
    assert second[READS] >= first[READS]
    assert second["shardio_vcpu_exits_total"] >= 2
    assert not path.exists()


def test_an_address_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    image = tmp_path / "guest.bin"
    image.write_bytes(program(LOOP))
    with command("run", "--image", image, "--metrics", "here") as process:
        said = process.communicate(timeout=PATIENCE_S)[1].decode()

    assert process.returncode == 2
    assert said.startswith("shardio: error: metrics at 'here', which is no address (use unix:PATH")
    assert said.count("\n") == 1
