"""A port: one vCPU's end of a fabric, for whatever process runs that vCPU.

Facts. The process may be killed inside an access: then its request is on its way, or its posted write may
have been published. What is in flight is named by the journal of the core's `struct sio_client`.

Consequences. The client lives in a sealed memfd that the dispatcher maps too. It reads there what the port
waits for, for whom, and how much it has posted, and finishes what a dead user left (`native/port.h`). A port
can be handed to a `multiprocessing.Process` of any start method, or by descriptors to any other process; it
is opened at its first access, by the process that makes that access, and has one user at a time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Never, Self

from shardio._core import ffi, lib
from shardio.address import MmioAddress, PioAddress, Space
from shardio.closing import Closing
from shardio.errors import AccessRefused, DeviceNotFound, FabricError, InvalidAddress, InvalidBuffer
from shardio.fabric import barrier
from shardio.fabric.calls import Calls, Outcome
from shardio.fabric.port_record import SAMPLE_EVERY, PortRecord
from shardio.fabric.port_user import PortUser
from shardio.fabric.segment import Fabric
from shardio.range import MmioRange, PioRange

_ports: weakref.WeakSet[Port] = weakref.WeakSet()


class Port(Calls, Closing):
    """One vCPU's accesses, one at a time: a `PioManager` and a `MmioManager`, and quicker register calls.

    `doorbells`: the eventfd of each shard, rung when that shard sleeps; without one a sleeping shard finds
    the request at its next periodic look. Another thread's access meanwhile is a `FabricError`, as is one
    after `close`, after the fabric was closed, or while another process uses the port.

    To a `multiprocessing.Process` it goes as an argument. To a `subprocess` it goes as `text`, with
    `pass_fds=port.descriptors`; there `Port.from_text` makes it again.
    """

    def __init__(
        self,
        fabric: Fabric,
        vcpu: int,
        doorbells: Mapping[int, int] | None = None,
        *,
        sample_every: int = SAMPLE_EVERY,
        record: PortRecord | None = None,
    ) -> None:
        """`record`: the memory that the dispatcher watches; without one the port makes its own, of which one
        access in `sample_every` (a power of two) is timed.
        """
        self.fabric = fabric
        self.vcpu = vcpu
        self._segment = fabric.view  # mapped for as long as this has pointers into it
        self._record = record or PortRecord.create(fabric, vcpu, sample_every)
        self._doorbells = dict(doorbells or {})
        self._owned: list[Closing | PortRecord] = [] if record else [self._record]
        self._owned_fds: list[int] = []
        self._user = PortUser(self._record, self._segment, vcpu)
        self._mine = False  # this object has made this process the user
        self._opening = threading.Lock()
        self._closed = False
        fabric.when_closed(self._lose_fabric)
        _ports.add(self)

    # ---- as IoManager has them ----

    def pio_device(self, addr: int) -> tuple[PioRange, int] | None:
        """The range that holds the port `addr` and its index in the address map, or None."""
        found = self._lookup(lib.SIO_PIO, addr, 1)
        return found and (PioRange(*found[:2]), found[2])

    def mmio_device(self, addr: int) -> tuple[MmioRange, int] | None:
        """The range that holds `addr` and its index in the address map, or None."""
        found = self._lookup(lib.SIO_MMIO, addr, 1)
        return found and (MmioRange(*found[:2]), found[2])

    def register_pio(self, range: PioRange, device: object) -> None:  # noqa: A002
        """Refused with a `FabricError`: devices live in shards, not in a vCPU's process."""
        raise _no_registration()

    def register_mmio(self, range: MmioRange, device: object) -> None:  # noqa: A002
        """Refused with a `FabricError`: devices live in shards, not in a vCPU's process."""
        raise _no_registration()

    def deregister_pio(self, addr: int) -> None:
        """Refused with a `FabricError`: see `Dispatcher.remove`."""
        raise _no_registration()

    def deregister_mmio(self, addr: int) -> None:
        """Refused with a `FabricError`: see `Dispatcher.remove`."""
        raise _no_registration()

    # ---- its waits ----

    def abort(self) -> None:
        """Make a wait in progress (in another thread), and every later one, end with `Outcome.ABORTED`."""
        lib.sio_port_stop(self._record.view, self._segment, self.vcpu)

    # ---- to another process ----

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptors that another process needs: for `subprocess`'s `pass_fds`, beside `text`."""
        return (self.fabric.fd, self._record.fd, *self._doorbells.values())

    @property
    def text(self) -> str:
        """What `from_text` makes the port of where the descriptors have the same numbers (`pass_fds`)."""
        bells = (f"{shard}={fd}" for shard, fd in self._doorbells.items())
        return ",".join((str(self.vcpu), str(self.fabric.fd), str(self._record.fd), *bells))

    def send(self, connection: socket.socket) -> None:
        """Send the port to a process that inherited nothing, over a connected AF_UNIX socket: the program on
        the other end, of whatever language, opens it with `shardio_open_from` (`shardio.get_include`).
        Raises OSError.
        """
        bells = (f"{shard}={place}" for place, shard in enumerate(self._doorbells, 2))
        text = ",".join((str(self.vcpu), "0", "1", *bells))  # descriptors by their place in the message
        socket.send_fds(connection, [text.encode()], self.descriptors)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The port that another process described by `text`; the descriptors become this object's, unless it
        raises.

        Raises `FabricError` where they are not a port's.
        """
        try:
            vcpu, fabric, record, *bells = text.split(",")
            pairs = [bell.split("=") for bell in bells]
            doorbells = {int(shard): int(fd) for shard, fd in pairs}
            return cls._from_descriptors(int(vcpu), int(fabric), int(record), doorbells)
        except (ValueError, OSError):
            hint = "pass what Port.text gave, and pass_fds=port.descriptors"
            raise FabricError(f"{text!r} describes no port", hint) from None

    @classmethod
    def _from_descriptors(
        cls, vcpu: int, fabric_fd: int, record_fd: int, doorbells: Mapping[int, int]
    ) -> Self:
        with contextlib.ExitStack() as undo:
            fabric = undo.enter_context(Fabric.attach(fabric_fd))
            fabric.checked("vCPU", vcpu)
            for fd in (record_fd, *doorbells.values()):
                os.fstat(fd)
            port = cls(fabric, vcpu, doorbells, record=PortRecord(os.dup(record_fd)))
            undo.pop_all()
        os.close(fabric_fd)
        os.close(record_fd)
        port._owned = [fabric, port._record]
        port._owned_fds = list(doorbells.values())
        return port

    def __reduce__(self) -> tuple[Any, ...]:
        """For `multiprocessing`, whatever its start method: the descriptors travel beside the pickle."""
        from multiprocessing.reduction import DupFd

        bells = tuple((shard, DupFd(fd)) for shard, fd in self._doorbells.items())
        return _rebuilt, (self.vcpu, DupFd(self.fabric.fd), DupFd(self._record.fd), bells)

    # ---- its life ----

    def close(self) -> None:
        """Give the port up: another process may use it. Idempotent; an access in another thread is a
        `FabricError`.
        """
        self._begin()
        try:
            if self._closed:
                return
            self._closed = True
            self._release()
            for owned in self._owned:
                owned.close()
            for fd in self._owned_fds:
                os.close(fd)
            self._owned, self._owned_fds = [], []
        finally:
            self._end()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) is False:
            with contextlib.suppress(Exception):  # at the interpreter's end, modules may be gone
                self.close()

    def _release(self) -> None:
        self._attach(0)
        if self._mine:
            self._mine = False
            self._user.give_up()

    def _lose_fabric(self) -> None:
        self._attach(0)  # the next access asks for the fabric, and raises

    def _open(self) -> None:
        """Makes this process the user, unless it is, and has the core ask the client from now on. Raises
        `FabricError`.
        """
        with self._opening:
            _ = self.fabric.view  # raises once the fabric is closed
            if not self._mine:
                self._take()
            self._attach(int(ffi.cast("uintptr_t", self._record.client)))
        if self.fabric.closed:  # meanwhile
            self._lose_fabric()
            _ = self.fabric.view

    def _take(self) -> None:
        if self._closed:
            raise FabricError(f"the port of vCPU {self.vcpu} is closed", "ask the dispatcher for it again")
        self._user.take(self._held_here)
        barrier.register(self._segment)
        lib.sio_port_attach(self._record.view, self._segment)
        for shard, fd in self._doorbells.items():
            self._record.client.doorbell[shard] = fd
        self._mine = True

    def _held_here(self) -> bool:
        here = os.fstat(self._record.fd)
        users = (port for port in tuple(_ports) if port._mine)
        return any(os.path.samestat(here, os.fstat(port._record.fd)) for port in users)

    # ---- its parts ----

    @property
    def view(self) -> Any:
        """The core's `struct sio_client *`; the port is this process's from now on."""
        self._open()
        return self._record.client

    # ---- its errors, raised for `Calls` ----

    def _busy(self) -> Never:
        raise FabricError(
            f"the port of vCPU {self.vcpu} is at work", "use it from one thread, not from its handlers"
        )

    def _invalid(self, size: int) -> Never:
        raise FabricError(
            f"no access of {size} bytes", "widths are 1, 2, 4 and 8 bytes; space is 0 (PIO) or 1 (MMIO)"
        )

    def _no_address(self, address: int) -> Never:
        raise InvalidAddress(address, "mmio", MmioAddress.LAST)

    def _no_string(self, length: int, size: int) -> Never:
        raise FabricError(
            f"no string of {length} bytes, {size} at a time",
            f"at most {lib.SIO_SIDE_BYTES} bytes, widths 1, 2, 4, 8; space is 0 (PIO) or 1 (MMIO)",
        )

    def _refuse(self, data: Any, writable: bool) -> Never:
        """Raises `InvalidBuffer` for what has no bytes for an access to read, or to fill."""
        try:
            read_only = memoryview(data).cast("B").readonly and writable
        except (BufferError, TypeError, ValueError) as error:
            raise InvalidBuffer(f"a {type(data).__name__} cannot carry an access: {error}") from None
        if read_only:
            raise InvalidBuffer(f"a read cannot fill a read-only {type(data).__name__}")
        raise InvalidBuffer(f"a {type(data).__name__} cannot carry an access")

    def _unanswered(self, outcome: Outcome, space: int, address: int, size: int) -> Never:
        if outcome is Outcome.ABORTED:
            raise FabricError("the dispatcher is closed", "end the vCPU's loop when this is raised")
        if self._lookup(space, address, size) is None:
            raise DeviceNotFound(address, size)
        raise AccessRefused(address, size, Space.MMIO if space == lib.SIO_MMIO else Space.PIO)

    def _lookup(self, space: int, address: int, size: int) -> tuple[int, int, int] | None:
        """(base, size, index) of the range that holds all of the access."""
        limit = (MmioAddress if space == lib.SIO_MMIO else PioAddress).LAST
        if not 0 <= address <= limit + 1 - size:
            return None
        entry = ffi.new("struct sio_map_entry *")
        if not lib.sio_map_lookup(self.fabric.view, space, address, address + size - 1, entry):
            return None
        return entry.base, entry.last - entry.base + 1, entry.range


def _no_registration() -> FabricError:
    return FabricError("a port registers no devices", "use Dispatcher.add and Dispatcher.remove")


def _rebuilt(vcpu: int, fabric: Any, record: Any, bells: Sequence[tuple[int, Any]]) -> Port:
    doorbells = {shard: fd.detach() for shard, fd in bells}
    return Port._from_descriptors(vcpu, fabric.detach(), record.detach(), doorbells)


def _forked() -> None:
    """A fork of a port's user is not its user; it may become that where the port is free."""
    for port in tuple(_ports):
        port._attach(0)
        port._end()
        port._mine = False
        port._opening = threading.Lock()


os.register_at_fork(after_in_child=_forked)
