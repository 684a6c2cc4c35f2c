"""The devices of a PC as `[[device]]` tables: what firmware and kernels look for, and what lets a flat image
speak.

The machine's own table of devices comes first: where one has the range, the PC's is left out.
"""

from __future__ import annotations

from typing import Any

Table = dict[str, Any]


def console_devices() -> list[Table]:
    """COM1 on the terminal, and the exit port: enough for a flat image to say something and end."""
    return [
        _device("Uart16550", 0x3F8, "com1", irq=4, output="stdout", input="stdin"),
        _device("ExitPort", 0xF4, "exit"),
    ]


def firmware_devices(memory: int, vcpus: int, irqchip: bool | str = True) -> list[Table]:
    """What SeaBIOS asks of its machine; `memory` is in bytes, `irqchip` as `Machine` has it.

    CMOS and fw_cfg tell the memory's size and the number of CPUs, fw_cfg puts the console on COM1, 0x402
    takes the log. The interrupt controllers and the PIT come with the irqchip. Port 0x61, between those of
    the keyboard controller, is then the PIT's; without one the keyboard controller answers there.
    """
    return [
        *kernel_devices(memory, vcpus, irqchip),
        _device("DebugConsole", 0x402, "debugcon", output="stdout"),
        _device("FwCfg", 0x510, "fw_cfg", memory=memory, vcpus=vcpus),
        _device("Port92", 0x92, "port92"),
        _device("PostPort", 0x80, "post"),
    ]


def kernel_devices(memory: int, vcpus: int, irqchip: bool | str = True) -> list[Table]:
    """What a kernel or a payload that begins without firmware finds: clock, PCI, and the keyboard controller,
    by which it resets the machine. The arguments are those of `firmware_devices`.
    """
    return [
        *console_devices(),
        _device("CmosRtc", 0x70, "rtc", irq=8, memory=memory, vcpus=vcpus),
        _device("PciHost", 0xCF8, "pci"),
        _device("I8042", None if irqchip is True else 0x60, "i8042"),
    ]


def _device(kind: str, pio: int | None, name: str, **keys: Any) -> Table:
    """`pio`: None for a device that names its own ranges."""
    base = {} if pio is None else {"pio": pio}
    return {"type": f"shardio.devices:{kind}", **base, "name": name, **keys}
