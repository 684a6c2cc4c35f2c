"""Errors: one root, their values kept across a pickle, their hint in their text, all of them public."""

from __future__ import annotations

import errno
import inspect
import pickle

import pytest

import shardio
from shardio import PioRange, ResourceConstraint, errors

SAMPLES: list[errors.ShardioError] = [
    errors.ShardioError("what", "hint"),
    errors.InvalidAddress(-1, "pio", 0xFFFF),
    errors.InvalidRange(1, 0, "is empty", "give a size"),
    errors.InvalidAccessLength(70000, 65536),
    errors.DeviceNotFound(0x3F8, 2),
    errors.DeviceOptionError("CmosRtc", "vcpus", 0, "give a number from 1 to 256"),
    errors.DeviceOverlap(PioRange(1, 2), PioRange(2, 2)),
    errors.DeviceStateError(600, 512),
    errors.InvalidDevice("Thing", "pio"),
    errors.HandlerMissing("Thing", "pio_read"),
    errors.InvalidBuffer("a str cannot carry an access"),
    errors.InvalidResult("Counter.read", 4, 2, "None"),
    errors.InvalidResult(dict.get, 4, 2, "1.5"),
    errors.InvalidResource("legacy IRQ", "-1 is not a 32-bit unsigned number"),
    errors.ResourceUnavailable(ResourceConstraint.new_pio(8)),
    errors.ResourceConflict(PioRange(1, 2), 2, 3),
    errors.ResourceNotAllocated(PioRange(1, 2)),
    errors.MemoryAccessError(0x1000, 4, ("RAM [0x0, 0xfff]",)),
    errors.ImageError("guest.bin", "is empty", "assemble it again"),
    errors.ConfigError("machine.vcpus", "is 0", "give at least 1"),
    errors.FabricError("/dev/shm is full", "make room"),
    errors.LayoutMismatch("version", 1, 2),
    errors.ShardError("serial", "died", "see its log"),
    errors.VcpuError(1, "KVM_EXIT_INTERNAL_ERROR", "see the registers"),
    errors.ExitHookFailed(1, "KVM_EXIT_HLT", "ZeroDivisionError: division by zero", "see its traceback"),
    errors.MachineError("is running", "stop it first"),
    errors.DebuggerError("cannot listen at :1", "use another address"),
    errors.UnknownRegister("eip", ("rax", "rip")),
    errors.UnknownRegister(0x10, ()),
    errors.RangeTaken("com1", PioRange(0x20, 8), "the PIC", "move it"),
    errors.InterruptError(4, "is taken", "choose another"),
    errors.HostError("no /dev/kvm", "load the kvm module"),
    errors.KvmError("KVM_RUN", errno.EFAULT, "map the memory"),
]
samples = pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)


@samples
def test_error_survives_pickling_with_its_values(error: errors.ShardioError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@samples
def test_text_is_the_message_and_the_hint_in_one_line(error: errors.ShardioError) -> None:
    assert error.message in str(error)
    assert str(error).endswith(error.hint)
    assert "\n" not in str(error)


def test_error_without_a_hint_is_its_message() -> None:
    assert str(errors.MachineError("is running")) == "is running"


def test_every_error_is_listed_public_and_of_one_root() -> None:
    classes = inspect.getmembers(errors, inspect.isclass)
    defined = {name for name, value in classes if value.__module__ == errors.__name__}
    assert defined == set(errors.__all__)
    assert defined <= set(shardio.__all__)
    assert all(issubclass(getattr(shardio, name), shardio.ShardioError) for name in defined)


def test_kvm_error_names_the_ioctl_and_the_errno() -> None:
    error = errors.KvmError("KVM_CREATE_VM", errno.EMFILE, "raise the limit")
    assert (error.ioctl, error.errno) == ("KVM_CREATE_VM", errno.EMFILE)
    assert str(error) == "KVM_CREATE_VM failed with EMFILE (Too many open files); raise the limit"


def test_overlap_names_both_ranges() -> None:
    error = errors.DeviceOverlap(PioRange(1, 2), PioRange(2, 2))
    assert (error.requested, error.existing) == error.ranges == (PioRange(1, 2), PioRange(2, 2))
    assert "PIO [0x1, 0x2] overlaps PIO [0x2, 0x3]" in str(error)
