"""`LogDevice`: a device that does nothing but tell about each access, the first example of a device.

>>> device = LogDevice(output="null", value=0x2A)
>>> answer = bytearray(2)
>>> device.mmio_read(MmioAddress(0xD000_0000), 4, memoryview(answer))
>>> answer.hex()
'2a00'
"""

from __future__ import annotations

from shardio.address import MmioAddress, PioAddress
from shardio.device import DeviceHost, DeviceMmio, DevicePio
from shardio.devices.byte_output import ByteOutput


class LogDevice(DevicePio, DeviceMmio):
    """One line an access; reads give `value`. It is immutable: no access changes what another one gets."""

    pio_size = 8
    mmio_size = 0x1000

    def __init__(self, output: str = "stderr", value: int = 0) -> None:
        """`output`: "stdout", "stderr", "null", "file:PATH" (appended), "pty" or "fd:N"; `value`: what reads
        give, truncated to their width.

        Raises DeviceOptionError for any other output.
        """
        self.output = ByteOutput(output, device="LogDevice")
        self.value = value

    def attach(self, host: DeviceHost) -> None:
        """Open the output."""
        self.output.attach(host)

    def detach(self) -> None:
        """Flush and close the output."""
        self.output.close()

    def pio_read(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """Log, and give `value`."""
        self._read("pio", base, offset, data)

    def pio_write(self, base: PioAddress, offset: int, data: memoryview) -> None:
        """Log."""
        self._write("pio", base, offset, data)

    def mmio_read(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """Log, and give `value`."""
        self._read("mmio", base, offset, data)

    def mmio_write(self, base: MmioAddress, offset: int, data: memoryview) -> None:
        """Log."""
        self._write("mmio", base, offset, data)

    def _read(self, space: str, base: int, offset: int, data: memoryview) -> None:
        size = len(data)
        data[:] = (self.value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self._tell(f"{space} read base {base:#x} offset {offset:#x} size {size}\n")

    def _write(self, space: str, base: int, offset: int, data: memoryview) -> None:
        value = int.from_bytes(data, "little")
        self._tell(f"{space} write base {base:#x} offset {offset:#x} size {len(data)} value {value:#x}\n")

    def _tell(self, line: str) -> None:
        self.output.write(line.encode())
