"""Devices that come with shardio: plain objects that a shard owns and a bare `IoManager` can test.

A configuration names them as `shardio.devices:Uart16550`. Each is imported when it is first asked for, so a
shard pays at its start only for those that it owns.

>>> from shardio.devices import Counter
>>> counter = Counter()
>>> counter.write(0, 4, 2)
>>> counter.read(0, 4)
2
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardio.errors import DeviceOptionError as DeviceOptionError
from shardio.lazy import lazily

if TYPE_CHECKING:
    from shardio.devices.acpi_power import AcpiPower as AcpiPower
    from shardio.devices.cmos_rtc import CmosRtc as CmosRtc
    from shardio.devices.debug_console import DebugConsole as DebugConsole
    from shardio.devices.exit_port import ExitPort as ExitPort
    from shardio.devices.fw_cfg import FwCfg as FwCfg
    from shardio.devices.hpet import Hpet as Hpet
    from shardio.devices.i8042 import I8042 as I8042
    from shardio.devices.ioapic import IoApic as IoApic
    from shardio.devices.log_device import LogDevice as LogDevice
    from shardio.devices.pci_bus import PciBus as PciBus
    from shardio.devices.pci_host import PciHost as PciHost
    from shardio.devices.pic import Pic as Pic
    from shardio.devices.pit import Pit as Pit
    from shardio.devices.port92 import Port92 as Port92
    from shardio.devices.post_port import PostPort as PostPort
    from shardio.devices.probes import Checksum as Checksum
    from shardio.devices.probes import Counter as Counter
    from shardio.devices.probes import Delay as Delay
    from shardio.devices.probes import Echo as Echo
    from shardio.devices.probes import Failing as Failing
    from shardio.devices.uart import Uart16550 as Uart16550
    from shardio.devices.vga_text import VgaText as VgaText

# Public name -> its module in this package.
_MODULES = {
    "AcpiPower": "acpi_power",
    "Checksum": "probes",
    "CmosRtc": "cmos_rtc",
    "Counter": "probes",
    "DebugConsole": "debug_console",
    "Delay": "probes",
    "Echo": "probes",
    "ExitPort": "exit_port",
    "Failing": "probes",
    "FwCfg": "fw_cfg",
    "Hpet": "hpet",
    "I8042": "i8042",
    "IoApic": "ioapic",
    "LogDevice": "log_device",
    "PciBus": "pci_bus",
    "PciHost": "pci_host",
    "Pic": "pic",
    "Pit": "pit",
    "Port92": "port92",
    "PostPort": "post_port",
    "Uart16550": "uart",
    "VgaText": "vga_text",
}

__all__ = ["DeviceOptionError", *_MODULES]


__getattr__, __dir__ = lazily(__name__, _MODULES)
