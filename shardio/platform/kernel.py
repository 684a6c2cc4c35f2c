"""What Linux must be told on its command line where no table tells it (MP table, or none)."""

from __future__ import annotations

from shardio.platform.hardware import VIRTIO_MMIO, Hardware

_UNITS = ((1 << 20, "M"), (1 << 10, "K"))


def kernel_arguments(hardware: Hardware) -> str:
    """`virtio_mmio.device=SIZE@BASE:LINE` for each virtio-mmio device (Linux, Documentation/admin-guide/
    kernel-parameters); one without a line has none, because Linux would not take it.
    """
    return " ".join(
        f"virtio_mmio.device={_size(device.size)}@{device.base:#x}:{device.irq}"
        for device in hardware.of(VIRTIO_MMIO)
        if device.irq is not None
    )


def _size(count: int) -> str:
    for unit, letter in _UNITS:
        if count % unit == 0:
            return f"{count // unit}{letter}"
    return str(count)
