"""`shardio run`: from the command line to a configuration, and from the machine's end to an exit status."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from shardio.address import Space
from shardio.cli import run
from shardio.cli.run_end import exit_status, warn_of_quarantine
from shardio.cli.run_machine import configuration, device_folders, on_terminal, parse_device
from shardio.cli.stop import StopRequests
from shardio.cli.summary import summary
from shardio.config import MachineConfig, load_tables, machine_config
from shardio.errors import ConfigError
from shardio.fabric import LastAccess

UART = "shardio.devices:Uart16550"


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args(words)


def configured(*words: str) -> MachineConfig:
    arguments = parsed(*words)
    return configuration(arguments, load_tables(arguments.config) if arguments.config else {})


def ended(**values: Any) -> Any:
    nothing = {"status": None, "vcpu": None, "detail": "", "quarantined": ()}
    return SimpleNamespace(**{"reason": "exit", **nothing, **values})


def stopped(number: int | None = None) -> StopRequests:
    stop = StopRequests()
    stop.signal = number
    return stop


def test_image_brings_the_console_and_the_exit_port() -> None:
    config = configured("--image", "guest.bin", "--entry", "0x1040", "--at", "0x1000", "--vcpus", "2")

    assert [device.label for device in config.devices] == ["com1", "exit"]
    assert (config.entry, config.at, config.vcpus) == (0x1040, 0x1000, 2)
    assert config.image == Path.cwd() / "guest.bin"


def test_no_platform_brings_only_what_is_named() -> None:
    config = configured("--image", "g", "--no-platform", "--device", f"{UART},pio=0x2f8,irq=3,output=null")

    (device,) = config.devices
    assert (device.pio, device.irq, device.options) == (0x2F8, 3, {"output": "null"})


def test_named_device_replaces_the_console() -> None:
    config = configured("--image", "g", "--device", f"{UART},pio=0x3f8,irq=4,name=mine")

    assert [device.label for device in config.devices] == ["mine", "exit"]


def test_switches_reach_the_machine() -> None:
    config = configured(
        "--image", "g", "--no-irqchip", "--no-pin", "--shards", "3", "--memory", "1G", "--cpu", "kvm"
    )

    assert (config.irqchip, config.pin, config.shards, config.memory) == (False, False, 3, 1 << 30)
    assert config.cpu == "kvm"


def test_options_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[machine]\nvcpus = 4\nimage = "a.bin"\nmemory = "32M"\n')

    config = configured(str(file), "--vcpus", "2", "--device", f"{UART},pio=0x3f8")

    assert (config.vcpus, config.memory, config.image) == (2, 32 << 20, tmp_path / "a.bin")
    assert [device.label for device in config.devices] == ["Uart16550"]


def test_firmware_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bios.bin").write_bytes(b"")
    monkeypatch.chdir(tmp_path)

    assert configured("--firmware", "bios.bin").firmware == tmp_path / "bios.bin"


def test_a_kernel_s_options_reach_the_machine() -> None:
    config = configured("--kernel", "vmlinux", "--initrd", "i.img", "--append", "console=ttyS0 panic=-1")

    assert (config.kernel, config.initrd) == (Path.cwd() / "vmlinux", Path.cwd() / "i.img")
    assert config.command_line == "console=ttyS0 panic=-1"


def test_a_payload_is_named() -> None:
    assert configured("--payload", "grub.elf").payload == Path.cwd() / "grub.elf"


def test_append_goes_before_the_file_s_command_line(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[machine]\nkernel = "k"\ncommand_line = "quiet"\n')

    assert configured(str(file)).command_line == "quiet"
    assert configured(str(file), "--append", "debug").command_line == "debug"


def test_first_serial_device_is_on_the_terminal() -> None:
    tables = [
        {"type": "shardio.devices:Echo", "pio": 0x10, "size": 1},
        {"type": UART, "pio": 0x3F8},
        {"type": UART, "pio": 0x2F8},
    ]
    config = machine_config({"device": tables}, where="m.toml")

    options = [device.options for device in on_terminal(config).devices]

    assert options == [{}, {"input": "stdin"}, {}]


def test_a_device_that_has_the_terminal_keeps_it() -> None:
    tables = [{"type": UART, "pio": 0x3F8}, {"type": UART, "pio": 0x2F8, "input": "stdin"}]
    config = machine_config({"device": tables}, where="m.toml")

    assert on_terminal(config) == config


def test_an_input_of_its_own_is_kept() -> None:
    config = machine_config({"device": [{"type": UART, "pio": 0x3F8, "input": "none"}]}, where="m.toml")

    assert on_terminal(config) == config


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("a:B", {"type": "a:B"}),
        ("a:B,pio=0x3f8", {"type": "a:B", "pio": 0x3F8}),
        ("a:B,posted=true,ratio=1.5", {"type": "a:B", "posted": True, "ratio": 1.5}),
        ('a:B,text="a,b",steps=[1,2],irq=4', {"type": "a:B", "text": "a,b", "steps": [1, 2], "irq": 4}),
        ("a:B,output=file:/tmp/x=y", {"type": "a:B", "output": "file:/tmp/x=y"}),
        ("a:B,empty=", {"type": "a:B", "empty": ""}),
    ],
)
def test_device_options(text: str, table: dict[str, Any]) -> None:
    assert parse_device(text) == table


@pytest.mark.parametrize("text", ["a:B,pio", "a:B,=1", "a:B, =1"])
def test_device_option_without_a_key_or_value(text: str) -> None:
    with pytest.raises(ConfigError, match="is no KEY=VALUE"):
        parse_device(text)


@pytest.mark.parametrize(
    ("end", "signal", "status"),
    [
        (ended(status=33), None, 33),
        (ended(status=0), None, 0),
        (ended(reason="reset"), None, 0),
        (ended(reason="shutdown"), None, 1),
        (None, None, 0),
        (None, 15, 143),
        (None, 2, 130),
        (ended(status=33), 15, 143),
    ],
)
def test_exit_status(end: Any, signal: int | None, status: int) -> None:
    assert exit_status(end, stopped(signal)) == status


def test_failed_guest_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status = exit_status(ended(reason="internal error", vcpu=1, detail="suberror 1\nrip 0x7c00"), stopped())

    assert status == 1
    assert capsys.readouterr().err == "shardio: vCPU 1: internal error: suberror 1 rip 0x7c00\n"


def test_devices_are_looked_for_beside_the_file_and_here(tmp_path: Path) -> None:
    assert device_folders(str(tmp_path / "m.toml")) == [os.getcwd(), str(tmp_path)]


def test_summary_tells_exits_and_devices() -> None:
    exits = {"io": 1200, "mmio": 34, "hlt": 0}
    unclaimed = {"unclaimed_reads": 2, "unclaimed_writes": 1, "crossing": 4}
    last = {
        "last_unclaimed": LastAccess(Space.PIO, 0x510, 1, True, 1),
        "last_crossing": LastAccess(Space.MMIO, 0xD000_0FFF, 4, False, 2),
    }
    repairs = {"FWAIT": 65}
    vcpu = SimpleNamespace(
        exits=exits, repairs=repairs, running_ns=3_000_000, waiting_ns=1_000_000, **unclaimed, **last
    )
    latencies = {"wait_p50_ns": 1500, "wait_p99_ns": 9000, "service_p50_ns": 250, "service_p99_ns": 800}
    serial = SimpleNamespace(
        name="Uart16550", shard="console", reads=3, writes=40, refused=5, wait_ns=750, **latencies,
        last_refused=LastAccess(Space.PIO, 0x3F9, 2, True, 3),
    )  # fmt: skip
    idle = SimpleNamespace(
        name="exit", shard="s1", reads=0, writes=0, refused=0, wait_ns=250, last_refused=None, **latencies
    )
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(summary(SimpleNamespace(vcpus=[vcpu], devices=[serial, idle])))  # type: ignore[arg-type]
    console.file.close()

    text = console.export_text()

    assert max(map(len, text.splitlines())) <= 80
    assert "io 1200, mmio 34; repaired: FWAIT 65" in text
    assert "hlt" not in text
    assert "25.0%" in text
    assert [line.split() for line in text.splitlines() if line.startswith("Uart16550")] == [
        ["Uart16550", "console", "3", "40", "1.50", "us", "9.00", "us", "250", "ns", "800", "ns", "75.0%"],
    ]
    assert [" ".join(line.split()) for line in text.splitlines() if " at " in line] == [
        "unclaimed vCPU 0 3 write of 1 byte at pio 0x510",
        "past a range's end vCPU 0 4 read of 4 bytes at mmio 0xd0000fff",
        "refused Uart16550 5 write of 2 bytes at pio 0x3f9",
    ]


def test_a_triple_fault_on_purpose_is_a_success() -> None:
    assert exit_status(ended(reason="shutdown"), stopped(), triple_fault_ok=True) == 0


def test_quarantined_devices_get_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_quarantine(ended(quarantined=("lamp", "disk")))

    assert "quarantined, because their shards died of it: lamp, disk" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_configuration_is_checked_raises_nothing_there(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(arguments: argparse.Namespace, tables: object) -> MachineConfig:
        signal.raise_signal(number)  # KeyboardInterrupt inside msgspec's decoder has ended in SIGSEGV
        raise ConfigError("machine.toml", "checked to its end")

    monkeypatch.setattr(run, "configuration", check)
    with pytest.raises(ConfigError, match="checked to its end"):
        run.execute(parsed("--image", "guest.bin"))
