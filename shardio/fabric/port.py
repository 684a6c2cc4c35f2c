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
import mmap
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Self

from shardio._core import ffi, lib
from shardio.address import MmioAddress, PioAddress, Space
from shardio.closing import Closing
from shardio.errors import AccessRefused, DeviceNotFound, FabricError, InvalidBuffer
from shardio.fabric import barrier
from shardio.fabric.alone import Alone
from shardio.fabric.segment import Fabric
from shardio.fabric.shared import keeps_its_size, shared_memory
from shardio.range import MmioRange, PioRange

SAMPLE_EVERY = 64
"""A port times the first accesses and then one in this many."""
SETTLE_S = 2.0
"""How long a new user of a port waits for the shard that still has the request of a dead one."""

_PIO, _MMIO = lib.SIO_PIO, lib.SIO_MMIO
_ports: weakref.WeakSet[Port] = weakref.WeakSet()


class Outcome(IntEnum):
    """How an access ended."""

    ANSWERED = lib.SIO_ANSWERED
    NOT_ANSWERED = lib.SIO_NOT_ANSWERED
    ABORTED = lib.SIO_ABORTED


def set_up(client: Any, fabric: Fabric, vcpu: int, doorbells: Mapping[int, int], sample_every: int) -> None:
    """Initialise a `struct sio_client`: doorbell eventfds by shard, one access in `sample_every` (a power of
    two) timed. Raises `FabricError` where the fabric's ends count on membarrier and this process may not.
    """
    segment = fabric.view
    lib.sio_client_init(client, segment, fabric.checked("vCPU", vcpu))
    client.sample_mask = sample_every - 1
    barrier.register(segment)
    client.waiter.membarrier = segment.membarrier
    for shard, fd in doorbells.items():
        client.doorbell[shard] = fd


class PortRecord:
    """The shared memory of one port: a `struct sio_port` in a memfd. `view`: the struct; `fd`: the memfd."""

    def __init__(self, fd: int) -> None:
        """Maps the memfd, whose descriptor becomes this object's. Raises `FabricError` where it is no
        port's.
        """
        self.fd = fd
        size = ffi.sizeof("struct sio_port")
        try:
            if not keeps_its_size(fd) or os.fstat(fd).st_size < size:
                raise OSError("it has not the size of a port, sealed")
            mapping = mmap.mmap(fd, size)
        except (OSError, ValueError) as error:
            os.close(fd)
            raise FabricError(
                f"no port behind descriptor {fd}: {error}", "pass a Port's own descriptors"
            ) from None
        pointer = ffi.cast("struct sio_port *", ffi.from_buffer(mapping))
        self.view: Any = ffi.gc(pointer, lambda _: mapping.close())

    @classmethod
    def create(cls, fabric: Fabric, vcpu: int, sample_every: int = SAMPLE_EVERY) -> Self:
        """A new one for a vCPU of the fabric. Raises `FabricError` where the host has no room."""
        try:
            fd = shared_memory("shardio-port", ffi.sizeof("struct sio_port"))
        except OSError as error:
            hint = "raise the limits on memory and open files (ulimit -v, -n)"
            raise FabricError(f"cannot make a port: {error.strerror}", hint) from None
        record = cls(fd)
        try:
            set_up(record.client, fabric, vcpu, {}, sample_every)
        except FabricError:
            record.close()
            raise
        return record

    @property
    def client(self) -> Any:
        """Its `struct sio_client *`."""
        return ffi.addressof(self.view, "client")

    def close(self) -> None:
        """Close the descriptor; the memory stays while `view` is held. Idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Port(Closing):
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
        self._alone = Alone(f"the port of vCPU {vcpu}")
        self._record = record or PortRecord.create(fabric, vcpu, sample_every)
        self._doorbells = dict(doorbells or {})
        self._owned: list[Closing | PortRecord] = [] if record else [self._record]
        self._owned_fds: list[int] = []
        self._client: Any = None
        self._opening = threading.Lock()
        self._closed = False
        self._data = ffi.new("uint64_t *")
        _ports.add(self)

    # ---- accesses, as IoManager has them ----

    def pio_read(self, addr: int, data: Any) -> None:
        """Fill the writable buffer `data` (1, 2 or 4 bytes) by a read of the port `addr`.

        Raises `DeviceNotFound` where no range holds the access, `AccessRefused` where its device could not
        answer, `InvalidBuffer`; `data` is untouched then.
        """
        self._read_into(_PIO, addr, data)

    def pio_write(self, addr: int, data: Any) -> None:
        """Write the buffer `data` (1, 2 or 4 bytes) to the port `addr`. Raises as `pio_read` does."""
        self._write_from(_PIO, addr, data)

    def mmio_read(self, addr: int, data: Any) -> None:
        """Fill the writable buffer `data` (1, 2, 4 or 8 bytes) by a read at `addr`. Raises as `pio_read`."""
        self._read_into(_MMIO, addr, data)

    def mmio_write(self, addr: int, data: Any) -> None:
        """Write the buffer `data` (1, 2, 4 or 8 bytes) at `addr`. Raises as `pio_read` does."""
        self._write_from(_MMIO, addr, data)

    def pio_device(self, addr: int) -> tuple[PioRange, int] | None:
        """The range that holds the port `addr` and its index in the address map, or None."""
        found = self._lookup(_PIO, addr, 1)
        return found and (PioRange(*found[:2]), found[2])

    def mmio_device(self, addr: int) -> tuple[MmioRange, int] | None:
        """The range that holds `addr` and its index in the address map, or None."""
        found = self._lookup(_MMIO, addr, 1)
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

    # ---- accesses by value ----

    def read(self, space: int, address: int, size: int) -> tuple[Outcome, int]:
        """Read `size` bytes (1, 2, 4, 8) in space 0 (PIO) or 1 (MMIO). Unanswered: all-ones of the width."""
        with self._alone:
            outcome = lib.sio_client_read(self._opened(), space, address, size, self._data)
            value = self._data[0]
        return self._checked(outcome, size), value

    def write(self, space: int, address: int, size: int, value: int) -> Outcome:
        """Write `size` bytes. Returns at once on a posted range, else once a shard has answered."""
        with self._alone:
            outcome = lib.sio_client_write(self._opened(), space, address, size, value)
        return self._checked(outcome, size)

    def read_string(self, space: int, address: int, size: int, count: int) -> tuple[Outcome, bytes]:
        """`rep ins`: `count` reads of `size` bytes at one address, in order; at most 4096 bytes in all."""
        self._check_string(size, count)
        buffer = ffi.new("uint8_t[]", size * count)
        return self._string(space, address, size, 0, count, buffer), bytes(buffer)

    def write_string(self, space: int, address: int, size: int, data: bytes) -> Outcome:
        """`rep outs`: `data` written `size` bytes at a time to one address, in order; at most 4096 bytes in
        all.
        """
        count = len(data) // max(1, size)
        self._check_string(size, count)
        return self._string(space, address, size, 1, count, ffi.new("uint8_t[]", data))

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
        with self._alone:
            if self._closed:
                return
            self._closed = True
            self._release()
            for owned in self._owned:
                owned.close()
            for fd in self._owned_fds:
                os.close(fd)
            self._owned, self._owned_fds = [], []

    def __del__(self) -> None:
        if getattr(self, "_closed", True) is False:
            with contextlib.suppress(Exception):  # at the interpreter's end, modules may be gone
                self.close()

    def _release(self) -> None:
        if self._client is not None:
            self._client = None
            lib.sio_port_exchange(self._record.view, os.getpid(), lib.SIO_PORT_FREE)

    def _open(self) -> Any:
        """The core's struct, this process being its user from now on. Raises `FabricError`."""
        with self._opening:
            return self._client or self._take()

    def _take(self) -> Any:
        if self._closed:
            raise FabricError(f"the port of vCPU {self.vcpu} is closed", "ask the dispatcher for it again")
        deadline = time.monotonic() + SETTLE_S
        while (holder := self._exchange(lib.SIO_PORT_FREE, os.getpid())) != lib.SIO_PORT_FREE:
            if holder != lib.SIO_PORT_FINISHING and self._holds(holder):
                raise self._in_use(holder)
            if holder != lib.SIO_PORT_FINISHING:
                self._settle_for(holder)
            elif time.monotonic() > deadline:
                raise self._in_use(holder)
            else:
                time.sleep(0.001)
        barrier.register(self._segment)
        lib.sio_port_attach(self._record.view, self._segment)
        client = self._record.client
        for shard, fd in self._doorbells.items():
            client.doorbell[shard] = fd
        self._client = client
        return client

    def _holds(self, pid: int) -> bool:
        """Whether that process is the port's user still, and not another that has got its number since."""
        if pid == os.getpid():
            here = os.fstat(self._record.fd)
            users = (port for port in tuple(_ports) if port._client is not None)
            return any(os.path.samestat(here, os.fstat(port._record.fd)) for port in users)
        return _alive(pid)

    def _exchange(self, before: int, after: int) -> int:
        return int(lib.sio_port_exchange(self._record.view, before, after))

    def _in_use(self, pid: int) -> FabricError:
        return FabricError(
            f"vCPU {self.vcpu}'s port is in use by process {pid}", "give each process a port of its own"
        )

    def _settle_for(self, dead: int) -> None:
        """Finish what a dead user had in flight, unless somebody else is at it. Raises `FabricError` where
        its shard does not answer.
        """
        if self._exchange(dead, lib.SIO_PORT_FINISHING) != dead:
            return
        deadline = time.monotonic() + SETTLE_S
        while not lib.sio_client_finish(self._record.client, self._segment):
            if time.monotonic() > deadline:
                self._exchange(lib.SIO_PORT_FINISHING, dead)
                raise self._in_use(dead)
            time.sleep(0.001)
        self._exchange(lib.SIO_PORT_FINISHING, lib.SIO_PORT_FREE)

    # ---- its parts ----

    @property
    def view(self) -> Any:
        """The core's `struct sio_client *`; the port is this process's from now on."""
        return self._opened()

    def _opened(self) -> Any:
        _ = self.fabric.view  # raises once the fabric is closed
        return self._client or self._open()

    def _read_into(self, space: int, address: int, data: Any) -> None:
        view = memoryview(data).cast("B")
        size = len(view)
        if view.readonly:
            raise InvalidBuffer(f"a read cannot fill a read-only {type(data).__name__}")
        outcome, value = self.read(space, address, size)
        if outcome is not Outcome.ANSWERED:
            raise self._unanswered(outcome, space, address, size)
        view[:] = value.to_bytes(size, "little")

    def _write_from(self, space: int, address: int, data: Any) -> None:
        size = len(data)
        outcome = self.write(space, address, size, int.from_bytes(data, "little"))
        if outcome is not Outcome.ANSWERED:
            raise self._unanswered(outcome, space, address, size)

    def _unanswered(self, outcome: Outcome, space: int, address: int, size: int) -> Exception:
        if outcome is Outcome.ABORTED:
            return FabricError("the dispatcher is closed", "end the vCPU's loop when this is raised")
        if self._lookup(space, address, size) is None:
            return DeviceNotFound(address, size)
        return AccessRefused(address, size, Space.MMIO if space == _MMIO else Space.PIO)

    def _lookup(self, space: int, address: int, size: int) -> tuple[int, int, int] | None:
        """(base, size, index) of the range that holds all of the access."""
        limit = (MmioAddress if space == _MMIO else PioAddress).LAST
        if not 0 <= address <= limit + 1 - size:
            return None
        entry = ffi.new("struct sio_map_entry *")
        if not lib.sio_map_lookup(self.fabric.view, space, address, address + size - 1, entry):
            return None
        return entry.base, entry.last - entry.base + 1, entry.range

    def _string(self, space: int, address: int, size: int, write: int, count: int, buffer: Any) -> Outcome:
        with self._alone:
            client = self._opened()
            outcome = lib.sio_client_string(client, space, address, size, write, count, buffer)
            lib.sio_client_complete(client)
        return Outcome(outcome)

    @staticmethod
    def _check_string(size: int, count: int) -> None:
        if size not in (1, 2, 4, 8) or not 1 <= count * size <= lib.SIO_SIDE_BYTES:
            raise FabricError(
                f"no string of {count} x {size} bytes",
                f"at most {lib.SIO_SIDE_BYTES} bytes, widths 1, 2, 4, 8",
            )

    @staticmethod
    def _checked(outcome: int, size: int) -> Outcome:
        if outcome < 0:
            raise FabricError(
                f"no access of {size} bytes", "widths are 1, 2, 4 and 8 bytes; space is 0 (PIO) or 1 (MMIO)"
            )
        return Outcome(outcome)


def _no_registration() -> FabricError:
    return FabricError("a port registers no devices", "use Dispatcher.add and Dispatcher.remove")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _rebuilt(vcpu: int, fabric: Any, record: Any, bells: Sequence[tuple[int, Any]]) -> Port:
    doorbells = {shard: fd.detach() for shard, fd in bells}
    return Port._from_descriptors(vcpu, fabric.detach(), record.detach(), doorbells)


def _forked() -> None:
    """A fork of a port's user is not its user; it may become that where the port is free."""
    for port in tuple(_ports):
        port._client = None
        port._alone = Alone(f"the port of vCPU {port.vcpu}")
        port._opening = threading.Lock()


os.register_at_fork(after_in_child=_forked)
