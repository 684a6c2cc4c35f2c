"""/dev/kvm: what is said where it cannot be opened, capabilities, and descriptors that come back."""

from __future__ import annotations

import errno
import os

import pytest

from shardio.errors import HostError, KvmError
from shardio.kvm import Kvm
from shardio.kvm.gate import check, ioctl
from shardio.memory import GuestMemory
from tests.conftest import open_fds


def test_a_missing_device_names_the_module_to_load(tmp_path):
    with pytest.raises(HostError, match=r"cannot open .*/kvm: No such file.*modprobe kvm_intel"):
        Kvm(str(tmp_path / "kvm"))


def test_a_device_without_permission_names_the_group(monkeypatch):
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(HostError, match=r"cannot open /dev/kvm: Permission denied.*usermod -aG kvm"):
        Kvm()


def test_a_device_that_is_not_kvm_leaves_no_descriptor():
    before = open_fds()
    with pytest.raises(HostError, match=r"is not KVM's device.*mknod"):
        Kvm("/dev/null")
    assert open_fds() == before


def test_check_passes_results_and_raises_errors_with_the_hint():
    assert check(7, "KVM_CREATE_VM") == 7
    with pytest.raises(KvmError) as caught:
        check(-errno.EEXIST, "KVM_CREATE_VCPU")
    assert (caught.value.ioctl, caught.value.errno) == ("KVM_CREATE_VCPU", errno.EEXIST)
    assert "use another index" in caught.value.hint


def test_every_errno_has_a_hint():
    with pytest.raises(KvmError) as caught:
        check(-errno.EXDEV, "KVM_CREATE_VM")
    assert caught.value.hint


def test_an_ioctl_on_a_closed_descriptor_says_so():
    with pytest.raises(KvmError, match=r"EBADF.*is closed"):
        ioctl(-1, "KVM_CREATE_VM")


@pytest.mark.kvm
def test_capabilities():
    with Kvm() as kvm:
        assert kvm.check_extension("KVM_CAP_USER_MEMORY") == 1
        assert kvm.check_extension("KVM_CAP_OF_A_LATER_KERNEL") == 0
        assert kvm.max_vcpus >= 1
        assert kvm.run_size >= 4096


@pytest.mark.kvm
def test_close_is_idempotent_and_gives_every_descriptor_back():
    before = open_fds()
    kvm, memory = Kvm(), GuestMemory(1 << 20)
    vm = kvm.create_vm()
    vm.set_memory(memory)
    vm.create_irqchip()
    vm.create_vcpu(0)
    vm.create_vcpu(1)
    for _ in range(2):
        vm.close()
        memory.close()
        kvm.close()
    assert open_fds() == before


@pytest.mark.kvm
def test_a_vm_and_its_vcpus_outlive_kvm():
    with Kvm() as kvm:
        vm = kvm.create_vm()
    with vm:
        vcpu = vm.create_vcpu(0)
        vcpu.set_cpuid()
        assert vcpu.get_regs()["rip"] == 0xFFF0
