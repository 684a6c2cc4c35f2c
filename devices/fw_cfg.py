"""`FwCfg`: the table of items by which firmware learns of its machine, at ports 0x510 (selector), 0x511
(data) and, where the machine has guest memory for it, 0x514 (the address of a DMA request, big-endian).

Source: QEMU's docs/specs/fw_cfg; the file directory is its item 0x19.

>>> table = FwCfg()
>>> table.write(0, 2, 0x0000)
>>> bytes(table.read(1, 1) for _ in range(4))
b'QEMU'
"""

from __future__ import annotations

import base64
import binascii
import logging
import struct
from pathlib import Path

import msgspec

from shardio.device import DeviceHost, HostMemory, MutDevicePio
from shardio.devices.fw_cfg_kernel import kernel_items
from shardio.devices.options import in_range, list_of_texts, memory_size
from shardio.errors import DeviceOptionError, MemoryAccessError
from shardio.memory import regions_of
from shardio.rate import guest_log

log = logging.getLogger("shardio.devices.fw_cfg")

SELECTOR = 0
DATA = 1
DMA_HIGH, DMA_LOW = 4, 8

SIGNATURE = 0x00
ID = 0x01
RAM_SIZE = 0x03
NO_GRAPHICS = 0x04
CPU_COUNT = 0x05
BOOT_MENU = 0x0E
MAX_CPUS = 0x0F
FILE_DIRECTORY = 0x19
FILE_FIRST = 0x20

_TRADITIONAL_INTERFACE, _DMA_INTERFACE = 1, 2
_DMA_SIGNATURE = b"QEMU CFG"
_DMA_ERROR, _DMA_READ, _DMA_SKIP, _DMA_SELECT, _DMA_WRITE = 0x01, 0x02, 0x04, 0x08, 0x10
_DMA_REQUEST = struct.Struct(">IIQ")
_E820_RAM = 1
_NAME_BYTES = 55  # and a zero
_MOST_FILES = 0x100


class FwCfgState(msgspec.Struct):
    """What is selected, the next byte of it, and the DMA address's high half that was written last."""

    selected: int
    position: int
    dma_high: int = 0


class FwCfg(MutDevicePio):
    """Writing a 16-bit item number to offset 0 selects it; reads of offset 1 give its bytes, zeros past its
    end. A write of offset 8 begins the DMA request at the address of which it is the low half.
    """

    pio_size = 12
    persistent, state_type = 128, FwCfgState
    dma = True
    record_dma = True

    def __init__(
        self,
        memory: int | str = "64M",
        vcpus: int = 1,
        sercon_port: int = 0x3F8,
        boot_menu: bool = False,
        files: list[str] | None = None,
        boot_order: list[str] | None = None,
        kernel: str = "",
        initrd: str = "",
        command_line: str = "",
        acpi_files: list[str] | None = None,
    ) -> None:
        """`memory`: RAM in bytes or as "64M", `vcpus`: how many; firmware may take either for what the
        machine has. `sercon_port`: the UART that SeaBIOS uses as its console, 0 for none; `boot_menu`:
        whether it waits for a key; `files`: further items as "NAME=PATH", read now; `boot_order`: device
        paths, the first one first, as SeaBIOS's "bootorder" names them; `kernel`, `initrd`, `command_line`:
        what firmware that can boot Linux is to boot; `acpi_files`: the machine's tables and what loads them
        (`shardio.platform.acpi_files`), each as "NAME=" and base64; a machine of a configuration gives them.

        Raises DeviceOptionError for values out of range and for a file that cannot be read.
        """
        size = memory_size(memory, device="FwCfg")
        if not 0 < size < 1 << 64:
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
        self._dma_high = 0
        self._memory: HostMemory | None = None
        regions = regions_of(size)
        self.add_file("etc/e820", b"".join(
            struct.pack("<QQI", region.guest_address, region.size, _E820_RAM) for region in regions
        ))  # fmt: skip
        if kernel:
            pieces = self._read("kernel", kernel), self._read("initrd", initrd) if initrd else b""
            self._items.update(kernel_items(*pieces, command_line, regions[0].end))
        if paths := list_of_texts(boot_order, device="FwCfg", option="boot_order"):
            self.add_file("bootorder", "\n".join(paths).encode() + b"\0")
        if sercon_port:
            self.add_file("etc/sercon-port", struct.pack("<H", sercon_port))
        for each in list_of_texts(files, device="FwCfg", option="files"):
            self._load(each)
        for each in list_of_texts(acpi_files, device="FwCfg", option="acpi_files"):
            self._decode(each)

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

    def attach(self, host: DeviceHost) -> None:
        """Offer the DMA interface from now on, where there is guest memory."""
        self._memory = host.memory
        if self._memory is not None:
            self._items[ID] = struct.pack("<I", _TRADITIONAL_INTERFACE | _DMA_INTERFACE)

    def detach(self) -> None:
        """Touch no guest memory any more."""
        self._memory = None

    def read(self, offset: int, size: int) -> int:
        """The next `size` bytes of the selected item, the first in the low byte; the selector reads 0, the
        DMA address the interface's signature.
        """
        if offset == DATA:
            return int.from_bytes(self._next(size), "little")
        if offset >= DMA_HIGH and self._memory is not None:
            at = offset - DMA_HIGH
            return int.from_bytes(_DMA_SIGNATURE[at : at + size], "little")
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Select an item and start at its first byte, or begin a DMA request; items are read-only, so writes
        of data are dropped.
        """
        if offset == SELECTOR:
            self._select(value & 0xFFFF)
        elif size == 4 and offset in (DMA_HIGH, DMA_LOW) and self._memory is not None:
            half = int.from_bytes(value.to_bytes(4, "little"), "big")
            if offset == DMA_HIGH:
                self._dma_high = half
            else:
                address, self._dma_high = self._dma_high << 32 | half, 0
                self._transfer(self._memory, address)

    def snapshot(self) -> FwCfgState:
        """What is selected."""
        return FwCfgState(self._selected, self._position, self._dma_high)

    def restore(self, state: FwCfgState) -> None:
        """Go on with what `state` had selected."""
        self._selected, self._position = state.selected, state.position
        self._dma_high = state.dma_high

    def _select(self, item: int) -> None:
        self._selected, self._position = item, 0

    def _next(self, size: int) -> bytes:
        """The next bytes of the item; fewer, or none, where it ends."""
        item = self._items.get(self._selected, b"")
        found = item[self._position : self._position + size]
        self._position += size
        return found

    def _transfer(self, memory: HostMemory, address: int) -> None:
        """Do what struct FWCfgDmaAccess at `address` asks for; its control word tells of the end: 0, or the
        error bit. A request that is not in guest RAM tells nobody.
        """
        try:
            control, length, target = _DMA_REQUEST.unpack(memory.read(address, _DMA_REQUEST.size))
        except MemoryAccessError:
            guest_log.warning(log, "fw_cfg: a DMA request at %#x, where there is no memory", address)
            return
        if control & _DMA_SELECT:
            self._select(control >> 16)
        status = 0
        if control & _DMA_READ:
            try:
                view = memory.view(target, length)
                found = self._next(length)
                view[: len(found)] = found
                view[len(found) :] = bytes(length - len(found))
            except MemoryAccessError:
                status = _DMA_ERROR
        elif control & _DMA_WRITE:
            status = _DMA_ERROR  # nothing can be written
        elif control & _DMA_SKIP:
            self._position += length
        memory.write(address, struct.pack(">I", status))

    def _load(self, entry: str) -> None:
        name, equals, path = entry.partition("=")
        if not equals:
            raise DeviceOptionError("FwCfg", "files", entry, 'write "NAME=PATH"')
        self.add_file(name, self._read("files", path, entry))

    def _decode(self, entry: str) -> None:
        name, _, text = entry.partition("=")
        try:
            self.add_file(name, base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise DeviceOptionError("FwCfg", "acpi_files", name, 'write "NAME=" and base64') from error

    def _read(self, option: str, path: str, given: str = "") -> bytes:
        try:
            return Path(path).read_bytes()
        except (OSError, TypeError, ValueError) as error:  # ValueError: a zero character
            hint = f"{getattr(error, 'strerror', None) or error}; name a file that can be read"
            raise DeviceOptionError("FwCfg", option, given or path, hint) from error

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
