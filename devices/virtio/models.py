"""The devices that a configuration names: each type on each transport, with plain options.

>>> from shardio.devices.virtio import VirtioMmioRng
>>> hex(VirtioMmioRng().read(0x008, 4))
'0x4'
"""

from __future__ import annotations

from shardio.devices.byte_input import ByteInput
from shardio.devices.byte_output import ByteOutput
from shardio.devices.virtio.block import Block
from shardio.devices.virtio.console import Console
from shardio.devices.virtio.device import VirtioDevice
from shardio.devices.virtio.errors import VirtioError
from shardio.devices.virtio.image import RawImage
from shardio.devices.virtio.link import Link, SocketLink, TapLink
from shardio.devices.virtio.mmio import VirtioMmio
from shardio.devices.virtio.net import Net
from shardio.devices.virtio.pci import LINE, VirtioPci
from shardio.devices.virtio.rng import Rng


def make_block(path: str, read_only: bool, queues: int, threads: int, serial: str) -> Block:
    """A disk over the raw image at `path`. Raises ImageError, or DeviceOptionError for a number out of
    range.
    """
    image = RawImage(path, read_only=read_only)
    try:
        return Block(image, queues=queues, threads=threads, serial=serial)
    except BaseException:
        image.close()
        raise


def make_console(source: str, output: str, columns: int, rows: int) -> Console:
    """A terminal. Raises DeviceOptionError for a source or output of unknown form."""
    return Console(
        ByteInput(source, device="virtio console", option="source"),
        ByteOutput(output, device="virtio console"),
        columns=columns,
        rows=rows,
    )


def tap_capabilities(tap: str = "", **_: object) -> tuple[str, ...]:
    """What a network interface with these options needs, for a tap that is not the user's own."""
    return ("CAP_NET_ADMIN",) if tap else ()


def make_net(mac: str, tap: str, local: str, peer: str, mtu: int) -> Net:
    """An interface on a tap, or on a cable of two Unix socket addresses.

    Raises VirtioError when not exactly one of the two is given, BackendError when it cannot be opened.
    """
    if bool(tap) == bool(local and peer) or bool(local) != bool(peer):
        raise VirtioError("virtio net has no single host side", "give either tap, or both local and peer")
    link: Link = TapLink(tap) if tap else SocketLink.between(local, peer)
    try:
        return Net(link, mac, mtu=mtu)
    except BaseException:
        link.close()
        raise


class ResizableDisk:
    """A disk whose capacity changes while the guest runs; `call("resize", "64M")` from outside."""

    virtio: VirtioDevice

    def resize(self, size: int | str | None = None) -> int:
        """See `Block.resize`."""
        assert isinstance(self.virtio, Block)
        return self.virtio.resize(size)


class ResizableTerminal:
    """A terminal whose size changes while the guest runs; `call("resize", 132, 43)` from outside."""

    virtio: VirtioDevice

    def resize(self, columns: int, rows: int) -> None:
        """See `Console.resize`."""
        assert isinstance(self.virtio, Console)
        self.virtio.resize(columns, rows)

    def terminal_resized(self, columns: int, rows: int) -> None:
        """The terminal of whoever runs the machine has this size: nothing for a console that is elsewhere."""
        assert isinstance(self.virtio, Console)
        if self.virtio.on_terminal:
            self.virtio.resize(columns, rows)


class VirtioMmioRng(VirtioMmio):
    """Entropy from the host's generator."""

    def __init__(self) -> None:
        super().__init__(Rng())


class VirtioMmioConsole(ResizableTerminal, VirtioMmio):
    """A terminal on the host's `source` ("none", "stdin", "pty", "file:PATH", "fd:N") and `output`."""

    def __init__(
        self, source: str = "none", output: str = "stdout", columns: int = 80, rows: int = 25
    ) -> None:
        """Raises DeviceOptionError for a source or output of unknown form."""
        super().__init__(make_console(source, output, columns, rows))


class VirtioMmioBlock(ResizableDisk, VirtioMmio):
    """A disk over the raw image at `path`, with `queues` request queues and `threads` requests at the
    same time.
    """

    def __init__(
        self, path: str, read_only: bool = False, queues: int = 1, threads: int = 4, serial: str = "shardio"
    ) -> None:
        """Raises ImageError when the image cannot be used."""
        super().__init__(make_block(path, read_only, queues, threads, serial))


class VirtioMmioNet(VirtioMmio):
    """A network interface on the host's `tap`, or on a cable between the Unix socket addresses `local`
    and `peer`.
    """

    capabilities = staticmethod(tap_capabilities)

    def __init__(
        self, mac: str = "52:54:00:12:34:56", tap: str = "", local: str = "", peer: str = "", mtu: int = 1500
    ) -> None:
        """Raises VirtioError or BackendError when the host's side cannot be used."""
        super().__init__(make_net(mac, tap, local, peer, mtu))


class VirtioPciRng(VirtioPci):
    """Entropy from the host's generator, on PCI; INTx on `line`."""

    def __init__(self, line: int = LINE) -> None:
        super().__init__(Rng(), line=line)


class VirtioPciConsole(ResizableTerminal, VirtioPci):
    """`VirtioMmioConsole` on PCI; INTx on `line`."""

    def __init__(
        self,
        source: str = "none",
        output: str = "stdout",
        columns: int = 80,
        rows: int = 25,
        line: int = LINE,
    ) -> None:
        """Raises DeviceOptionError for a source or output of unknown form."""
        super().__init__(make_console(source, output, columns, rows), line=line)


class VirtioPciBlock(ResizableDisk, VirtioPci):
    """`VirtioMmioBlock` on PCI; INTx on `line`."""

    def __init__(
        self,
        path: str,
        read_only: bool = False,
        queues: int = 1,
        threads: int = 4,
        serial: str = "shardio",
        line: int = LINE,
    ) -> None:
        """Raises ImageError when the image cannot be used."""
        super().__init__(make_block(path, read_only, queues, threads, serial), line=line)


class VirtioPciNet(VirtioPci):
    """`VirtioMmioNet` on PCI; INTx on `line`."""

    capabilities = staticmethod(tap_capabilities)

    def __init__(
        self,
        mac: str = "52:54:00:12:34:56",
        tap: str = "",
        local: str = "",
        peer: str = "",
        mtu: int = 1500,
        line: int = LINE,
    ) -> None:
        """Raises VirtioError or BackendError when the host's side cannot be used."""
        super().__init__(make_net(mac, tap, local, peer, mtu), line=line)
