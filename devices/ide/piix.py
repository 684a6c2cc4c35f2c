"""`PiixIde`: the IDE controller of a PIIX3 as an endpoint of a `PciBus`: two channels at their old ports, and
bus-master DMA at BAR 4.

A configuration names it in `functions` of the bus, with the images of its drives. It interrupts by lines 14
and 15. Its decode-enable bits (0x40 to 0x43) start set and are kept for readers: the channels always answer.

Source: 82371FB/82371SB (PIIX/PIIX3) data sheet, section 2.3; Programming Interface for Bus Master IDE
Controller, revision 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shardio.devices.ide.bus_master import REGISTERS
from shardio.devices.ide.cdrom import CdRom
from shardio.devices.ide.channel import Channel, ChannelState, ControlPort
from shardio.devices.ide.data_port import AREA_BYTES
from shardio.devices.ide.disk import Disk
from shardio.devices.ide.packet import BLOCK
from shardio.devices.lines import line_trigger
from shardio.devices.pci_config import COMMAND, COMMAND_IO, COMMAND_MASTER, PciConfig
from shardio.devices.virtio.image import RawImage
from shardio.errors import DeviceOptionError, ImageError
from shardio.range import PioRange

if TYPE_CHECKING:
    from shardio.device import DeviceHost
    from shardio.interrupt.doorbell import Doorbell

LINES: Final = (14, 15)
PRIMARY, PRIMARY_CONTROL = PioRange(0x1F0, 8), PioRange(0x3F6, 1)
SECONDARY, SECONDARY_CONTROL = PioRange(0x170, 8), PioRange(0x376, 1)
BAR: Final = 4
_IDE_TIMING: Final = 0x40
_DECODES: Final = 0x8000_8000


class IdeState(msgspec.Struct, frozen=True):
    """Configuration space, and each channel."""

    config: bytes
    channels: list[ChannelState]


class _Function(PciConfig):
    """8086:7010, class 010180: IDE at its old addresses, with a bus master."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__(0x8086, 0x7010, class_code=0x010180)
        self.add_bar(BAR, 2 * REGISTERS, io=True)
        self.allow(_IDE_TIMING, 4, -1)
        self.store(_IDE_TIMING, 4, _DECODES)
        self._changed = changed

    def config_write(self, register: int, size: int, value: int) -> None:
        """See `PciConfig`; a bus master that was waiting may go on."""
        super().config_write(register, size, value)
        self._changed()


class PiixIde:
    """Up to four drives: `hda` and `hdb` on the primary channel, `hdc` and `hdd` on the secondary."""

    dma = True
    mmio_size = 0
    io_size, io_index = 2 * REGISTERS, BAR
    ports = (PRIMARY, PRIMARY_CONTROL, SECONDARY, SECONDARY_CONTROL)
    """Where it answers whatever its BARs say."""
    state_type = IdeState
    doorbells: Sequence[Doorbell] = ()
    persistent, persistent_area = 1 << 18, 2 * AREA_BYTES

    def __init__(
        self,
        hda: str = "",
        hdb: str = "",
        hdc: str = "",
        hdd: str = "",
        cdrom: str = "",
        read_only: bool = False,
        serial: str = "shardio",
    ) -> None:
        """`hda` to `hdd`: raw images of disks; `cdrom`: a raw image of a disc, in a drive that takes the
        place of `hdc`. `read_only`: the disks refuse writes. `serial`: how the disks' serial numbers begin,
        at most 18 ASCII characters.

        Raises ImageError for an image that cannot be used, DeviceOptionError where `hdc` is named as well as
        `cdrom`, or for a serial number that does not fit.
        """
        if cdrom and hdc:
            raise DeviceOptionError("PiixIde", "cdrom", cdrom, "it takes the place of hdc: leave hdc out")
        if len(serial) > 18 or not serial.isascii():
            raise DeviceOptionError("PiixIde", "serial", serial, "give at most 18 ASCII characters")
        self.on_bar: Callable[[int | None], None] | None = None
        self.channels = (Channel(), Channel())
        self.function = _Function(self._config_changed)
        self._fronts = dict(zip(self.ports, self._port_handlers(), strict=True))
        opened: list[RawImage] = []
        try:
            for number, path in enumerate((hda, hdb, hdc, hdd)):
                channel = self.channels[number >> 1]
                if path:
                    image = RawImage(path, read_only=read_only)
                    opened.append(image)
                    channel.drives[number & 1] = Disk(image, channel, serial=f"{serial}-{number}")
            if cdrom:
                image = RawImage(cdrom, read_only=True)
                opened.append(image)
                self.channels[1].drives[0] = CdRom(_disc(image), self.channels[1], serial=f"{serial}-2")
        except BaseException:
            for image in opened:
                image.close()
            raise

    def _port_handlers(self) -> list[Channel | ControlPort]:
        return [each for channel in self.channels for each in (channel, ControlPort(channel))]

    # -- what the bus calls -----------------------------------------------------------------------------

    def attach(self, host: DeviceHost) -> None:
        """Take the images for this device alone, guest RAM, and the two lines where the machine has lines.
        Raises ImageError when another device has an image.
        """
        try:
            for channel, line in zip(self.channels, LINES, strict=True):
                for drive in channel.drives:
                    if drive is not None:
                        drive.image.lock(f"device {host.name}")
                if any(channel.drives):
                    channel.raise_line = line_trigger(host, line).trigger
                channel.memory, channel.worker.loop = host.memory, host.loop
                channel.may_master = lambda: bool(self.function.load(COMMAND, 2) & COMMAND_MASTER)
                channel.resume()
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Wait for what is under way, and let go of the images."""
        for channel in self.channels:
            channel.detach()

    def port(self, span: PioRange) -> Channel | ControlPort:
        """Who answers one of `ports`."""
        return self._fronts[span]

    @property
    def io_bar(self) -> int | None:
        """The port where the bus-master registers answer; None while the guest has I/O decoding off."""
        base = self.function.bar(BAR)
        return base if base and self.function.load(COMMAND, 2) & COMMAND_IO else None

    def io_read(self, offset: int, size: int) -> int:
        """The bus-master registers: those of the primary channel come first."""
        return self.channels[offset // REGISTERS & 1].bus_master.read(offset % REGISTERS, size)

    def io_write(self, offset: int, size: int, value: int) -> None:
        """Likewise."""
        self.channels[offset // REGISTERS & 1].bus_master.write(offset % REGISTERS, size, value)

    def read(self, offset: int, size: int) -> int:
        """There is no memory BAR."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """There is no memory BAR."""

    def doorbell(self, index: int) -> None:
        """There are none."""

    def snapshot(self) -> IdeState:
        """What `restore` takes; what a thread has in hand is waited for."""
        return IdeState(bytes(self.function.data), [channel.snapshot() for channel in self.channels])

    def keep_in(self, store: Any, area: memoryview, keep: Callable[[], None]) -> None:
        """Before `restore` and `attach`: `area` outlives the shard, and `keep` saves what `kept` gives."""
        for number, channel in enumerate(self.channels):
            channel.keep_in(store, area[number * AREA_BYTES : (number + 1) * AREA_BYTES])
            channel.save = keep  # type: ignore[method-assign]

    def kept(self) -> IdeState:
        """The state, beside what is in the area."""
        return IdeState(bytes(self.function.data), [channel.kept() for channel in self.channels])

    def restore(self, state: IdeState) -> None:
        """Continue from `state`, before `attach` too."""
        self.function.data[:] = state.config
        for channel, saved in zip(self.channels, state.channels, strict=True):
            channel.restore(saved)

    def _config_changed(self) -> None:
        for channel in self.channels:
            channel.try_dma()


def _disc(image: RawImage) -> RawImage:
    if image.size % BLOCK:
        raise ImageError(
            image.path,
            f"has {image.size} bytes, not whole blocks of a disc",
            f"make it so: truncate -s %{BLOCK} {image.path}",
        )
    return image
