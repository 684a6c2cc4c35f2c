"""What a device is: the handlers that answer accesses, and what its owner gives it.

A device is a plain object. It answers in one of three forms:

* **view form**, the contract that every device can be called through: `pio_read(base, offset, data)` and so
  on, where `data` is a `memoryview` of the access width, writable for reads and read-only for writes;
* **register form**: `read(offset, size) -> int` and `write(offset, size, value)`, little-endian, the same for
  both spaces. The base classes below turn a view-form call into it, so a device with registers writes nothing
  else; a shard calls it directly and prefers it when it is present;
* **native**: `native_handler`, the address of a C function with the handler type of `native/owner.h`, and
  `native_context`, the word that it is called with. Only a shard uses it, and prefers it to the other two; a
  bare `IoManager` calls the Python forms.

Optional attributes: `pio_size`/`mmio_size` (bytes, the size of the range when none is named), `attach(host)`
before the first access, `detach()` after the last, `dma = True` to be given guest memory; `persistent`
(bytes, or a static method that takes its options and gives them) for a state that a successor of its owner
finds again, `persistent_area` (likewise) for plain memory beside it, `state_type` where `snapshot()` gives
that state and nothing else is to be done; `capabilities`, the names of what it needs of
capabilities(7), or a static method that takes its options and gives them; `further_ranges`, a static method
that takes its options and gives the ranges that it has beside those that it is added with;
`handlers_for(range)`, an object that answers a range of it by itself; `message_modes`, the delivery modes
that its messages may have beside fixed and lowest priority (`shardio.interrupt.config.MESSAGE_MODES`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from shardio.address import MmioAddress, PioAddress, Space
from shardio.errors import HandlerMissing, InvalidDevice, InvalidResult, ShardioError

if TYPE_CHECKING:
    import asyncio  # tens of milliseconds that a device's unit test need not pay
    import subprocess

    from shardio.range import MmioRange, PioRange


def read_registers(device: object, handler: str, offset: int, data: memoryview) -> None:
    """Fill `data` from the device's `read(offset, size)`, little-endian, truncated to the width of `data`.

    Raises `HandlerMissing` naming `handler` where the device has no `read`, `InvalidResult` for what is no
    whole number.
    """
    read = getattr(device, "read", None)
    if read is None:
        raise HandlerMissing(type(device).__name__, handler)
    size = len(data)
    result = read(offset, size)
    try:
        value = operator.index(result)  # as a shard takes it: any whole number
    except TypeError:
        raise InvalidResult(read, offset, size, repr(result)) from None
    data[:] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def write_registers(device: object, handler: str, offset: int, data: memoryview) -> None:
    """Hand `data` to the device's `write(offset, size, value)`, little-endian.

    Raises `HandlerMissing` naming `handler` where the device has no `write`.
    """
    write = getattr(device, "write", None)
    if write is None:
        raise HandlerMissing(type(device).__name__, handler)
    write(offset, len(data), int.from_bytes(data, "little"))


@runtime_checkable
class PioHandlers(Protocol):
    """Anything that answers port accesses in view form."""

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """Fill `data` for a read `offset` bytes into the range at `base`."""

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """Take `data`, written `offset` bytes into the range at `base`."""


@runtime_checkable
class MmioHandlers(Protocol):
    """Anything that answers memory-mapped accesses in view form."""

    def mmio_read(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """Fill `data` for a read `offset` bytes into the range at `base`."""

    def mmio_write(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """Take `data`, written `offset` bytes into the range at `base`."""


class _PioFromRegisters:
    """The view form of port accesses, for a device that has the register form."""

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """Fill `data` (1, 2 or 4 bytes) for a read of the port `base + offset`; by default from `read`."""
        read_registers(self, "pio_read", offset, data)

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """Take `data` (1, 2 or 4 bytes), written to the port `base + offset`; by default to `write`."""
        write_registers(self, "pio_write", offset, data)


class _MmioFromRegisters:
    """The view form of memory-mapped accesses, for a device that has the register form."""

    def mmio_read(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """Fill `data` (1, 2, 4 or 8 bytes) for a read at `base + offset`; by default from `read`."""
        read_registers(self, "mmio_read", offset, data)

    def mmio_write(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """Take `data` (1, 2, 4 or 8 bytes), written at `base + offset`; by default to `write`."""
        write_registers(self, "mmio_write", offset, data)


class DevicePio(_PioFromRegisters):
    """A port device with no state that an access changes: any shard may hold a replica and answer for it.

    >>> class Version(DevicePio):
    ...     def pio_read(self, base, offset, data):
    ...         data[:] = b"\\x17" * len(data)
    >>> answer = bytearray(1)
    >>> Version().pio_read(PioAddress(0x510), 0, memoryview(answer))
    >>> answer.hex()
    '17'
    """


class DeviceMmio(_MmioFromRegisters):
    """A memory-mapped device with no state that an access changes: any shard may hold a replica.

    >>> class Magic(DeviceMmio):
    ...     def read(self, offset, size):
    ...         return 0x7472_6976
    >>> answer = bytearray(4)
    >>> Magic().mmio_read(MmioAddress(0xD000_0000), 0, memoryview(answer))
    >>> bytes(answer)
    b'virt'
    """


class MutDevicePio(_PioFromRegisters):
    """A port device whose accesses change state: one shard owns it and its calls are serialised.

    >>> class Scratch(MutDevicePio):
    ...     value = 0
    ...     def read(self, offset, size):
    ...         return self.value
    ...     def write(self, offset, size, value):
    ...         self.value = value
    >>> scratch = Scratch()
    >>> scratch.pio_write(PioAddress(0x80), 0, memoryview(b"\\x34\\x12"))
    >>> hex(scratch.value)
    '0x1234'
    """


class MutDeviceMmio(_MmioFromRegisters):
    """A memory-mapped device whose accesses change state: one shard owns it and its calls are serialised.

    >>> class Counter(MutDeviceMmio):
    ...     value = 0
    ...     def write(self, offset, size, value):
    ...         self.value += value
    >>> counter = Counter()
    >>> counter.mmio_write(MmioAddress(0xD000_0000), 0, memoryview(b"\\x02\\x00\\x00\\x00"))
    >>> counter.value
    2
    """


class HandlerForm(StrEnum):
    """How a device's handler wants to be called; see the module's first lines."""

    VIEW = "view"
    REGISTER = "register"
    NATIVE = "native"


_DEFAULTS = {
    "pio_read": _PioFromRegisters.pio_read,
    "pio_write": _PioFromRegisters.pio_write,
    "mmio_read": _MmioFromRegisters.mmio_read,
    "mmio_write": _MmioFromRegisters.mmio_write,
}


def handler_form(device: object, space: Space | str, *, write: bool) -> HandlerForm | None:
    """The form in which a shard calls the device for reads (or writes) of a space; None without a handler.

    Native comes before register, register before view. The view handlers that the base classes provide do not
    count: they lead to the register form.

    >>> handler_form(MutDevicePio(), "pio", write=True) is None
    True
    """
    if getattr(device, "native_handler", 0):
        return HandlerForm.NATIVE
    direction = "write" if write else "read"
    if callable(getattr(device, direction, None)):
        return HandlerForm.REGISTER
    name = f"{Space(space)}_{direction}"
    handler = getattr(device, name, None)
    if callable(handler) and getattr(handler, "__func__", handler) is not _DEFAULTS[name]:
        return HandlerForm.VIEW
    return None


def answers(device: object, space: Space | str) -> bool:
    """Whether the device has a handler, for reads or for writes, in that space."""
    return any(handler_form(device, space, write=write) is not None for write in (False, True))


def view_handlers(device: object, space: Space | str) -> Any:
    """An object with the space's view handlers that answers as the device does: the device, if it has them.

    For one that derives from no base class and lacks a view handler, that handler is made from its register
    form. Raises `InvalidDevice` where it has no handler in any form, and for a class instead of an
    instance of it.

    >>> class Id:
    ...     def read(self, offset, size):
    ...         return 0x55AA
    >>> answer = bytearray(2)
    >>> view_handlers(Id(), "pio").pio_read(PioAddress(0x510), 0, memoryview(answer))
    >>> answer.hex()
    'aa55'
    """
    space = Space(space)
    if isinstance(device, type):
        raise InvalidDevice(f"the class {device.__name__}", space, "register an instance of it")
    names = (f"{space}_read", f"{space}_write")
    if all(callable(getattr(device, name, None)) for name in names):
        return device
    if not answers(device, space):
        raise InvalidDevice(type(device).__name__, space)
    return SimpleNamespace(**{
        name: getattr(device, name, None) or _from_registers(device, name, call)
        for name, call in zip(names, (read_registers, write_registers), strict=True)
    })


def _from_registers(device: object, name: str,
                    call: Callable[[object, str, int, memoryview], None]) -> Callable[..., None]:
    def handler(_base: int, offset: int, data: memoryview) -> None:
        call(device, name, offset, data)

    return handler


def is_mutable(device: object, space: Space | str) -> bool:
    """Whether accesses in that space may change the device's state, so that it has exactly one owner.

    Takes the object or its class. Only what derives from `DevicePio` (for ports) or `DeviceMmio` (for memory)
    and from no `Mut` class is immutable.

    >>> is_mutable(DevicePio(), "pio"), is_mutable(MutDevicePio(), "pio"), is_mutable(object(), "pio")
    (False, True, True)
    """
    kind = device if isinstance(device, type) else type(device)
    shared = DevicePio if Space(space) is Space.PIO else DeviceMmio
    return not issubclass(kind, shared) or issubclass(kind, MutDevicePio | MutDeviceMmio)


def declared_capabilities(factory: object, options: Mapping[str, Any]) -> tuple[str, ...]:
    """What a device of that class with these options declares as `capabilities`.

    >>> class Tap(MutDeviceMmio):
    ...     capabilities = ("CAP_NET_ADMIN",)
    >>> declared_capabilities(Tap, {})
    ('CAP_NET_ADMIN',)
    """
    declared = getattr(factory, "capabilities", ())
    try:
        return tuple(declared(**options) if callable(declared) else declared)
    except (TypeError, ValueError, ShardioError):  # options that its constructor refuses, which says why
        return ()


def declared_memory(factory: object, options: Mapping[str, Any]) -> tuple[int, int]:
    """What a device of that class with these options declares as `persistent` and as `persistent_area`.

    >>> class Latch(MutDevicePio):
    ...     persistent = 64
    >>> declared_memory(Latch, {})
    (64, 0)
    """
    declared = (getattr(factory, name, 0) for name in ("persistent", "persistent_area"))
    try:
        state, area = (int(each(**options) if callable(each) else each) for each in declared)
    except (TypeError, ValueError, ShardioError):  # options that its constructor refuses, which says why
        return 0, 0
    return state, area


class HostTrigger(Protocol):
    """What a device needs of `shardio.interrupt.Trigger`."""

    def trigger(self) -> None:
        """Raise the interrupt once."""


class HostMemory(Protocol):
    """What a device needs of `shardio.memory.GuestMemory`. Raises `MemoryAccessError` outside RAM."""

    def read(self, addr: int, length: int) -> bytes:
        """A copy of `length` bytes at the guest-physical address."""

    def write(self, addr: int, data: Any) -> None:
        """Store a bytes-like object at the guest-physical address."""

    def view(self, addr: int, length: int) -> memoryview:
        """A writable view of guest memory, without a copy."""


class HostPersistent(Protocol):
    """Memory of a device that outlives its owner: see `shardio.persistent`."""

    @property
    def state(self) -> bytes | None:
        """What a predecessor saved last; None where nothing was."""

    @property
    def area(self) -> memoryview:
        """As many bytes as its class declares as `persistent_area`: as a predecessor left them, or zeros."""

    def save(self, state: bytes) -> None:
        """Keep `state`, from the end of the access in hand on. Raises `DeviceStateError` when it is too long.
        """


class DeviceHost(Protocol):
    """What the owner of a device gives it in `attach(host)`."""

    @property
    def name(self) -> str:
        """The device's name, for logs."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the shard: readers, timers, tasks."""

    @property
    def trigger(self) -> HostTrigger | None:
        """The device's interrupt, or None when none was asked for."""

    @property
    def interrupts(self) -> Any:
        """Where the device asks for more lines, messages and groups: `shardio.interrupt.InterruptManager`."""

    @property
    def ranges(self) -> Sequence[PioRange | MmioRange]:
        """Where the device answers; empty where its owner does not say."""

    @property
    def passed_fds(self) -> Mapping[int, int]:
        """The descriptors that the VMM handed over for this device: its number for each, and the number
        here.
        """

    @property
    def memory(self) -> HostMemory | None:
        """Guest RAM, for devices that declare `dma = True`; None for all others."""

    @property
    def persistent(self) -> HostPersistent | None:
        """The device's memory, for those that declare `persistent` (bytes); None for all others."""

    @property
    def doorbells(self) -> Sequence[Any]:
        """The device's doorbells in force, a `shardio.interrupt.DoorbellSet` for each of its ranges; empty
        during `attach`.
        """

    def spawn(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a helper process, as `subprocess.Popen(argv, **options)` does, that does not outlive the
        shard: see `shardio.shard.helper`. Raises `MachineError`, `OSError`.
        """

    def exit(self, status: int) -> None:
        """Ask the VMM to stop the machine with this exit status (0 to 255)."""

    def reset(self) -> None:
        """Ask the VMM to reset the machine."""
