"""The devices that a shard holds: made, registered with its loop, moved, called and detached.

A device is made with a `Host` of its own, and answers once its ranges are registered.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
from typing import TYPE_CHECKING, Any

from shardio.address import Space
from shardio.errors import InterruptError, MachineError, ShardioError
from shardio.interrupt.config import LegacyConfig
from shardio.interrupt.counts import Counts
from shardio.interrupt.manager import InterruptManager
from shardio.interrupt.proxy import ProxyBackend, call_over
from shardio.io_manager import MmioManager, PioManager
from shardio.range import MmioRange, PioRange
from shardio.shard import protocol
from shardio.shard.blame import Blamed, blame
from shardio.shard.held import Held, close_all
from shardio.shard.host import Host
from shardio.shard.loading import make
from shardio.shard.walls import Capabilities

if TYPE_CHECKING:
    from shardio.fabric.coalesced import CoalescedRing
    from shardio.interrupt.doorbell import DoorbellSet
    from shardio.interrupt.interrupt import Interrupt
    from shardio.memory import GuestMemory
    from shardio.persistent import Persistent
    from shardio.shard.profiling import Profile
    from shardio.shard.recorder import Recorder
    from shardio.shard.runtime import Runtime

log = logging.getLogger("shardio.shard")

COALESCED_LOOK_S = 0.002
"""How long a write may sit in KVM's coalesced ring: nobody is told of it."""


class Devices:
    """A shard's devices. `control`, `interrupts`: the sockets to the VMM, the latter for what is asked about
    interrupts.
    """

    def __init__(self, runtime: Runtime, control: socket.socket, interrupts: socket.socket) -> None:
        self._runtime, self._loop, self._control = runtime, runtime.loop, control
        self._held: dict[str, Held] = {}
        """By name, in the order in which they were made."""
        self._memory: GuestMemory | None = None
        self._ring: CoalescedRing | None = None
        self._unshared: ShardioError | None = None
        """Why guest RAM or the ring could not be mapped."""
        self._incomplete = False
        self._capabilities = Capabilities()
        owner = runtime.owner
        self._trace = owner.tracing()
        self._interrupt_backend = ProxyBackend(
            call_over(interrupts), owner.raise_line, owner.set_level, self._trace.line, self._trace.on
        )

    def name_of(self, device: object) -> str | None:
        """The name of a device that this shard holds; None for anything else."""
        return next((name for name, held in self._held.items() if held.device is device), None)

    def detach_all(self) -> None:
        """The shard ends; a device that fails is logged."""
        for name in reversed(list(self._held)):
            try:
                self._held.pop(name).detach(name)
            except InterruptError:  # the VMM is gone, and what it had to free with it
                pass
            except Blamed as error:  # the others are to be detached all the same
                if not isinstance(error.__cause__, InterruptError):
                    log.error("device %s failed to detach", name, exc_info=error.__cause__)
            except Exception:
                log.exception("device %s failed to detach", name)

    def close(self) -> None:
        """After the runtime, which may still drain the ring."""
        if self._ring is not None:
            self._ring.close()
        self._interrupt_backend.close()

    def share(self, message: protocol.Share, fd: int) -> None:
        """Map guest RAM or the coalesced ring; the descriptor is closed."""
        try:
            if isinstance(message, protocol.ShareMemory):
                from shardio.memory import GuestMemory

                self._memory = GuestMemory.from_fd(fd, message.size)
            else:
                from shardio.fabric.coalesced import CoalescedRing

                self._ring = CoalescedRing(self._runtime.owner, fd, message.page)
                self._runtime.look_every(COALESCED_LOOK_S)
        except ShardioError as error:
            self._unshared = error  # told where a device needs it
        finally:
            os.close(fd)

    def add(self, message: protocol.AddDevices, fds: list[int]) -> None:
        """Make devices, in their order. Where one fails, none is left, and the error is raised."""
        added: list[str] = []
        passed = iter(fds)
        try:
            self._capabilities.drop_others(message.capabilities)
            for spec in message.devices:
                self._add(spec, {number: next(passed) for number in spec.passed})
                added.append(spec.name)
        except BaseException:
            self._incomplete = True
            for name in reversed(added):
                self.remove(name)
            for fd in passed:
                os.close(fd)
            raise
        if message.serve and not self._incomplete:
            self._runtime.serve()

    def _add(self, spec: protocol.DeviceSpec, passed: dict[int, int]) -> None:
        interrupts = InterruptManager(self._interrupt_backend, self._loop, self._counts(spec))
        with contextlib.ExitStack() as undo:
            undo.callback(close_all, passed)
            undo.callback(interrupts.close)
            if (persistent := self._persistent(spec, passed)) is not None:
                undo.callback(persistent.close)
            if (recorder := self._recorder(spec, passed)) is not None:
                undo.callback(recorder.close)
            coalesced = any(span.coalesced for span in spec.ranges)
            if (spec.dma and self._memory is None) or (coalesced and self._ring is None):
                raise self._unshared or MachineError("what the device shares was not handed over")
            self._capabilities.require(spec.name, spec.capabilities)
            profile = _profile(spec.profile)
            with blame(spec.name, spec.kind, "constructor"):
                device = make(spec.device)
            trigger = _trigger(interrupts, spec)
            memory: Any = self._memory if spec.dma else None
            if recorder is not None:
                memory = recorder.begin(device, spec, persistent, memory)
            host = Host(
                spec.name, self._loop, self._control, interrupts, trigger, memory, passed, persistent,
                tuple(map(_span, spec.ranges)),
                hold=self._runtime.owner.hold,
            )  # fmt: skip
            keep = getattr(device, "keep", None) if persistent is not None else None
            if persistent is not None and hasattr(device, "state_type") and keep is None:
                keep = persistent.keeper(device)
            attach = getattr(device, "attach", None)
            if attach is not None:
                with blame(spec.name, spec.kind, "attach()"):
                    attach(host)
            undo.pop_all()
        self._held[spec.name] = held = Held(device, spec.kind, host, keep, recorder, profile)
        try:
            for span in spec.ranges:
                self._register(span, held, spec.name)
            if getattr(device, "doorbells", None):
                host.doorbells = tuple(self._bind(held, span) for span in spec.ranges)
        except BaseException:
            self.remove(spec.name)
            raise

    def _counts(self, spec: protocol.DeviceSpec) -> Counts | None:
        if not spec.ranges:
            return None
        owner = self._runtime.owner
        return Counts(owner.fabric.interrupts(owner.shard, spec.ranges[0].index), owner.fabric.view)

    def _persistent(self, spec: protocol.DeviceSpec, passed: dict[int, int]) -> Persistent | None:
        if spec.persistent < 0:
            return None
        from shardio.persistent import Persistent

        persistent = Persistent(
            passed[spec.persistent],
            spec.persistent_size,
            self._runtime.owner.control_at,
            area=spec.persistent_area,
        )
        os.close(passed.pop(spec.persistent))  # it is mapped
        return persistent

    def _recorder(self, spec: protocol.DeviceSpec, passed: dict[int, int]) -> Recorder | None:
        if spec.recorded < 0:
            return None
        from shardio.shard.recorder import Recorder

        return Recorder(passed.pop(spec.recorded), spec.name, self._loop)

    def _register(self, spec: protocol.RangeSpec, held: Held, name: str) -> None:
        span = _span(spec)
        posted = spec.posted or spec.coalesced
        owner, device, persistent = self._runtime.owner, held.device, held.host.persistent
        if isinstance(device, PioManager if spec.space == Space.PIO else MmioManager):
            if held.profile is not None:
                raise MachineError(f"device {name} dispatches by itself", "profile it by its own means")
            manager = device if held.recorder is None else held.recorder.manager(device, spec.space)
            owner.set_manager(spec.index, span, manager, posted=posted)
        else:
            handlers_for = getattr(device, "handlers_for", None)
            answering = device if handlers_for is None else handlers_for(span)
            keep = getattr(answering, "keep", held.keep)
            if held.recorder is not None:
                answering = held.recorder.handlers(answering, spec.space)
            guarded = answering if persistent is None else persistent.guard(answering, spec.space, keep)
            counted = guarded if held.profile is None else held.profile.handlers(guarded)
            owner.set_handler(spec.index, span, counted, posted=posted)
        held.ranges.append(spec.index)
        self._runtime.names[spec.index] = name
        if spec.coalesced and self._ring is not None:
            self._ring.add(spec.index)

    def remove(self, name: str) -> None:
        """Raises what its `detach` raised, as `Blamed`; it is gone all the same."""
        self._unregister(self._held[name])
        self._held.pop(name).detach(name)

    def move(self, message: protocol.MoveDevice) -> None:
        """Let a device answer at other ranges."""
        held = self._held[message.name]
        self._unregister(held)
        if held.recorder is not None:
            held.recorder.moved(message.ranges)
        for span in message.ranges:
            self._register(span, held, message.name)
        for doorbells, span in zip(held.host.doorbells, message.ranges, strict=False):
            doorbells.move(span.base)

    def _unregister(self, held: Held) -> None:
        while held.ranges:
            index = held.ranges.pop()
            self._runtime.owner.clear_handler(index)
            if self._ring is not None:
                self._ring.drop(index)
            self._runtime.names.pop(index, None)

    def _bind(self, held: Held, span: protocol.RangeSpec) -> DoorbellSet:
        from shardio.interrupt.doorbell import DoorbellSet

        return DoorbellSet(
            held.device,
            span.base,
            self._interrupt_backend,
            self._loop,
            pio=span.space == Space.PIO,
            told=None if held.recorder is None else held.recorder.rung,
            index=span.index,
        )

    def call(self, message: protocol.Call) -> Any:
        """What a method of a device returns. Raises `Blamed` with what it raised."""
        arguments, options = pickle.loads(message.arguments)
        held = self._held[message.name]
        with blame(message.name, held.kind, f"{message.method}()"):
            result = getattr(held.device, message.method)(*arguments, **options)
        if held.keep is not None:
            held.keep()
        return result


def _profile(path: str) -> Profile | None:
    if not path:
        return None
    from shardio.shard.profiling import Profile  # no shard's start waits for it

    return Profile(path)


def _span(spec: protocol.RangeSpec) -> PioRange | MmioRange:
    return (PioRange if spec.space == Space.PIO else MmioRange)(spec.base, spec.size)


def _trigger(interrupts: InterruptManager, spec: protocol.DeviceSpec) -> Interrupt | None:
    if spec.irq < 0:
        return None
    line = LegacyConfig(spec.irq)
    trigger: Interrupt = (
        interrupts.level(line, followed=spec.followed) if spec.level else interrupts.edge(line)
    )
    trigger.enable()
    return trigger
