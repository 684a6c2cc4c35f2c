"""`FwCfg`: the table of items by which firmware learns of its machine, at ports 0x510 (selector) and 0x511
(data).

Source: QEMU's docs/specs/fw_cfg, the traditional interface (no DMA); the file directory is its item 0x19.

>>> table = FwCfg()
>>> table.write(0, 2, 0x0000)
>>> bytes(table.read(1, 1) for _ in range(4))
b'QEMU'
"""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec

from shardio.device import MutDevicePio
from shardio.devices.options import in_range, memory_size
from shardio.errors import DeviceOptionError

SELECTOR = 0
DATA = 1

SIGNATURE = 0x00
ID = 0x01
RAM_SIZE = 0x03
NO_GRAPHICS = 0x04
CPU_COUNT = 0x05
BOOT_MENU = 0x0E
MAX_CPUS = 0x0F
FILE_DIRECTORY = 0x19
FILE_FIRST = 0x20

_TRADITIONAL_INTERFACE = 1
_NAME_BYTES = 55  # and a zero
_MOST_FILES = 0x100


class FwCfgState(msgspec.Struct):
    """What is selected, and the next byte of it."""

    selected: int
    position: int


class FwCfg(MutDevicePio):
    """Writing a 16-bit item number to offset 0 selects it; reads of offset 1 give its bytes, zeros past its
    end.
    """

    pio_size = 2

    def __init__(
        self,
        memory: int | str = "64M",
        vcpus: int = 1,
        sercon_port: int = 0x3F8,
        boot_menu: bool = False,
        files: list[str] | None = None,
    ) -> None:
        """`memory`: RAM in bytes or as "64M", `vcpus`: how many; firmware may take either for what the
        machine has. `sercon_port`: the UART that SeaBIOS uses as its console, 0 for none; `boot_menu`:
        whether it waits for a key; `files`: further items as "NAME=PATH", read now.

        Raises DeviceOptionError for values out of range and for a file that cannot be read.
        """
        size = memory_size(memory, device="FwCfg")
        if not size:
            raise DeviceOptionError("FwCfg", "memory", memory, "give the size of the machine's RAM")
        in_range(vcpus, 1, 0xFFFF, device="FwCfg", option="vcpus")
        in_range(sercon_port, 0, 0xFFFF, device="FwCfg", option="sercon_port")
        self._items = {
            SIGNATURE: b"QEMU",
            ID: struct.pack("<I", _TRADITIONAL_INTERFACE),
            RAM_SIZE: struct.pack("<Q", size),
            # It makes firmware talk on a serial line instead of a screen, which only makes sense with one.
            NO_GRAPHICS: struct.pack("<H", bool(sercon_port)),
            CPU_COUNT: struct.pack("<H", vcpus),
            BOOT_MENU: struct.pack("<H", boot_menu),
            MAX_CPUS: struct.pack("<H", vcpus),
        }
        self._files: dict[str, bytes] = {}
        self._selected = 0
        self._position = 0
        self._lay_out()
        if sercon_port:
            self.add_file("etc/sercon-port", struct.pack("<H", sercon_port))
        for each in files or []:
            self._load(each)

    def add_file(self, name: str, data: bytes) -> None:
        """Offer `data` under `name` (ASCII, at most 55 bytes); a later one of the same name replaces it.

        Raises DeviceOptionError for a name that does not fit or when 256 files are there.
        """
        if not name or not name.isascii() or len(name) > _NAME_BYTES:
            hint = f"give a name of 1 to {_NAME_BYTES} ASCII characters"
            raise DeviceOptionError("FwCfg", "files", name, hint)
        if name not in self._files and len(self._files) == _MOST_FILES:
            raise DeviceOptionError("FwCfg", "files", name, f"offer at most {_MOST_FILES} files")
        self._files[name] = bytes(data)
        self._lay_out()

    def read(self, offset: int, size: int) -> int:
        """The next `size` bytes of the selected item, the first in the low byte; the selector reads 0."""
        if offset != DATA:
            return 0
        item = self._items.get(self._selected, b"")
        value = int.from_bytes(item[self._position : self._position + size], "little")
        self._position += size
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Select an item and start at its first byte; items are read-only, so writes of data are dropped."""
        if offset == SELECTOR:
            self._selected = value & 0xFFFF
            self._position = 0

    def snapshot(self) -> FwCfgState:
        """What is selected."""
        return FwCfgState(self._selected, self._position)

    def restore(self, state: FwCfgState) -> None:
        """Go on with what `state` had selected."""
        self._selected, self._position = state.selected, state.position

    def _load(self, entry: str) -> None:
        name, equals, path = entry.partition("=")
        if not equals:
            raise DeviceOptionError("FwCfg", "files", entry, 'write "NAME=PATH"')
        try:
            self.add_file(name, Path(path).read_bytes())
        except OSError as error:
            hint = f"{error.strerror}; name a file that can be read"
            raise DeviceOptionError("FwCfg", "files", entry, hint) from error

    def _lay_out(self) -> None:
        """Number the files in the order of their names, and write the directory (its integers are
        big-endian).
        """
        directory = struct.pack(">I", len(self._files))
        for item, name in enumerate(sorted(self._files), FILE_FIRST):
            data = self._files[name]
            self._items[item] = data
            directory += struct.pack(">IHH56s", len(data), item, 0, name.encode())
        self._items[FILE_DIRECTORY] = directory
