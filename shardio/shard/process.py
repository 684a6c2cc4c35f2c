"""The main of a shard process: attaches the fabric, takes orders from the VMM, runs the event loop until told
to quit.

Started by `shardio.supervisor` as `python -c ... process.main()` with two sockets inherited; `Setup` says
which shard it is, and until then it is a warm spare (`spare`). Ends when the control socket
closes; dies with the VMM's supervisor thread (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pickle
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from shardio._core import lib
from shardio.address import Space
from shardio.errors import InterruptError, MachineError, ShardioError
from shardio.interrupt.config import LegacyConfig
from shardio.interrupt.counts import Counts
from shardio.interrupt.manager import InterruptManager
from shardio.interrupt.proxy import ProxyBackend, call_over
from shardio.io_manager import MmioManager, PioManager
from shardio.processes import set_process_name
from shardio.range import MmioRange, PioRange
from shardio.shard import notebook, protocol
from shardio.shard.blame import Blamed, blame, described
from shardio.shard.breakpoint_hook import breakpoint_hook
from shardio.shard.host import Host
from shardio.shard.leaving import leave
from shardio.shard.loading import make
from shardio.shard.log import log_to_stderr
from shardio.shard.runtime import Runtime
from shardio.shard.spare import Spare
from shardio.shard.walls import Capabilities, raise_first

if TYPE_CHECKING:
    from collections.abc import Callable

    from shardio.fabric.coalesced import CoalescedRing
    from shardio.interrupt.doorbell import DoorbellSet
    from shardio.interrupt.interrupt import Interrupt
    from shardio.memory import GuestMemory
    from shardio.persistent import Persistent
    from shardio.shard.profiling import Profile
    from shardio.shard.recorder import Recorder

log = logging.getLogger("shardio.shard")

COALESCED_LOOK_S = 0.002
"""How long a write may sit in KVM's coalesced ring: nobody is told of it."""


class Held:
    """A device that this shard holds: the object, its class and file, what it was given, and its ranges by
    their index.
    """

    __slots__ = ("device", "host", "keep", "kind", "profile", "ranges", "recorder")

    def __init__(
        self,
        device: Any,
        kind: str,
        host: Host,
        keep: Callable[[], None] | None = None,
        recorder: Recorder | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.device = device
        self.profile = profile
        self.kind = kind
        self.host = host
        self.recorder = recorder
        self.keep = keep
        """Saves the device's state, where it has a memory for it and does not do that by itself."""
        self.ranges: list[int] = []


class Shard:
    """A shard process's state: its devices by name, and the handlers of the VMM's requests."""

    def __init__(
        self, spare: Spare, shard: int, doorbell: int, control: socket.socket, interrupts: socket.socket
    ) -> None:
        """Takes the loop and the fabric of a `spare` that has been told to prepare."""
        assert spare.fabric is not None
        self.loop = spare.loop
        asyncio.set_event_loop(self.loop)
        self.control = control
        self.runtime = Runtime(self.loop, spare.epoll_fd, spare.fabric, shard, doorbell, self._report)
        self.devices: dict[str, Held] = {}
        self.memory: GuestMemory | None = None
        self.ring: CoalescedRing | None = None
        self._unshared: ShardioError | None = None
        """Why guest RAM or the ring could not be mapped."""
        self._incomplete = False
        self._capabilities = Capabilities()
        owner = self.runtime.owner
        self._trace = owner.tracing()
        self._interrupt_backend = ProxyBackend(
            call_over(interrupts), owner.raise_line, owner.set_level, self._trace.line
        )

    def name_of(self, device: object) -> str | None:
        """The name of a device that this shard holds; None for anything else."""
        return next((name for name, held in self.devices.items() if held.device is device), None)

    def run(self) -> None:
        """Until the VMM says quit, or is gone."""
        self.loop.add_reader(self.control, self._on_message)
        try:
            self.loop.run_forever()
        finally:
            self.runtime.owner.flush()  # the guest was not made to wait for these writes, but it made them
            for name in reversed(list(self.devices)):
                try:
                    self._detach(name)
                except InterruptError:  # the VMM is gone, and what it had to free with it
                    pass
                except Blamed as error:  # the others are to be detached all the same
                    if not isinstance(error.__cause__, InterruptError):
                        log.error("device %s failed to detach", name, exc_info=error.__cause__)
                except Exception:
                    log.exception("device %s failed to detach", name)
            self.runtime.close()
            if self.ring is not None:
                self.ring.close()
            self._interrupt_backend.close()

    def _on_message(self) -> None:
        self._act(*self._received())

    def ask_terminal(self, where: str) -> int | None:
        """The user's terminal, a descriptor, once it is lent; None where there is none. Blocks, in the loop's
        thread; what comes meanwhile is seen to later.
        """
        protocol.tell(self.control, protocol.AskTerminal(where[: protocol.MAX_TEXT]))
        while True:
            message, fds = self._received()
            if isinstance(message, protocol.Terminal):
                return fds[0] if message.lent else None
            self.loop.call_soon(self._act, message, fds)
            if message is None:
                return None

    def _received(self) -> tuple[protocol.ToShard | None, list[int]]:
        """The VMM's next message; None where it has gone."""
        try:
            return protocol.receive_in_shard(self.control)
        except ValueError as error:  # a fault of the VMM's: whoever waits for the answer learns of it now
            log.error("a message of the VMM's makes no sense: %s", error)
            return None, []

    def _act(self, message: protocol.ToShard | None, fds: list[int]) -> None:
        match message:
            case None | protocol.Quit():
                self.loop.stop()
            case protocol.Serve():
                self.runtime.serve()
            case protocol.AddDevices():
                self._answer(message.serial, lambda: self._add_all(message, fds))
            case protocol.RemoveDevice():
                self._answer(message.serial, lambda: self._remove(message.name))
            case protocol.MoveDevice():
                self._answer(message.serial, lambda: self._move(message))
            case protocol.Call():
                self._answer(message.serial, lambda: self._call(message))
            case protocol.ShareMemory() | protocol.ShareRing():
                self._share(message, fds[0])

    def _answer(self, serial: int, action: Any) -> None:
        try:
            done = protocol.Done(serial, result=self._packed(action()))
        except Blamed as error:
            text = error.message[: protocol.MAX_TEXT]
            done = protocol.Done(serial, error=text, hint=error.hint, failure=error.failure)
        except ShardioError as error:
            done = protocol.Done(serial, error=error.message[: protocol.MAX_TEXT], hint=error.hint)
        except BaseException as error:
            log.debug("request failed", exc_info=True)
            done = protocol.Done(serial, error=described(error)[: protocol.MAX_TEXT])
        protocol.tell(self.control, done)

    def _packed(self, result: Any) -> bytes:
        try:
            return protocol.pack_result(result)
        except (TypeError, ValueError, OverflowError, MachineError) as error:
            raise MachineError(f"the result cannot be sent: {error}") from None

    def _share(self, message: protocol.Share, fd: int) -> None:
        try:
            if isinstance(message, protocol.ShareMemory):
                from shardio.memory import GuestMemory

                self.memory = GuestMemory.from_fd(fd, message.size)
            else:
                from shardio.fabric.coalesced import CoalescedRing

                self.ring = CoalescedRing(self.runtime.owner, fd, message.page)
                self.runtime.look_every(COALESCED_LOOK_S)
        except ShardioError as error:
            self._unshared = error  # told where a device needs it
        finally:
            os.close(fd)

    def _add_all(self, message: protocol.AddDevices, fds: list[int]) -> None:
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
                self._remove(name)
            for fd in passed:
                os.close(fd)
            raise
        if message.serve and not self._incomplete:
            self.runtime.serve()

    def _add(self, spec: protocol.DeviceSpec, passed: dict[int, int]) -> None:
        interrupts = InterruptManager(self._interrupt_backend, self.loop, self._counts(spec))
        with contextlib.ExitStack() as undo:
            undo.callback(_close_all, passed)
            undo.callback(interrupts.close)
            if (persistent := self._persistent(spec, passed)) is not None:
                undo.callback(persistent.close)
            if (recorder := self._recorder(spec, passed)) is not None:
                undo.callback(recorder.close)
            coalesced = any(span.coalesced for span in spec.ranges)
            if (spec.dma and self.memory is None) or (coalesced and self.ring is None):
                raise self._unshared or MachineError("what the device shares was not handed over")
            self._capabilities.require(spec.name, spec.capabilities)
            profile = _profile(spec.profile)
            with blame(spec.name, spec.kind, "constructor"):
                device = make(spec.device)
            trigger = _trigger(interrupts, spec)
            memory: Any = self.memory if spec.dma else None
            if recorder is not None:
                memory = recorder.begin(device, spec, persistent, memory)
            host = Host(
                spec.name, self.loop, self.control, interrupts, trigger, memory, passed, persistent,
                tuple(map(_span, spec.ranges)),
                hold=self.runtime.owner.hold,
            )  # fmt: skip
            keep = getattr(device, "keep", None) if persistent is not None else None
            if persistent is not None and hasattr(device, "state_type") and keep is None:
                keep = persistent.keeper(device)
            attach = getattr(device, "attach", None)
            if attach is not None:
                with blame(spec.name, spec.kind, "attach()"):
                    attach(host)
            undo.pop_all()
        self.devices[spec.name] = held = Held(device, spec.kind, host, keep, recorder, profile)
        try:
            for span in spec.ranges:
                self._register(span, held, spec.name)
            if getattr(device, "doorbells", None):
                host.doorbells = tuple(self._bind(held, span) for span in spec.ranges)
        except BaseException:
            self._remove(spec.name)
            raise

    def _counts(self, spec: protocol.DeviceSpec) -> Counts | None:
        if not spec.ranges:
            return None
        owner = self.runtime.owner
        return Counts(owner.fabric.interrupts(owner.shard, spec.ranges[0].index), owner.fabric.view)

    def _persistent(self, spec: protocol.DeviceSpec, passed: dict[int, int]) -> Persistent | None:
        if spec.persistent < 0:
            return None
        from shardio.persistent import Persistent

        persistent = Persistent(
            passed[spec.persistent],
            spec.persistent_size,
            self.runtime.owner.journal,
            area=spec.persistent_area,
            control_at=self.runtime.owner.control_at,
        )
        os.close(passed.pop(spec.persistent))  # it is mapped
        return persistent

    def _recorder(self, spec: protocol.DeviceSpec, passed: dict[int, int]) -> Recorder | None:
        if spec.recorded < 0:
            return None
        from shardio.shard.recorder import Recorder

        return Recorder(passed.pop(spec.recorded), spec.name, self.loop)

    def _register(self, spec: protocol.RangeSpec, held: Held, name: str) -> None:
        span = _span(spec)
        posted = spec.posted or spec.coalesced
        owner, device, persistent = self.runtime.owner, held.device, held.host.persistent
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
        self.runtime.names[spec.index] = name
        if spec.coalesced and self.ring is not None:
            self.ring.add(spec.index)

    def _remove(self, name: str) -> None:
        self._unregister(self.devices[name])
        self._detach(name)

    def _move(self, message: protocol.MoveDevice) -> None:
        held = self.devices[message.name]
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
            self.runtime.owner.clear_handler(index)
            if self.ring is not None:
                self.ring.drop(index)
            self.runtime.names.pop(index, None)

    def _bind(self, held: Held, span: protocol.RangeSpec) -> DoorbellSet:
        from shardio.interrupt.doorbell import DoorbellSet

        def told(doorbell: int, times: int) -> None:
            self._trace.rung(span.index, doorbell, times)
            if held.recorder is not None:
                held.recorder.rung(doorbell)

        return DoorbellSet(
            held.device, span.base, self._interrupt_backend, self.loop, pio=span.space == Space.PIO, told=told
        )

    def _detach(self, name: str) -> None:
        held = self.devices.pop(name)
        with contextlib.ExitStack() as last_first:
            last_first.callback(_close_all, held.host.passed_fds)
            if held.host.persistent is not None:
                last_first.callback(held.host.persistent.close)
            if held.recorder is not None:
                last_first.callback(held.recorder.close)
            last_first.callback(held.host.interrupts.close)
            if held.profile is not None:
                last_first.callback(held.profile.close)
            if (detach := getattr(held.device, "detach", None)) is not None:
                last_first.enter_context(blame(name, held.kind, "detach()"))
                last_first.callback(detach)
            # What the guest rang before is delivered while the device still has its host.
            for doorbells in held.host.doorbells:
                last_first.callback(doorbells.close)

    def _call(self, message: protocol.Call) -> Any:
        arguments, options = pickle.loads(message.arguments)
        held = self.devices[message.name]
        with blame(message.name, held.kind, f"{message.method}()"):
            result = getattr(held.device, message.method)(*arguments, **options)
        if held.keep is not None:
            held.keep()
        return result

    def _report(self, name: str, text: str) -> None:
        protocol.tell(self.control, protocol.HandlerFailed(name, text))


def _profile(path: str) -> Profile | None:
    if not path:
        return None
    from shardio.shard.profiling import Profile  # no shard's start waits for it

    return Profile(path)


def _close_all(passed: dict[int, int]) -> None:
    for fd in passed.values():
        os.close(fd)


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


def main(control_fd: int, interrupt_fd: int, parent: int, notebook_fd: int) -> None:
    """Run as a shard, once told which. `parent`: the VMM's pid. The descriptors become this process's own."""
    if lib.sio_die_with_parent(parent) != 0:
        return
    notebook.open_in_shard(notebook_fd)
    raise_first()
    for number in protocol.STOP_SIGNALS:
        signal.signal(number, lambda *_: None)  # not SIG_IGN: what a device starts would inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, protocol.STOP_SIGNALS)
    # Off since the interpreter's first line: of what is imported, little is ever garbage. A first collection
    # would go through all of it.
    gc.freeze()
    gc.enable()
    with socket.socket(fileno=control_fd) as control, socket.socket(fileno=interrupt_fd) as interrupts:
        with contextlib.closing(Spare(control)) as spare:
            if (told := spare.wait()) is None:
                return
            setup, doorbell = told
            set_process_name(f"shardio:{setup.name}")
            shard = Shard(spare, setup.shard, doorbell, control, interrupts)
            sys.breakpointhook = breakpoint_hook(
                shard.ask_terminal, lambda: protocol.tell(control, protocol.ReturnTerminal())
            )
            log_to_stderr(setup.log_level, parent, setup.name, shard.name_of)
            shard.run()
    leave()
