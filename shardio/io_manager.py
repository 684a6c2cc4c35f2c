"""Dispatch of accesses to devices, in-process: a bus for each address space, and the calls through them.

This is what a shard runs inside, and all that a device's unit test needs: no KVM, process or ring. An access
that no single range holds is refused before any handler runs, and a refused read leaves the caller's buffer
as it was.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from shardio.address import Space
from shardio.bus import Bus, MmioBus, PioBus
from shardio.device import MmioHandlers, PioHandlers, view_handlers
from shardio.errors import InvalidBuffer
from shardio.range import MmioRange, PioRange

if TYPE_CHECKING:
    from shardio.resources import Resource  # a shard knows none, and need not wait for them at its start

# The distance of two addresses as plain ints, without the address types' checks: the bus has just made them.
_distance = int.__sub__


@runtime_checkable
class PioManager(Protocol):
    """The interface of whatever dispatches port accesses; others may implement it.

    >>> isinstance(IoManager(), PioManager)
    True

    Buffers are C-contiguous bytes-like objects of the access width; addresses may be plain `int`.
    """

    @abstractmethod
    def register_pio(self, range: PioRange, device: object) -> None:  # noqa: A002 (the field's name for it)
        """Let the device answer for the range. Raises `DeviceOverlap`, `InvalidDevice`."""

    @abstractmethod
    def deregister_pio(self, addr: int) -> tuple[PioRange, Any] | None:
        """Remove the range that holds `addr`; returns it with its device, or None."""

    @abstractmethod
    def pio_device(self, addr: int) -> tuple[PioRange, Any] | None:
        """The range that holds `addr` and its device, or None."""

    @abstractmethod
    def pio_read(self, addr: int, data: Any) -> None:
        """Fill the writable buffer `data` by a read at `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer`, `data` untouched.
        """

    @abstractmethod
    def pio_write(self, addr: int, data: Any) -> None:
        """Write the buffer `data` at `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer`, no handler called.
        """


@runtime_checkable
class MmioManager(Protocol):
    """The interface of whatever dispatches memory-mapped accesses; others may implement it.

    >>> isinstance(IoManager(), MmioManager)
    True

    Buffers are C-contiguous bytes-like objects of the access width; addresses may be plain `int`.
    """

    @abstractmethod
    def register_mmio(self, range: MmioRange, device: object) -> None:  # noqa: A002
        """Let the device answer for the range. Raises `DeviceOverlap`, `InvalidDevice`."""

    @abstractmethod
    def deregister_mmio(self, addr: int) -> tuple[MmioRange, Any] | None:
        """Remove the range that holds `addr`; returns it with its device, or None."""

    @abstractmethod
    def mmio_device(self, addr: int) -> tuple[MmioRange, Any] | None:
        """The range that holds `addr` and its device, or None."""

    @abstractmethod
    def mmio_read(self, addr: int, data: Any) -> None:
        """Fill the writable buffer `data` by a read at `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer`, `data` untouched.
        """

    @abstractmethod
    def mmio_write(self, addr: int, data: Any) -> None:
        """Write the buffer `data` at `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer`, no handler called.
        """


class IoManager(PioManager, MmioManager):
    """Both buses of one machine or one shard.

    A device is any object with the handlers of the space or with the register form (`shardio.device`); one
    object may sit at several ranges of both spaces.

    >>> class Latch:
    ...     value = 0
    ...     def read(self, offset, size):
    ...         return self.value
    ...     def write(self, offset, size, value):
    ...         self.value = value
    >>> manager = IoManager()
    >>> manager.register_pio(PioRange(0x80, 1), Latch())
    >>> manager.pio_write(0x80, b"\\x2a")
    >>> data = bytearray(1)
    >>> manager.pio_read(0x80, data)
    >>> data[0]
    42
    >>> manager.pio_read(0x81, data)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    shardio.errors.DeviceNotFound: no registered range holds the 1 byte(s) at 0x81; ...
    """

    def __init__(self) -> None:
        # Each entry holds what is called and what was registered: the same object unless that has no view
        # form.
        self._pio: PioBus[tuple[PioHandlers, Any]] = PioBus()
        self._mmio: MmioBus[tuple[MmioHandlers, Any]] = MmioBus()

    # --- ports

    def register_pio(self, range: PioRange, device: object) -> None:  # noqa: A002
        """Let the device answer for the range.

        Raises `DeviceOverlap` with both ranges, `InvalidDevice` for an object without port handlers,
        `InvalidRange` for a range of the other space.
        """
        self._pio.register(range, (view_handlers(device, Space.PIO), device))

    def deregister_pio(self, addr: int) -> tuple[PioRange, Any] | None:
        """Remove the range that holds `addr` (its base or any other); returns it with its device, or None."""
        return _registered(self._pio.deregister(addr))

    def pio_device(self, addr: int) -> tuple[PioRange, Any] | None:
        """The range that holds `addr` and its device, or None."""
        return _registered(self._pio.device(addr))

    def pio_devices(self) -> Iterator[tuple[PioRange, Any]]:
        """Every port range with its device, by ascending address."""
        return ((range_, device) for range_, (_, device) in self._pio)

    def move_pio(self, addr: int, new_base: int) -> PioRange:
        """Move the range that holds `addr` to `new_base`, as `Bus.move` does; returns the new range."""
        return self._pio.move(addr, new_base)

    def pio_read(self, addr: int, data: Any) -> None:
        """Fill the writable buffer `data` (1, 2 or 4 bytes from a vCPU) by a read of the port `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer` with `data`
        untouched, and whatever the handler raises.
        """
        view = _writable(data)
        range_, (handlers, _) = self._pio.check_access(addr, len(view))
        handlers.pio_read(range_.base, _distance(int(addr), range_.base), view)

    def pio_write(self, addr: int, data: Any) -> None:
        """Write the buffer `data` (1, 2 or 4 bytes from a vCPU) to the port `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer` with no handler
        called, and whatever the handler raises.
        """
        view = _readable(data)
        range_, (handlers, _) = self._pio.check_access(addr, len(view))
        handlers.pio_write(range_.base, _distance(int(addr), range_.base), view)

    # --- memory-mapped registers

    def register_mmio(self, range: MmioRange, device: object) -> None:  # noqa: A002
        """Let the device answer for the range.

        Raises `DeviceOverlap` with both ranges, `InvalidDevice` for an object without MMIO handlers,
        `InvalidRange` for a range of the other space.
        """
        self._mmio.register(range, (view_handlers(device, Space.MMIO), device))

    def deregister_mmio(self, addr: int) -> tuple[MmioRange, Any] | None:
        """Remove the range that holds `addr` (its base or any other); returns it with its device, or None."""
        return _registered(self._mmio.deregister(addr))

    def mmio_device(self, addr: int) -> tuple[MmioRange, Any] | None:
        """The range that holds `addr` and its device, or None."""
        return _registered(self._mmio.device(addr))

    def mmio_devices(self) -> Iterator[tuple[MmioRange, Any]]:
        """Every MMIO range with its device, by ascending address."""
        return ((range_, device) for range_, (_, device) in self._mmio)

    def move_mmio(self, addr: int, new_base: int) -> MmioRange:
        """Move the range that holds `addr` to `new_base`, as `Bus.move` does; returns the new range."""
        return self._mmio.move(addr, new_base)

    def mmio_read(self, addr: int, data: Any) -> None:
        """Fill the writable buffer `data` (1, 2, 4 or 8 bytes from a vCPU) by a read at `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer` with `data`
        untouched, and whatever the handler raises.
        """
        view = _writable(data)
        range_, (handlers, _) = self._mmio.check_access(addr, len(view))
        handlers.mmio_read(range_.base, _distance(int(addr), range_.base), view)

    def mmio_write(self, addr: int, data: Any) -> None:
        """Write the buffer `data` (1, 2, 4 or 8 bytes from a vCPU) at `addr`.

        Raises `DeviceNotFound`, `InvalidRange`, `InvalidAccessLength` or `InvalidBuffer` with no handler
        called, and whatever the handler raises.
        """
        view = _readable(data)
        range_, (handlers, _) = self._mmio.check_access(addr, len(view))
        handlers.mmio_write(range_.base, _distance(int(addr), range_.base), view)

    # --- resources

    def register_resources(self, device: object, resources: Iterable[Resource]) -> None:
        """Register the device at every PIO and MMIO range among its resources: all of them, or none.

        Resources of other kinds are passed over. Raises what `register_pio` and `register_mmio` raise.
        """
        self._register_all(device, _ranges(resources))

    def register_pio_resources(self, device: object, resources: Iterable[Resource]) -> None:
        """Register the device at every PIO range among its resources: all of them, or none."""
        self._register_all(device, [each for each in _ranges(resources) if isinstance(each, PioRange)])

    def register_mmio_resources(self, device: object, resources: Iterable[Resource]) -> None:
        """Register the device at every MMIO range among its resources: all of them, or none."""
        self._register_all(device, [each for each in _ranges(resources) if isinstance(each, MmioRange)])

    def _register_all(self, device: object, ranges: Iterable[PioRange | MmioRange]) -> None:
        done: list[PioRange | MmioRange] = []
        try:
            for range_ in ranges:
                if isinstance(range_, PioRange):
                    self.register_pio(range_, device)
                else:
                    self.register_mmio(range_, device)
                done.append(range_)
        except BaseException:
            for range_ in done:
                self._deregister(range_)
            raise

    def deregister_resources(self, resources: Iterable[Resource]) -> int:
        """Deregister every PIO and MMIO range among the resources; returns how many ranges went.

        A range that is not registered with exactly that base and size, because it moved or was never there,
        stays.
        """
        return sum(self._deregister(range_) for range_ in _ranges(resources))

    def _deregister(self, range_: PioRange | MmioRange) -> bool:
        bus: Bus[Any, Any] = self._pio if isinstance(range_, PioRange) else self._mmio
        found = bus.device(range_.base)
        return found is not None and found[0] == range_ and bus.deregister(range_.base) is not None


def _registered(entry: tuple[Any, tuple[Any, Any]] | None) -> tuple[Any, Any] | None:
    return None if entry is None else (entry[0], entry[1][1])


def _ranges(resources: Iterable[Resource]) -> list[PioRange | MmioRange]:
    from shardio.resources import MmioAddressRange, PioAddressRange

    return [r.range for r in resources if isinstance(r, PioAddressRange | MmioAddressRange)]


def _bytes_view(data: Any) -> memoryview:
    if type(data) is bytearray:  # the usual buffer, spared the questions below
        return memoryview(data)
    try:
        view = memoryview(data)
        if not view.nbytes:  # has no shape that could be cast; the bus refuses it
            return memoryview(bytearray())
        return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")
    except (BufferError, TypeError, ValueError) as error:  # ValueError: it is released or closed
        raise InvalidBuffer(f"a {type(data).__name__} cannot carry an access: {error}") from None


def _writable(data: Any) -> memoryview:
    view = _bytes_view(data)
    if view.readonly:
        raise InvalidBuffer(f"a read cannot fill a read-only {type(data).__name__}")
    return view


def _readable(data: Any) -> memoryview:
    return _bytes_view(data).toreadonly()
