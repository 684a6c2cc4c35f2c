"""`EdgeInterrupt` and `LevelInterrupt`: one interrupt source with enable, mask, pending and configuration.

Facts. Triggering must be one eventfd write, so mask and enable are decided here, in the device's process,
before the write. A level line is different from an edge: its state is a fact that lasts. KVM lowers a line
raised through an irqfd when the guest ends the interrupt and then signals the resample fd; whoever is still
active must raise it again.

A message reaches the guest within the eventfd write; a line goes through a kernel work queue, later than the
access during which it was raised may end.

Consequences. An edge interrupt remembers at most one pending trigger, exactly what a masked interrupt input
does. A level interrupt remembers the line state and derives everything else from it: on unmask, on enable
and on resample it writes the eventfd if the line is active. Lowering the line writes nothing: an interrupt
that was already raised may still arrive once, spuriously, and drivers of shared lines look at their cause
register anyway. During an access, a line is raised by the vCPU worker before the guest goes on
(`Irqfd.with_access`).

`FollowedInterrupt` is a level line that its controller sees rise and fall, which an edge-triggered pin needs:
there each rise is an interrupt, whatever the guest has ended. Where the controllers are devices there is no
other kind; the kernel's are told by the vCPU worker at the end of an access, else by the VMM, which takes
longer than an irqfd.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from shardio.errors import InterruptError
from shardio.interrupt.backend import FALL, RISE, InterruptBackend, Irqfd
from shardio.interrupt.config import MsiConfig
from shardio.interrupt.counts import DROPPED, RAISED, Counts
from shardio.interrupt.trigger import writer


class Interrupt:
    """What edge and level have in common. Disabled and unmasked at first. A `Trigger`. `counts`: where it is
    counted (None: nowhere).
    """

    def __init__(self, backend: InterruptBackend, irqfd: Irqfd, counts: Counts | None = None) -> None:
        self._backend = backend
        self._irqfd = irqfd
        self._counts = counts or Counts()  # its cells lie in what it holds
        self._cells = self._counts.cells
        self._fire = _telling(irqfd, self._way_in(irqfd))
        self._config: MsiConfig | None = None
        self._enabled = False
        self._masked = False
        self._freed = False

    @property
    def gsi(self) -> int:
        """The global system interrupt that it raises."""
        return self._irqfd.gsi

    @property
    def enabled(self) -> bool:
        """Whether triggers count at all."""
        return self._enabled

    @property
    def masked(self) -> bool:
        """Whether triggers wait for `unmask`."""
        return self._masked

    @property
    def pending(self) -> bool:
        """Whether `unmask` will deliver."""
        raise NotImplementedError

    @property
    def config(self) -> MsiConfig | None:
        """The MSI message, None for a wired interrupt or before `configure`."""
        return self._config

    def configure(self, message: MsiConfig) -> None:
        """Deliver `message` from now on. Raises InterruptError when the backend refuses, or for a wired
        interrupt.
        """
        if message != self._config:
            self._backend.set_route(self._irqfd.handle, message)
            self._config = message

    def enable(self) -> None:
        """Connect to the guest. Triggers from before are forgotten, an active level line is delivered."""
        if not self._enabled:
            self._backend.connect(self._irqfd.handle)
            self._enabled = True
            self._deliver()

    def disable(self) -> None:
        """Disconnect: triggers are dropped from now on, and what is pending is forgotten."""
        if self._enabled:
            self._enabled = False
            self._backend.disconnect(self._irqfd.handle)
            self._forget()

    def mask(self) -> None:
        """Hold triggers back: one is remembered as pending."""
        self._masked = True

    def unmask(self) -> None:
        """Deliver what is pending, then everything at once again."""
        self._masked = False
        self._deliver()

    def free(self) -> None:
        """Give the interrupt back; it does nothing any more. Idempotent."""
        if not self._freed:
            self._enabled = False
            self._freed = True
            self._backend.free(self._irqfd.handle)

    def trigger(self) -> None:
        """Raise the interrupt, or remember it while masked; dropped while disabled."""
        raise NotImplementedError

    def _way_in(self, irqfd: Irqfd) -> Callable[[], None]:
        return writer(irqfd.fd)

    def _deliver(self) -> None:
        raise NotImplementedError

    def _forget(self) -> None:
        raise NotImplementedError


def _telling(irqfd: Irqfd, fire: Callable[[], None]) -> Callable[[], None]:
    told, traced = irqfd.told, irqfd.traced
    if told is None:
        return fire

    def tell_and_fire() -> None:
        if traced[0]:
            told(True)
        fire()

    return tell_and_fire


class EdgeInterrupt(Interrupt):
    """An event: legacy edge line or MSI vector. While masked, any number of triggers become one pending."""

    def __init__(self, backend: InterruptBackend, irqfd: Irqfd, counts: Counts | None = None) -> None:
        super().__init__(backend, irqfd, counts)
        self._pending = False

    def _way_in(self, irqfd: Irqfd) -> Callable[[], None]:
        write, with_access = writer(irqfd.fd), irqfd.with_access
        if with_access is None:
            return write

        def fire() -> None:
            if not with_access():
                write()

        return fire

    @property
    def pending(self) -> bool:
        """Whether a trigger came while masked."""
        return self._pending

    def trigger(self) -> None:
        """Raise the interrupt once, or remember it while masked; dropped while disabled."""
        if self._enabled and not self._masked:
            self._cells[RAISED] += 1
            self._fire()
        elif self._enabled and not self._pending:
            self._pending = True
        else:
            self._cells[DROPPED] += 1

    def _deliver(self) -> None:
        if self._pending and self._enabled and not self._masked:
            self._pending = False
            self._cells[RAISED] += 1
            self._fire()

    def _forget(self) -> None:
        self._pending = False


class LevelInterrupt(Interrupt):
    """A line that the device holds active until its cause is gone; may be shared with other devices."""

    def __init__(self, backend: InterruptBackend, irqfd: Irqfd, counts: Counts | None = None) -> None:
        if irqfd.resample_fd is None:
            raise InterruptError(irqfd.gsi, "is an edge interrupt", "allocate it with level=True")
        super().__init__(backend, irqfd, counts)
        self._active = False

    def _way_in(self, irqfd: Irqfd) -> Callable[[], None]:
        write, with_access = writer(irqfd.fd), irqfd.with_access
        if with_access is None:
            return write

        def fire() -> None:
            # The eventfd holds the line until the guest's EOI, but gets there late; the access's completion
            # is in time, but only a pulse.
            with_access()
            write()

        return fire

    @property
    def active(self) -> bool:
        """Whether the device holds the line active."""
        return self._active

    @property
    def pending(self) -> bool:
        """Whether the line is active but held back by the mask."""
        return self._active and self._masked

    @property
    def resample_fd(self) -> int | None:
        """The eventfd to watch; call `resample` when it is readable. None where nobody needs to be told."""
        return self._irqfd.resample_fd

    def trigger(self) -> None:
        """Make the line active; stays so until `deassert`."""
        self.set_level(True)

    def deassert(self) -> None:
        """Make the line inactive: the device's cause is gone."""
        self._active = False

    def set_level(self, active: bool) -> None:
        """The line state. Raising it delivers unless masked; raising an active line again does nothing."""
        raised = active and not self._active
        self._active = active
        if raised:
            self._deliver()

    def resample(self) -> None:
        """The guest ended the interrupt: raise it again if the line is still active."""
        fd = self.resample_fd
        if self._freed or fd is None:  # once freed, the descriptor's number may be another's
            return
        try:  # noqa: SIM105 - `suppress` would take longer than the read
            os.eventfd_read(fd)
        except BlockingIOError:
            pass
        self._deliver()

    def _deliver(self) -> None:
        if self._active and self._enabled and not self._masked:
            self._cells[RAISED] += 1
            self._fire()

    def _forget(self) -> None:
        # The line state is the device's: enabling again delivers it.
        return None


class FollowedInterrupt(LevelInterrupt):
    """A level line that its controller follows up and down: nobody needs to tell of the guest's EOI."""

    def __init__(self, backend: InterruptBackend, irqfd: Irqfd, counts: Counts | None = None) -> None:
        if irqfd.set_level is None:
            raise InterruptError(irqfd.gsi, "cannot be lowered", "use LevelInterrupt")
        Interrupt.__init__(self, backend, irqfd, counts)
        self._set_level = irqfd.set_level
        self._active = False
        self._high = False

    @property
    def resample_fd(self) -> None:
        """There is none."""
        return None

    def deassert(self) -> None:
        """Make the line inactive: the device's cause is gone."""
        self.set_level(False)

    def set_level(self, active: bool) -> None:
        """The line state, which the controller sees unless the interrupt is masked or disabled."""
        self._active = active
        self._deliver()

    def mask(self) -> None:
        """Hold the line low."""
        super().mask()
        self._deliver()

    def disable(self) -> None:
        """Disconnect; the line is low."""
        if self._enabled:
            self._move(False)
        super().disable()

    def free(self) -> None:
        """Give the interrupt back; the line is low. Idempotent."""
        if not self._freed:
            self._move(False)
        super().free()

    def _deliver(self) -> None:
        self._move(self._active and self._enabled and not self._masked)

    def _move(self, high: bool) -> None:
        if high is not self._high:
            self._high = high
            if self._irqfd.told is not None:
                self._irqfd.told(high)
            self._cells[RAISED] += high
            if not self._set_level(high):
                try:
                    os.eventfd_write(self._irqfd.fd, RISE if high else FALL)
                except BlockingIOError:  # it is full: whoever reads it has long been told
                    return


def level_interrupt(
    backend: InterruptBackend, gsi: int, *, followed: bool = False, counts: Counts | None = None
) -> LevelInterrupt:
    """A level interrupt of the kind that the backend offers, disabled. Raises InterruptError."""
    irqfd = backend.allocate(gsi, level=True, followed=followed)
    kind = LevelInterrupt if irqfd.set_level is None else FollowedInterrupt
    return kind(backend, irqfd, counts)
