"""A device tree fragment, as source text for `dtc`, for VMMs of other architectures than x86.

Source: Devicetree Specification 0.4; bindings "virtio,mmio", "ns16550a" and the others that `hardware` names.
The fragment has no interrupt controller and no CPUs: those are the board's, and `parent` is the label of its
controller.
"""

from __future__ import annotations

from shardio.platform.hardware import PCI_HOST, UART, Hardware, PlatformDevice

_NAMES = {"virtio,mmio": "virtio_mmio", "ns16550a": "serial", "motorola,mc146818": "rtc"}
_EDGE_RISING, _LEVEL_HIGH = 1, 4


def device_tree(hardware: Hardware, *, parent: str = "intc", spi: bool = False) -> str:
    """The memory nodes and a node for each memory-mapped device, as a fragment of a tree with two address
    and two size cells.

    `parent`: the label of the interrupt controller. `spi`: interrupt specifiers have three cells, as a GIC's
    shared peripheral interrupts; else two, line and flags. Devices on ports are left out, the PCI bridge with
    them: there are no ports but on x86.
    """
    nodes = [_memory(region.guest_address, region.size) for region in hardware.memory]
    nodes += [
        _device(device, parent, spi)
        for device in hardware.devices
        if not device.pio and device.compatible != PCI_HOST
    ]
    body = "\n".join(nodes)
    return f"/ {{\n\t#address-cells = <2>;\n\t#size-cells = <2>;\n\n{body}}};\n"


def _memory(base: int, size: int) -> str:
    return _node(f"memory@{base:x}", ['device_type = "memory";', _reg(base, size)])


def _device(device: PlatformDevice, parent: str, spi: bool) -> str:
    name = _NAMES.get(device.compatible, device.compatible.rpartition(",")[2])
    properties = [f'compatible = "{device.compatible}";', _reg(device.base, device.size)]
    if device.irq is not None:
        flags = _LEVEL_HIGH if device.level else _EDGE_RISING
        cells = f"0 {device.irq} {flags}" if spi else f"{device.irq} {flags}"
        properties += [f"interrupt-parent = <&{parent}>;", f"interrupts = <{cells}>;"]
    if device.compatible == UART:
        properties.append("clock-frequency = <1843200>;")
        if device.reg_shift:
            properties.append(f"reg-shift = <{device.reg_shift}>;")
    return _node(f"{name}@{device.base:x}", properties)


def _reg(base: int, size: int) -> str:
    return f"reg = <{_cells(base)} {_cells(size)}>;"


def _cells(value: int) -> str:
    return f"{value >> 32:#x} {value & 0xFFFF_FFFF:#x}"


def _node(name: str, properties: list[str]) -> str:
    lines = "".join(f"\t\t{text}\n" for text in properties)
    return f"\t{name} {{\n{lines}\t}};\n"
