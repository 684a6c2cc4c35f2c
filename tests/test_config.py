"""shardio.config and shardio.options: what a machine's file may say, and how it is refused otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardio import config
from shardio.config import (
    DEVICE_KEYS,
    MACHINE_KEYS,
    MachineConfig,
    as_toml,
    build,
    find_firmware,
    load_config,
    machine_config,
)
from shardio.device import DevicePio, MutDeviceMmio, MutDevicePio
from shardio.errors import ConfigError, ImageError
from shardio.options import check_options
from shardio.range import PioRange
from tests.boot.images import Part, elf32


class Lamp(MutDevicePio, MutDeviceMmio):
    """A device with options of several types, and a size of its own on the port bus only."""

    pio_size = 4

    def __init__(
        self,
        colour: str = "white",
        level: int = 0,
        ratio: float = 1.0,
        steps: list[int] | None = None,
        blink: bool = False,
        when: Callable[[], float] | None = None,
        lens: Path | range | None = None,
    ) -> None:
        self.options = (colour, level, ratio, steps, blink, when, lens)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        return


class Needy:
    """A device that cannot be made without its file."""

    def __init__(self, file: str) -> None:
        self.file = file


class Named(MutDevicePio):
    """A device with options whose names the configuration has too."""

    pio_size = 4

    def __init__(self, size: int, name: str = "") -> None:
        self.size, self.name = size, name

    def read(self, offset: int, size: int) -> int:
        return self.size


class Shared(DevicePio):
    """A device that any shard may answer for."""

    pio_size = 4

    def read(self, offset: int, size: int) -> int:
        return 0


class AnyOptions:
    """A device that takes whatever it is given."""

    def __init__(self, **options: object) -> None:
        self.options = options


LAMP = f"{__name__}:Lamp"
IN_SPACE = st.integers(min_value=0, max_value=0xFFFC)


def lamp(**table: object) -> dict[str, object]:
    return {"type": LAMP, "pio": 0x300, **table}


def config_of(*devices: dict[str, object], **machine: object) -> MachineConfig:
    return machine_config({"machine": machine, "device": list(devices)}, where="m.toml")


def refuses(action: Callable[[], object]) -> bool:
    try:
        action()
    except ConfigError:
        return True
    return False


def test_file_with_everything(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(
        f"""
        [machine]
        vcpus = 2
        cpu = "kvm"
        memory = "128M"
        shards = 3
        irqchip = true
        repairs = false
        image = "guest.bin"
        at = 0x2000
        entry = "0x2040"
        mode = "protected"
        pin = false
        hang_deadline = 1

        [[device]]
        type = "{LAMP}"
        pio = 0x3f8
        size = 8
        irq = 4
        shard = "serial"
        colour = "red"
        steps = [1, 2]

        [[device]]
        type = "{LAMP}"
        name = "second"
        mmio = "0xd0000000"
        size = "0x1000"
        posted = true
        policy = "replay"
        ratio = 2
        """
    )

    config = load_config(file)

    assert (config.vcpus, config.cpu, config.memory, config.shards) == (2, "kvm", 128 << 20, 3)
    assert (config.image, config.at, config.entry) == (tmp_path / "guest.bin", 0x2000, 0x2040)
    assert (config.mode, config.pin, config.hang_deadline, config.repairs) == ("protected", False, 1.0, False)
    first, second = config.devices
    assert (first.pio, first.size, first.irq, first.shard) == (0x3F8, 8, 4, "serial")
    assert first.options == {"colour": "red", "steps": [1, 2]}
    assert (second.mmio, second.size, second.posted, second.policy) == (0xD000_0000, 0x1000, True, "replay")
    assert (second.label, second.options) == ("second", {"ratio": 2})


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text("")

    assert load_config(file) == MachineConfig()


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
        (lamp(type=f"{__name__}:Lmap"), ['did you mean "Lamp"?']),
        (lamp(type=f"{__name__}:LAMP"), ["is not callable", "name a class"]),
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
        ({"type": f"{__name__}:AnyOptions", "pio": 1, "size": 1}, ["has no handlers for pio", "pio_read"]),
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
        ({"type": f"{__name__}:Named", "pio": 1, "size": 4}, ['needs "size"', "options = { size = ... }"]),
        (lamp(irq="four"), ["irq", '"four" is no number']),
        ({"type": f"{__name__}:Needy", "pio": 1, "size": 1}, ['needs "file"', "file = ..."]),
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


def test_options_whose_names_the_configuration_has_go_into_a_table_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(
        f'''
        [[device]]
        type = "{__name__}:Named"
        pio = 0x300
        size = 2
        name = "outer"
        [device.options]
        size = 7
        name = "inner"
        '''
    )

    (device,) = load_config(file).devices

    assert (device.size, device.name, device.options) == (2, "outer", {"size": 7, "name": "inner"})


def test_an_immutable_device_may_have_replicas() -> None:
    config = config_of({"type": f"{__name__}:Shared", "pio": 0x300, "replicas": 2})

    assert config.devices[0].replicas == 2


@pytest.mark.parametrize("memory", [5000, "1K"])
def test_memory_is_whole_pages(memory: object) -> None:
    with pytest.raises(ConfigError, match=r"m\.toml: \[machine\] memory: .*multiple of 4096"):
        config_of(memory=memory)


def test_what_the_file_says_is_checked_where_the_library_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rule in one place: a rule that is changed there is changed here."""
    monkeypatch.setattr("shardio.dispatcher.device.GSIS", 10)

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


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("machine = 1", "is no table"),
        ("device = 1", "is no list of tables"),
        ("devices = []", 'did you mean "device"?'),
        ("[machine", "not TOML"),
    ],
)
def test_refused_file(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=f"{file}.*") as refused:
        load_config(file)

    assert part in str(refused.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.toml")


def test_open_ended_constructor_takes_any_option() -> None:
    check_options(AnyOptions, {"anything": 1})


def test_firmware_is_found_beside_the_file_first(tmp_path: Path) -> None:
    (tmp_path / "bios.bin").write_bytes(b"")

    assert find_firmware("bios.bin", tmp_path) == tmp_path / "bios.bin"


def test_firmware_with_a_folder_is_not_searched_for(tmp_path: Path) -> None:
    assert find_firmware("no/bios.bin", tmp_path) == tmp_path / "no/bios.bin"


@given(st.lists(IN_SPACE, min_size=2, max_size=6))
def test_overlap_is_found_wherever_it_is(bases: list[int]) -> None:
    covered = [port for base in bases for port in range(base, base + 4)]

    refused = refuses(lambda: config_of(*(lamp(pio=base) for base in bases), irqchip=False))

    assert refused == (len(set(covered)) < len(covered))


@pytest.mark.parametrize("key", [*MACHINE_KEYS, *DEVICE_KEYS])
def test_every_key_is_in_the_manual(key: str) -> None:
    manual = (Path(__file__).parent.parent / "docs" / "reference" / "configuration.md").read_text()

    assert f"| `{key}`" in manual or f"or `{key}` |" in manual


@pytest.mark.kvm
def test_machine_is_built_as_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "guest.bin").write_bytes(b"\xf4")
    config = machine_config(
        {
            "machine": {"image": "guest.bin", "vcpus": 2, "memory": "8M", "pin": False, "hang_deadline": 2.5},
            "device": [lamp(name="lamp", shard="hall", posted=True, policy="fail", colour="red")],
        },
        where="m.toml",
        folder=tmp_path,
    )

    with build(config) as machine:
        handle = machine.dispatcher.devices[0]

    assert (machine.vcpus, machine.memory.size) == (2, 8 << 20)
    assert (handle.request.shard, handle.request.posted, handle.request.policy) == ("hall", "ring", "fail")
    assert handle.spans == (PioRange(0x300, 4),)


@pytest.mark.kvm
def test_machine_that_cannot_be_built_leaves_nothing(tmp_path: Path) -> None:
    config = machine_config({"machine": {"image": "none.bin"}}, where="m.toml", folder=tmp_path)

    with pytest.raises(ImageError, match=r"none\.bin"):
        build(config)


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
    monkeypatch.setattr(config, "FIRMWARE_FOLDERS", (packaged,))

    assert config.find_firmware("bios.bin", tmp_path) == packaged / "bios.bin"
    assert config.find_firmware("sub/bios.bin", tmp_path) == tmp_path / "sub/bios.bin"


# ---- kernels ----

KERNEL = elf32(Part(b"\xf4" * 16, 0x10_0000), entry=0x10_0000)
MP, ACPI = b"_MP_", b"RSD PTR "


def started(tmp_path: Path, **keys: object) -> bytes:
    """What lies between 0xE0000 and 1 MiB once the machine of these keys has begun, HLT its first step."""
    (tmp_path / "kernel").write_bytes(KERNEL)
    lines = [f"{key} = {value}\n" for key, value in keys.items()]
    (tmp_path / "m.toml").write_text("".join(["[machine]\n", *lines]))
    with build(load_config(tmp_path / "m.toml")) as vm:
        vm.start()
        return vm.memory.read(0xE0000, 0x20000)


@pytest.mark.parametrize(
    ("keys", "signatures"),
    [
        ({}, {ACPI, MP}),
        ({"tables": '"acpi"'}, {ACPI}),
        ({"tables": '"none"'}, set()),
        ({"platform": "false"}, set()),
        ({"platform": "false", "tables": '"both"'}, {ACPI, MP}),
        ({"irqchip": "false"}, set()),
    ],
)
def test_a_kernel_finds_tables(keys: dict[str, str], signatures: set[bytes], tmp_path: Path) -> None:
    high = started(tmp_path, kernel='"kernel"', cpu='"soft"', memory='"2M"', **keys)

    assert {signature for signature in (ACPI, MP) if signature in high} == signatures


def test_paths_of_a_kernel_are_from_the_file_s_folder(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text('[machine]\nkernel = "k"\ninitrd = "/i"\ncommand_line = "a=b"\n')

    config = load_config(tmp_path / "m.toml")

    assert (config.kernel, config.initrd, config.command_line) == (tmp_path / "k", Path("/i"), "a=b")


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


def test_a_bad_kernel_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"MZ" + bytes(600))
    config = machine_config({"machine": {"kernel": "kernel", "cpu": "soft"}}, where="m.toml", folder=tmp_path)

    with pytest.raises(ImageError, match="magic at offset 0x0"):
        build(config)


@pytest.mark.parametrize(
    "machine",
    [
        {"firmware": "/bios.bin", "vcpus": 2, "disks": ["/a.img"], "nets": ["tap:t0"]},
        {"kernel": "/vmlinux", "initrd": "/initrd", "command_line": 'quiet "x"', "memory": 1 << 30},
        {"kernel": "/vmlinux", "tables": "mp", "irqchip": True, "shards": 3},
        {"payload": "/grub.elf", "cpu": "soft", "irqchip": False},
        {"image": "/guest.bin", "at": 0x2000, "mode": "long", "hang_deadline": 2.5},
    ],
)
def test_a_configuration_that_is_written_is_the_same_when_it_is_read(
    machine: dict[str, Any], tmp_path: Path
) -> None:
    device = {"type": f"{__name__}:Named", "pio": 0x600, "size": 8, "options": {"size": 3}}
    written = machine_config({"machine": machine, "device": [device]}, where="m")
    file = tmp_path / "machine.toml"

    file.write_text(as_toml(written))
    again = load_config(file)

    assert as_toml(again) == file.read_text()
    assert again.devices == written.devices
    assert config._tables(again) == config._tables(written)
