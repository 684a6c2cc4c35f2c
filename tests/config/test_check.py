"""shardio.config.check and shardio.options: what a configuration may say, and how it is refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio.config import check, find_firmware, machine_config
from shardio.errors import ConfigError
from shardio.options import check_options
from tests.config.devices import DEVICES, LAMP, AnyOptions, config_of, lamp


def refuses(action: Callable[[], object]) -> bool:
    try:
        action()
    except ConfigError:
        return True
    return False


@pytest.mark.parametrize(
    ("machine", "parts"),
    [
        ({"vcpu": 2}, ["[machine]", 'unknown key "vcpu"', 'did you mean "cpu" or "vcpus"?']),
        ({"zzz": 2}, ['unknown key "zzz"', "memory"]),
        ({"vcpus": 0}, ["[machine] vcpus", "expected `int` >= 1"]),
        ({"vcpus": "2"}, ["[machine] vcpus", "expected `int`, got `str`"]),
        ({"memory": "64Q"}, ["[machine] memory", '"64Q"', '"64M"']),
        ({"memory": 0}, ["[machine] memory"]),
        ({"memory": True}, ["[machine] memory"]),
        ({"mode": "virtual"}, ["[machine] mode", "virtual", 'use "real", "protected" or "long"']),
        ({"irqchip": "no"}, ["[machine] irqchip", 'use true, false or "split"']),
        ({"repairs": "no"}, ["[machine] repairs", 'use true, false or "auto"']),
        ({"cpu": "arm"}, ["[machine] cpu", 'use "auto", "kvm" or "soft"']),
        ({"pni": False}, ['did you mean "pin"?']),
        ({"entry": "start"}, ["[machine] entry", '"start" is no number']),
        ({"hang_deadline": 0.0}, ["[machine] hang_deadline"]),
    ],
)
def test_refused_machine(machine: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        config_of(**machine)

    text = str(refused.value)
    assert text.startswith("m.toml: ")
    assert "\n" not in text
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize(
    ("table", "parts"),
    [
        ({"pio": 1}, ["no type", "type = "]),
        ({"tipe": LAMP, "pio": 1}, ["no type", '"tipe": did you mean "type"?']),
        ({"type": LAMP, "poi": 1}, ['knows no "poi"', 'did you mean "pio"?']),
        (lamp(type="Lamp"), ["'Lamp' names no device", "package.module:Class"]),
        (lamp(type="no_such_module_here:Lamp"), ["no_such_module_here", "install the package"]),
        (lamp(type=f"{DEVICES}:Lmap"), ['did you mean "Lamp"?']),
        (lamp(type=f"{DEVICES}:LAMP"), ["is not callable", "name a class"]),
        (lamp(color="red"), ['"Lamp"', 'knows no "color"', 'did you mean "colour"?']),
        (lamp(postd=True), ['knows no "postd"', 'did you mean "posted"?']),
        (lamp(zzz=1), ['knows no "zzz"', "its options: blink, colour"]),
        (lamp(level="low"), ['"level" of Lamp', "expected `int`, got `str`"]),
        (lamp(blink=1), ['"blink" of Lamp', "expected `bool`, got `int`"]),
        (lamp(steps=["a"]), ['"steps" of Lamp']),
        (lamp(when=1), ['"when" of Lamp', "expected `Callable`, got `int`"]),
        (lamp(lens=1), ['"lens" of Lamp', "set it from Python"]),
        (lamp(mmio=0x1000), ["declares no mmio_size"]),
        ({"type": LAMP, "mmio": 0xD000_0000}, ["declares no mmio_size", "size=..."]),
        (lamp(size=0), ["is empty", "size of at least 1"]),
        (lamp(size=True), ["size", "expected `int"]),
        (lamp(pio=0xFFFE), ["leaves the PIO space"]),
        (lamp(pio=-1), ["leaves the PIO space"]),
        ({"type": LAMP, "mmio": (1 << 64) - 1, "size": 2}, ["leaves the MMIO space"]),
        ({"type": LAMP, "mmio": 0x1000, "size": 16}, ["guest RAM", "0xd0000000"]),
        ({"type": f"{DEVICES}:AnyOptions", "pio": 1, "size": 1}, ["has no handlers for pio", "pio_read"]),
        (lamp(pio=0x40), ["in-kernel PIT", "PIO [0x40, 0x43]", 'irqchip: false or "split"']),
        ({"type": LAMP, "mmio": 0xFEE0_0000, "size": 4}, ["in-kernel local APIC", "irqchip: false"]),
        (lamp(policy="retry"), ["no policy 'retry'", "replay, fail"]),
        (lamp(irq_mode="pulse"), ["no irq_mode 'pulse'", "edge, level"]),
        (lamp(replicas=0), ["0 replicas"]),
        (lamp(replicas=2), ["mutable", "DevicePio or DeviceMmio"]),
        (lamp(irq=4096), ["irq 4096", "0 to 4095"]),
        (lamp(irq=-1), ["irq -1", "0 to 4095"]),
        (lamp(pass_fds=[-1]), ["pass_fds", ">= 0"]),
        (lamp(pass_fds=[1 << 20]), ["descriptor 1048576", "Bad file descriptor"]),
        (lamp(colour="red", options={"colour": "blue"}), ["'colour' of Lamp is given twice"]),
        (lamp(options={"color": "red"}), ['knows no "color"', 'did you mean "colour"?']),
        (lamp(options=1), ["options", "expected `object`"]),
        ({"type": f"{DEVICES}:Named", "pio": 1, "size": 4}, ['needs "size"', "options = { size = ... }"]),
        (lamp(irq="four"), ["irq", '"four" is no number']),
        ({"type": f"{DEVICES}:Needy", "pio": 1, "size": 1}, ['needs "file"', "file = ..."]),
    ],
)
def test_refused_device(table: dict[str, object], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        config_of(table)

    text = str(refused.value)
    assert text.startswith("m.toml: ")
    assert "device" in text
    assert "\n" not in text
    assert [part for part in parts if part not in text] == []


def test_overlap_names_both_devices() -> None:
    with pytest.raises(ConfigError) as refused:
        config_of(lamp(name="low"), lamp(pio=0x303, name="high"))

    assert str(refused.value).startswith('m.toml: [[device]] 2 "high": device high at PIO [0x303, 0x306] ')
    assert "overlaps device low at PIO [0x300, 0x303]" in str(refused.value)


def test_same_number_in_the_other_space_is_no_overlap() -> None:
    config = config_of(lamp(pio=0), {"type": LAMP, "mmio": 64 << 20, "size": 4}, memory="64M")

    assert len(config.devices) == 2


def test_two_devices_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[\[device\]\] 2 .*device named 'a'"):
        config_of(lamp(name="a"), lamp(name="a", pio=0x400))


def test_two_edge_devices_on_one_line_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[\[device\]\] 2 .*share irq 5.*level"):
        config_of(lamp(irq=5), lamp(pio=0x400, irq=5))


def test_two_level_devices_share_a_line() -> None:
    level = {"irq": 5, "irq_mode": "level"}

    assert len(config_of(lamp(**level), lamp(pio=0x400, **level)).devices) == 2


def test_a_line_without_an_irqchip_is_refused() -> None:
    with pytest.raises(ConfigError, match="there are no lines"):
        config_of(lamp(irq=5), irqchip=False)


def test_an_immutable_device_may_have_replicas() -> None:
    config = config_of({"type": f"{DEVICES}:Shared", "pio": 0x300, "replicas": 2})

    assert config.devices[0].replicas == 2


@pytest.mark.parametrize("memory", [5000, "1K"])
def test_memory_is_whole_pages(memory: object) -> None:
    with pytest.raises(ConfigError, match=r"m\.toml: \[machine\] memory: .*multiple of 4096"):
        config_of(memory=memory)


def test_what_the_file_says_is_checked_where_the_library_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule in one place: a rule that is changed there is changed here."""
    monkeypatch.setattr("shardio.dispatcher.arguments.GSIS", 10)

    with pytest.raises(ConfigError, match="a line from 0 to 9"):
        config_of(lamp(irq=10))


def test_checking_needs_no_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a check asked for KVM")

    monkeypatch.setattr("shardio.kvm.kvm.Kvm.__init__", refused)

    assert len(config_of(lamp(irq=5), memory="8G", vcpus=254).devices) == 1


def test_memory_above_four_gib_is_guest_ram_too() -> None:
    with pytest.raises(ConfigError, match="guest RAM"):
        config_of({"type": LAMP, "mmio": 4 << 30, "size": 4}, memory="4G")


def test_without_an_irqchip_its_addresses_are_for_devices() -> None:
    config = config_of(lamp(pio=0x40), {"type": LAMP, "mmio": 0xFEE0_0000, "size": 4}, irqchip=False)

    assert len(config.devices) == 2


def test_open_ended_constructor_takes_any_option() -> None:
    check_options(AnyOptions, {"anything": 1})


def test_firmware_is_found_beside_the_file_first(tmp_path: Path) -> None:
    (tmp_path / "bios.bin").write_bytes(b"")

    assert find_firmware("bios.bin", tmp_path) == tmp_path / "bios.bin"


def test_firmware_with_a_folder_is_not_searched_for(tmp_path: Path) -> None:
    assert find_firmware("no/bios.bin", tmp_path) == tmp_path / "no/bios.bin"


@given(st.lists(st.integers(min_value=0, max_value=0xFFFC), min_size=2, max_size=6))
def test_overlap_is_found_wherever_it_is(bases: list[int]) -> None:
    covered = [port for base in bases for port in range(base, base + 4)]

    refused = refuses(lambda: config_of(*(lamp(pio=base) for base in bases), irqchip=False))

    assert refused == (len(set(covered)) < len(covered))


def test_a_size_for_two_ranges_is_refused() -> None:
    device = {"type": "shardio.devices:PciBus", "pio": 0xCF8, "mmio": 0xE000_0000}

    assert len(config_of(device).devices) == 1
    with pytest.raises(ConfigError, match="two ranges and one size"):
        config_of({**device, "size": 8})


def test_only_a_bare_name_is_looked_for_where_packages_put_firmware(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = tmp_path / "packaged"
    (packaged / "sub").mkdir(parents=True)
    for name in ("bios.bin", "sub/bios.bin"):
        (packaged / name).touch()
    monkeypatch.setattr(check, "FIRMWARE_FOLDERS", (packaged,))

    assert find_firmware("bios.bin", tmp_path) == packaged / "bios.bin"
    assert find_firmware("sub/bios.bin", tmp_path) == tmp_path / "sub/bios.bin"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kernel": "k", "image": "i"}, "image and kernel in one machine; keep the one that is to begin"),
        ({"kernel": "k", "firmware": "f"}, "firmware and kernel in one machine"),
        ({"kernel": "k", "payload": "p"}, "kernel and payload in one machine"),
        ({"initrd": "i"}, "initrd: there is no kernel that takes it; name a kernel too"),
        ({"payload": "p", "command_line": "a"}, "command_line: there is no kernel that takes it"),
    ],
)
def test_what_begins_is_one_thing(keys: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        machine_config({"machine": keys}, where="m.toml")
