"""What tells a kernel which devices there are: MP table, ACPI tables, device tree, kernel arguments.

Read `hardware` first: what a machine holds, in the terms that all four are made from.
"""

from shardio.platform.acpi import acpi_tables
from shardio.platform.acpi_files import acpi_files
from shardio.platform.device_tree import device_tree
from shardio.platform.hardware import Hardware, PciPin, PlatformDevice, described
from shardio.platform.kernel import kernel_arguments
from shardio.platform.mp import mp_table
from shardio.platform.place import TABLE_KINDS, TableKind, place_tables

__all__ = [
    "TABLE_KINDS",
    "Hardware",
    "PciPin",
    "PlatformDevice",
    "TableKind",
    "acpi_files",
    "acpi_tables",
    "described",
    "device_tree",
    "kernel_arguments",
    "mp_table",
    "place_tables",
]
