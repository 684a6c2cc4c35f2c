"""Every error that shardio raises, and what each one carries.

All derive from `ShardioError`. Each keeps its values as attributes, says in its text what to do, and survives
pickling, because an error raised in a shard is reported by the VMM process. A subclass with parameters of its
own hands its text to `ShardioError.__init__` and then sets `self.args` to those parameters: that is what
pickle calls the class with.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence
from typing import Any

__all__ = [
    "AccessRefused",
    "ConfigError",
    "DebuggerError",
    "DeviceFailed",
    "DeviceNotFound",
    "DeviceOptionError",
    "DeviceOverlap",
    "DeviceStateError",
    "ExitHookFailed",
    "FabricError",
    "HandlerMissing",
    "HostError",
    "ImageError",
    "InterruptError",
    "InvalidAccessLength",
    "InvalidAddress",
    "InvalidBuffer",
    "InvalidDevice",
    "InvalidRange",
    "InvalidResource",
    "InvalidResult",
    "KvmError",
    "LayoutMismatch",
    "MachineError",
    "MemoryAccessError",
    "RangeTaken",
    "RecordingError",
    "ReplayDiffers",
    "ResourceConflict",
    "ResourceNotAllocated",
    "ResourceUnavailable",
    "ShardError",
    "ShardioError",
    "UnknownRegister",
    "VcpuError",
]


class ShardioError(Exception):
    """Base of every error of this library: `message` says what is wrong, `hint` what to do about it.

    >>> str(ShardioError("no ring", "start the shard first"))
    'no ring; start the shard first'
    """

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


# --- addresses, ranges and the bus -------------------------------------------------------------------------


class InvalidAddress(ShardioError, ValueError, OverflowError):
    """An address outside its space: `value`, and the name of the `space` ("pio" or "mmio")."""

    def __init__(self, value: int, space: str, last: int) -> None:
        super().__init__(f"address {value:#x} is outside the {space.upper()} space", f"use 0x0 to {last:#x}")
        self.args = (value, space, last)
        self.value, self.space, self.last = value, space, last


class InvalidRange(ShardioError, ValueError):
    """A range that is empty, leaves its space or is of another one: `base`, `size` in bytes, `reason`."""

    def __init__(self, base: int, size: int, reason: str, hint: str = "") -> None:
        super().__init__(f"range of {size:#x} bytes at {base:#x} {reason}", hint)
        self.args = (base, size, reason, hint)
        self.base, self.size, self.reason = base, size, reason


class InvalidAccessLength(ShardioError, ValueError):
    """An access of more bytes (`length`) than the whole address space has."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(
            f"an access of {length:#x} bytes is longer than the address space",
            f"access at most {limit:#x} bytes",
        )
        self.args = (length, limit)
        self.length, self.limit = length, limit


class DeviceNotFound(ShardioError, LookupError):
    """No range holds the whole access: its first `address` and its `length` in bytes.

    >>> DeviceNotFound(0x3F8, 2).length
    2
    """

    def __init__(self, address: int, length: int = 1) -> None:
        super().__init__(
            f"no registered range holds the {length} byte(s) at {int(address):#x}",
            "register a range that covers the whole access",
        )
        self.args = (address, length)
        self.address, self.length = address, length


class AccessRefused(ShardioError):
    """An access that its device could not answer: it raised, died with the access, or is quarantined. The
    guest sees all-ones, or a dropped write. `address`, `length` in bytes, `space` ("pio" or "mmio").
    """

    def __init__(self, address: int, length: int, space: str) -> None:
        super().__init__(
            f"the device at {space} {int(address):#x} did not answer an access of {length} byte(s)",
            "see its traceback in the log of its shard",
        )
        self.args = (address, length, space)
        self.address, self.length, self.space = address, length, space


class DeviceOverlap(ShardioError, ValueError):
    """A range that shares addresses with a registered one: the `requested` and the `existing` range, and the
    names of their devices where they have names (`device`, `holder`).

    >>> DeviceOverlap("PIO [0x3f8, 0x3ff]", "PIO [0x3f0, 0x3ff]").existing
    'PIO [0x3f0, 0x3ff]'
    >>> print(DeviceOverlap("PIO [0x3f8, 0x3ff]", "PIO [0x3f0, 0x3ff]", "com1", "log").message)
    device com1 at PIO [0x3f8, 0x3ff] overlaps device log at PIO [0x3f0, 0x3ff]
    """

    def __init__(self, requested: Any, existing: Any, device: str = "", holder: str = "") -> None:
        message = f"{requested} overlaps {existing}, which is registered"
        hint = "choose another base or deregister the other range first"
        if device and holder:
            message = f"device {device} at {requested} overlaps device {holder} at {existing}"
            hint = "move one, or make its size smaller"
        super().__init__(message, hint)
        self.args = (requested, existing, device, holder)
        self.requested, self.existing, self.device, self.holder = requested, existing, device, holder

    @property
    def ranges(self) -> tuple[Any, Any]:
        """Both ranges: the requested one, then the registered one."""
        return self.requested, self.existing


# --- devices and their buffers -----------------------------------------------------------------------------


class InvalidDevice(ShardioError, TypeError):
    """An object without handlers for the space ("pio" or "mmio") where it is put: `device_type`, `space`."""

    def __init__(self, device_type: str, space: str, hint: str = "") -> None:
        super().__init__(
            f"{device_type} cannot answer {space.upper()} accesses",
            hint
            or f"give it {space}_read and {space}_write, or read(offset, size) and "
            "write(offset, size, value)",
        )
        self.args = (device_type, space, self.hint)
        self.device_type, self.space = device_type, space


class HandlerMissing(ShardioError, NotImplementedError):
    """An access that the device has no handler for: `device_type` and the name of the missing `handler`."""

    def __init__(self, device_type: str, handler: str) -> None:
        register_form = handler.rpartition("_")[2]
        super().__init__(
            f"{device_type} has neither {handler} nor {register_form}",
            f"define one of the two, or deregister what must not be {register_form}",
        )
        self.args = (device_type, handler)
        self.device_type, self.handler = device_type, handler


class InvalidBuffer(ShardioError, TypeError):
    """A buffer that an access cannot use: `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "pass a C-contiguous buffer (bytearray or memoryview; writable for a read)")
        self.args = (reason,)
        self.reason = reason


class InvalidResult(ShardioError, TypeError):
    """What a device's `read` returned is no whole number: the `method` by name, its `offset` and `size`, and
    how the value shows (`shown`).

    >>> print(InvalidResult("Counter.read", 4, 2, "None"))
    Counter.read(0x4, 2) returned None; return an int (it is cut to the access's width)
    """

    def __init__(self, method: Any, offset: int, size: int, shown: str) -> None:
        name = method if isinstance(method, str) else getattr(method, "__qualname__", type(method).__name__)
        shown = shown[:80]
        super().__init__(f"{name}({offset:#x}, {size}) returned {shown}",
                         "return an int (it is cut to the access's width)")
        self.args = (name, offset, size, shown)
        self.method, self.offset, self.size, self.shown = name, offset, size, shown


class DeviceOptionError(ShardioError, ValueError):
    """An option value that a device cannot use: its class `device`, the `option`, the `value`, and the
    `hint`.
    """

    def __init__(self, device: str, option: str, value: object, hint: str) -> None:
        super().__init__(f"{device} cannot use {option} = {value!r}", hint)
        self.args = (device, option, value, hint)
        self.device, self.option, self.value = device, option, value


class DeviceStateError(ShardioError, ValueError):
    """A device's state of `size` bytes does not fit into the `limit` that its class declares."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"a state of {size} bytes does not fit into {limit}",
            "declare more bytes as `persistent` of the device's class",
        )
        self.args = (size, limit)
        self.size, self.limit = size, limit


# --- resources ---------------------------------------------------------------------------------------------


class InvalidResource(ShardioError, ValueError):
    """A resource or a constraint whose own values are impossible: `what` and `reason`."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.args = (what, reason)
        self.what, self.reason = what, reason


class ResourceUnavailable(ShardioError):
    """No free resource meets the `constraint`."""

    def __init__(self, constraint: Any) -> None:
        super().__init__(
            f"nothing free meets {constraint}",
            "widen its range, lower its size or alignment, or release other resources",
        )
        self.args = (constraint,)
        self.constraint = constraint


class ResourceConflict(ShardioError, ValueError):
    """A fixed resource (`requested`) that a holder has a part of, from `first` to `last` (`taken`)."""

    def __init__(self, requested: Any, first: int, last: int) -> None:
        super().__init__(
            f"{requested} needs {first:#x} to {last:#x}, which is taken",
            "choose another one or release the holder first",
        )
        self.args = (requested, first, last)
        self.requested, self.first, self.last = requested, first, last

    @property
    def taken(self) -> tuple[int, int]:
        """First and last number of the holder's allocation."""
        return self.first, self.last


class ResourceNotAllocated(ShardioError, LookupError):
    """A release of a `resource` that is not allocated exactly so."""

    def __init__(self, resource: Any) -> None:
        super().__init__(f"{resource} is not allocated", "release each resource once, as it was handed out")
        self.args = (resource,)
        self.resource = resource


# --- guest memory, images and configuration ----------------------------------------------------------------


class MemoryAccessError(ShardioError, ValueError):
    """A guest-physical access outside RAM: `address`, `length` in bytes, and the `regions` that there are."""

    def __init__(self, address: int, length: int, regions: Sequence[Any] = ()) -> None:
        known = ", ".join(str(region) for region in regions) or "none"
        super().__init__(f"guest memory has no {length:#x} bytes at {address:#x}", f"its regions: {known}")
        self.args = (address, length, tuple(regions))
        self.address, self.length, self.regions = address, length, tuple(regions)


class ImageError(ShardioError):
    """A guest image that cannot be loaded: `path` and `reason`."""

    def __init__(self, path: str | os.PathLike[str], reason: str, hint: str = "") -> None:
        super().__init__(f"image {os.fspath(path)}: {reason}", hint)
        self.args = (path, reason, hint)
        self.path, self.reason = os.fspath(path), reason


class ConfigError(ShardioError, ValueError):
    """A configuration that cannot be used: `where` (file, table and key) and `reason`."""

    def __init__(self, where: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{where}: {reason}", hint)
        self.args = (where, reason, hint)
        self.where, self.reason = where, reason


# --- fabric, processes and the machine ---------------------------------------------------------------------


class RecordingError(ShardioError, ValueError):
    """A recording that cannot be used: its file (`path`), and what is wrong with it (`what`)."""

    def __init__(self, path: str, what: str, hint: str = "") -> None:
        super().__init__(f"recording {path} {what}", hint)
        self.args = (path, what, hint)
        self.path, self.what = path, what


class ReplayDiffers(ShardioError, AssertionError):
    """A device went another way than in its recording: the device's name (`device`) and the first access that
    differs (`difference`, a `shardio.recording.Difference`).
    """

    def __init__(self, device: str, difference: Any) -> None:
        super().__init__(f"device {device} differs from its recording at {difference}")
        self.args = (device, difference)
        self.device, self.difference = device, difference


class FabricError(ShardioError):
    """The shared segment could not be made, mapped or used: `message` and `hint`."""


class LayoutMismatch(FabricError):
    """A peer built the segment with another layout: `field`, `found` and `expected` values."""

    def __init__(self, field: str, found: int, expected: int) -> None:
        super().__init__(
            f"the segment's {field} is {found:#x}, this build expects {expected:#x}",
            "run the same shardio build in every process",
        )
        self.args = (field, found, expected)
        self.field, self.found, self.expected = field, found, expected


class ShardError(ShardioError):
    """A shard could not start, died or reported a failure: its name `shard` and the `reason`."""

    def __init__(self, shard: str, reason: str, hint: str = "") -> None:
        super().__init__(f"shard {shard}: {reason}", hint)
        self.args = (shard, reason, hint)
        self.shard, self.reason = shard, reason


class VcpuError(ShardioError):
    """A vCPU stopped for a reason that ends the run: its index `vcpu` and the `reason`."""

    def __init__(self, vcpu: int, reason: str, hint: str = "") -> None:
        super().__init__(f"vCPU {vcpu}: {reason}", hint)
        self.args = (vcpu, reason, hint)
        self.vcpu, self.reason = vcpu, reason


class ExitHookFailed(VcpuError):
    """What the function given to `Machine.on_exit` raised, or returned that is no verdict: which `vcpu` was
    at which exit (`at_exit`), and the `reason`. What it raised is the error's `__cause__`.
    """

    def __init__(self, vcpu: int, at_exit: str, reason: str, hint: str = "") -> None:
        super().__init__(vcpu, f"the exit hook failed at {at_exit}: {reason}", hint)
        self.args = (vcpu, at_exit, reason, hint)
        self.at_exit, self.reason = at_exit, reason


class MachineError(ShardioError):
    """A machine was asked for what its state or its parts do not allow: `message` and `hint`."""


class DebuggerError(MachineError):
    """A debugger that cannot be served as asked: the `reason`."""

    def __init__(self, reason: str, hint: str = "see docs/how-to/gdb.md") -> None:
        super().__init__(reason, hint)
        self.args = (reason, hint)
        self.reason = reason


class UnknownRegister(MachineError, LookupError):
    """A register that a vCPU does not have: `register`, a name or an MSR's number, and the `known` names."""

    def __init__(self, register: str | int, known: Sequence[str] = ()) -> None:
        which = f"MSR {register:#x}" if isinstance(register, int) else f"register named {register!r}"
        hint = f"use one of {', '.join(known)}" if known else "see what its CPUID says"
        super().__init__(f"no {which}", hint)
        self.args = (register, tuple(known))
        self.register, self.known = register, tuple(known)


class DeviceFailed(MachineError):
    """What a device's own code raised in its shard: the `device`'s name, its class and file (`kind`), its
    `shard`, the `step` ("constructor", "attach()", "detach()", a method called), and the `reason`: type and
    text. The traceback in the shard is a note on the error (PEP 678).

    >>> print(DeviceFailed("lamp", "Lamp, lamp.py", "shard0", "constructor", "OSError: no socket"))
    device lamp (Lamp, lamp.py) in shard shard0, constructor: OSError: no socket
    """

    def __init__(
        self, device: str, kind: str, shard: str, step: str, reason: str, hint: str = ""
    ) -> None:
        which = f"{device} ({kind})" if kind else device
        super().__init__(f"device {which} in shard {shard}, {step}: {reason}", hint)
        self.args = (device, kind, shard, step, reason, hint)
        self.device, self.kind, self.shard, self.step, self.reason = device, kind, shard, step, reason


class RangeTaken(MachineError):
    """A device at addresses where something else answers, so that it would see no access: the `device`'s
    name, the range that was `requested`, and `who` answers there.
    """

    def __init__(self, device: str, requested: Any, who: str, hint: str = "") -> None:
        super().__init__(f"device {device} at {requested} would see no access: {who} answers there", hint)
        self.args = (device, requested, who, hint)
        self.device, self.requested, self.who = device, requested, who


class InterruptError(ShardioError):
    """An interrupt could not be configured or raised: its `line` (by name or number) and the `reason`."""

    def __init__(self, line: str | int, reason: str, hint: str = "") -> None:
        super().__init__(f"interrupt {line}: {reason}", hint)
        self.args = (line, reason, hint)
        self.line, self.reason = line, reason


class HostError(ShardioError):
    """The host lacks a prerequisite: `message` names it, `hint` tells how to get it."""


class KvmError(ShardioError):
    """A KVM system call failed: `ioctl` (its name in <linux/kvm.h>), `errno`, and the usual `hint`.

    >>> str(KvmError("KVM_CREATE_VM", 12, "close another VM"))
    'KVM_CREATE_VM failed with ENOMEM (Cannot allocate memory); close another VM'
    """

    def __init__(self, ioctl: str, errno: int, hint: str = "") -> None:
        symbol = _errno.errorcode.get(errno, f"errno {errno}")
        super().__init__(f"{ioctl} failed with {symbol} ({os.strerror(errno)})", hint)
        self.args = (ioctl, errno, hint)
        self.ioctl, self.errno = ioctl, errno
