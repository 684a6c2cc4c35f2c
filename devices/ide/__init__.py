"""An IDE controller with disks and a CD-ROM drive, which every boot loader and kernel knows.

Read `channel` first: the ports and the data that goes through them. `drive` is what `disk` and `cdrom` have
in common, `bus_master` moves data without the processor, `piix` is the PCI function that a configuration
names.
"""

from shardio.devices.ide.piix import PiixIde

__all__ = ["PiixIde"]
