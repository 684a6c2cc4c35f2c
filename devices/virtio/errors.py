"""What goes wrong in a virtio device: a lying driver, or a host resource that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from shardio.errors import ShardioError


class VirtioError(ShardioError):
    """Anything that a virtio device or transport refuses."""


class QueueError(VirtioError):
    """The driver broke a rule of the split virtqueue (virtio 1.2 section 2.7); the device stops until it is
    reset.

    Raised by `VirtQueue`, caught by the transport, which sets DEVICE_NEEDS_RESET. `rule` says what was
    broken in a few words, `values` what was found.
    """

    def __init__(self, rule: str, /, **values: int) -> None:
        found = ", ".join(f"{name}={value:#x}" for name, value in values.items())
        super().__init__(
            f"virtqueue: {rule}" + (f" ({found})" if found else ""), "the driver must reset the device"
        )
        self.rule = rule
        self.values = values

    def __reduce__(self) -> tuple[Callable[[], QueueError], tuple[()]]:
        return partial(QueueError, self.rule, **self.values), ()


class BackendError(VirtioError):
    """The host side of a device (image file, socket, tap) cannot be used: `resource` names it, `reason`
    says why.
    """

    def __init__(self, resource: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{resource}: {reason}", hint)
        self.args = (resource, reason, hint)
        self.resource, self.reason = resource, reason
