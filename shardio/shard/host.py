"""What a shard gives a device in `attach`: see `shardio.device.DeviceHost`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shardio.shard.protocol import ExitRequest, ResetRequest, tell

if TYPE_CHECKING:
    import asyncio
    import socket
    import subprocess

    from shardio.interrupt.doorbell import DoorbellSet
    from shardio.interrupt.interrupt import Interrupt
    from shardio.interrupt.manager import InterruptManager
    from shardio.memory import GuestMemory
    from shardio.persistent import Persistent
    from shardio.range import MmioRange, PioRange


class Host:
    """A device's host. The requests to the VMM are one message each; nothing waits for an answer."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        control: socket.socket,
        interrupts: InterruptManager,
        trigger: Interrupt | None,
        memory: GuestMemory | None,
        passed_fds: dict[int, int] | None = None,
        persistent: Persistent | None = None,
        ranges: tuple[PioRange | MmioRange, ...] = (),
        *,
        hold: Callable[[], bool] = lambda: False,
    ) -> None:
        """`hold`: keeps the vCPU of the access in hand from going on (`Owner.hold`)."""
        self.name = name
        self.loop = loop
        self.trigger = trigger
        """The device's own interrupt, enabled: an `EdgeInterrupt`, or a `LevelInterrupt` where asked for."""
        self.memory = memory
        self.persistent = persistent
        self.ranges = ranges
        """Where the device answers."""
        self.interrupts = interrupts
        """Where the device asks for further interrupts: lines, messages, groups."""
        self.passed_fds = passed_fds or {}
        """Descriptors that the VMM has handed over for this device: its own number, and the one here."""
        self.doorbells: tuple[DoorbellSet, ...] = ()
        """The device's doorbells in force, one set a range; empty during `attach`."""
        self._control = control
        self._hold = hold

    def spawn(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a helper process that does not outlive the shard: see `shardio.shard.helper`."""
        from shardio.shard.helper import spawn

        return spawn(argv, **options)

    def exit(self, status: int) -> None:
        """Ask the VMM to stop the machine with this exit status; it is cut to 8 bits. A vCPU whose access
        asks so executes nothing more, unless the VMM has done nothing within a second.
        """
        self._hold()
        tell(self._control, ExitRequest(status & 0xFF))

    def reset(self) -> None:
        """Ask the VMM to reset the machine."""
        self._hold()
        tell(self._control, ResetRequest())
