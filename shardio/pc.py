"""The devices of a PC as `[[device]]` tables: what firmware and kernels look for, and what lets a flat image
speak.

The machine's own table of devices comes first: where one has the range, the PC's is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Table = dict[str, Any]

PCI_WINDOW = 0xE000_0000
"""Where the BARs of PCI functions are, above RAM and below the controllers at 0xFEC0_0000."""


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
    """What a kernel or a payload that begins without firmware finds: clock, PCI, keyboard controller, a
    screen of text, and the registers by which it powers off and resets the machine. The arguments are those
    of `firmware_devices`.
    """
    serial, end = console_devices()
    return [
        serial,
        _device("PciHost", 0xCF8, "pci"),  # next to the console, so that they are spread over two shards
        end,
        _device("CmosRtc", 0x70, "rtc", irq=8, memory=memory, vcpus=vcpus),
        _device("I8042", None if irqchip is True else 0x60, "i8042"),
        _device("VgaText", None, "vga"),
        _device("AcpiPower", 0x600, "power"),
    ]


def with_functions(tables: Sequence[Table], functions: Sequence[Table]) -> list[Table]:
    """The devices with a PCI bus that has these functions, in place of the host bridge alone."""
    if not functions:
        return list(tables)
    bus = _device("PciBus", 0xCF8, "pci", mmio=PCI_WINDOW, functions=list(functions))
    return [bus if table["name"] == "pci" else table for table in tables]


def functions(
    disks: Sequence[Path], cdrom: Path | None, nets: Sequence[str], *, ide: bool
) -> list[Table]:
    """Drives and network cards on PCI: disks behind an IDE controller, of which firmware and boot loaders
    know, or each a virtio-blk; `nets` in the words of `net`.

    Raises ValueError for what is no network, and for more disks than the controller has places.
    """
    made: list[Table] = []
    drives = {"cdrom": str(cdrom)} if cdrom is not None else {}
    if ide:
        places = [place for place in ("hda", "hdb", "hdc", "hdd") if not (cdrom and place == "hdc")]
        if len(disks) > len(places):
            raise ValueError(f"{len(disks)} disks, and the IDE controller has room for {len(places)}")
        drives |= {place: str(path) for place, path in zip(places, disks, strict=False)}
    else:
        made += [{"type": "shardio.devices.virtio:VirtioPciBlock", "path": str(path)} for path in disks]
    if drives:
        made.insert(0, {"type": "shardio.devices.ide:PiixIde", **drives})
    return [*made, *(net(text, index) for index, text in enumerate(nets))]


def net(text: str, index: int = 0) -> Table:
    """A virtio-net from `tap:NAME`, a tap interface of the host, or `pair:OWN,PEER`, two socket paths of
    which another machine has the same the other way round. `index` makes the MAC address another one.

    >>> net("tap:tap0", 1)["mac"], net("pair:/tmp/a,/tmp/b")["peer"]
    ('52:54:00:12:34:57', '/tmp/b')
    """
    kind, _, rest = text.partition(":")
    own, _, peer = rest.partition(",")
    table = {"type": "shardio.devices.virtio:VirtioPciNet", "mac": f"52:54:00:12:34:{0x56 + index:02x}"}
    if kind == "tap" and rest and not peer:
        return {**table, "tap": rest}
    if kind == "pair" and own and peer:
        return {**table, "local": own, "peer": peer}
    raise ValueError(f'"{text}" is no network: write tap:NAME or pair:OWN,PEER')


def _device(kind: str, pio: int | None, name: str, **keys: Any) -> Table:
    """`pio`: None for a device that names its own ranges."""
    base = {} if pio is None else {"pio": pio}
    return {"type": f"shardio.devices:{kind}", **base, "name": name, **keys}
