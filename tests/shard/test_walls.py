"""The walls around a shard, seen from inside one: what a device's code is refused, and what it keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardio._core import lib
from shardio.device import declared_capabilities
from shardio.devices import PciBus
from shardio.devices.virtio import VirtioMmioNet, VirtioPciNet
from shardio.dispatcher.arguments import device_request
from shardio.errors import MachineError
from shardio.shard.walls import KEPT, MAX_FILES, capability_bits
from tests.e2e.support import until
from tests.shard.enclosed import Enclosed, NetAdmin
from tests.supervisor.support import BASE, cluster


def permitted() -> int:
    """The capabilities of this process, which its shards have at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))


as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not permitted() & capability_bits(("CAP_NET_ADMIN",)),
    reason="needs root with CAP_NET_ADMIN: others have no capabilities to drop",
)


@pytest.mark.parametrize(("device", "declared"), [(Enclosed, ()), (NetAdmin, ("CAP_NET_ADMIN",))])
def test_a_shard_keeps_the_capabilities_that_its_devices_declare(
    device: type[Enclosed], declared: tuple[str, ...]
) -> None:
    with cluster() as c:
        c.add(device)
        status = c.call(device.__name__, "status")

    kept = capability_bits((*declared, *KEPT)) & permitted()
    sets = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert {"CapPrm": sets["CapPrm"], "CapEff": sets["CapEff"]} == {"CapPrm": kept, "CapEff": kept}
    assert sets["CapInh"] & ~kept == sets["CapAmb"] & ~kept == 0


def test_what_a_shard_executes_gets_no_privileges_back() -> None:
    with cluster() as c:
        c.add(Enclosed)
        status = c.call("Enclosed", "status_of_executed")

    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) & ~capability_bits(KEPT) == 0


@as_root
def test_a_successor_keeps_what_all_of_its_devices_declare() -> None:
    with cluster() as c:
        c.add(NetAdmin)
        c.add(Enclosed, BASE + 0x100)
        dead = c.shards[0].pid
        os.kill(dead, 9)
        until(lambda: c.shards[0].pid not in (0, dead) and c.shards[0].restored, "a successor")
        status = c.call("Enclosed", "status")

    assert int(status["CapEff"], 16) == capability_bits(("CAP_NET_ADMIN", *KEPT)) & permitted()


@as_root
def test_a_later_device_that_needs_more_is_refused_and_the_shard_goes_on() -> None:
    with cluster(shards=2) as c:
        c.add(Enclosed)
        with pytest.raises(MachineError, match="device NetAdmin needs CAP_NET_ADMIN") as caught:
            c.add(NetAdmin, BASE + 0x100)
        c.add(NetAdmin, BASE + 0x200, shards=(1,), name="elsewhere")
        status = c.call("Enclosed", "status")

    assert "a shard of its own" in caught.value.hint
    assert int(status["CapEff"], 16) == capability_bits(KEPT) & permitted()


@as_root
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_the_vmm_s_memory_is_closed_to_a_shard(flags: int) -> None:
    with cluster() as c:
        c.add(Enclosed)
        assert c.call("Enclosed", "opened", f"/proc/{os.getpid()}/mem", flags) == "EACCES"


@as_root
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY])
def test_the_files_of_other_users_stay_open_to_root_s_devices(tmp_path: Path, flags: int) -> None:
    image = tmp_path / "image"
    image.touch(mode=0o600)
    os.chown(image, 1000, 1000)
    with cluster() as c:
        c.add(Enclosed)
        assert c.call("Enclosed", "opened", str(image), flags) == ""


def test_a_shard_dumps_no_core_and_has_a_bounded_number_of_files() -> None:
    with cluster() as c:
        c.add(Enclosed)
        limits = c.call("Enclosed", "limits")

    soft, hard = limits["RLIMIT_NOFILE"]
    assert limits["RLIMIT_CORE"] == [0, 0]
    assert soft <= hard <= max(soft, MAX_FILES)


def test_a_shard_has_no_descriptor_of_the_vmm_but_what_it_is_given(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        with cluster() as c:
            c.add(Enclosed)
            assert str(tmp_path / "secret") not in c.call("Enclosed", "leads_to")


def test_capabilities_are_those_of_the_kernel() -> None:
    # linux/capability.h: CAP_NET_ADMIN is 12, CAP_SYS_ADMIN 21.
    assert capability_bits(("CAP_NET_ADMIN", "CAP_SYS_ADMIN")) == 1 << 12 | 1 << 21
    assert lib.CAP_NET_ADMIN == 12


@pytest.mark.parametrize("name", ["NET_ADMIN", "CAP_", "CAP_FLY", 12])
def test_a_name_that_is_no_capability_is_refused_before_a_shard_is_asked(name: object) -> None:
    class Wrong(Enclosed):
        capabilities = (name,)  # type: ignore[assignment]

    with pytest.raises(MachineError, match="is no capability"):
        device_request(Wrong, mmio=BASE)


@pytest.mark.parametrize(
    ("options", "needed"), [({"tap": "tap0"}, ("CAP_NET_ADMIN",)), ({"local": "@a"}, ())]
)
def test_a_network_interface_needs_a_capability_for_a_tap_alone(
    options: dict[str, str], needed: tuple[str, ...]
) -> None:
    function = {"type": "shardio.devices.virtio:VirtioPciNet", "slot": 4, **options}

    assert declared_capabilities(VirtioMmioNet, options) == needed
    assert declared_capabilities(VirtioPciNet, options) == needed
    assert declared_capabilities(PciBus, {"functions": [function]}) == needed
