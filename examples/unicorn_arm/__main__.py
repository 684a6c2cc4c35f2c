"""An emulator of one's own: Unicorn runs an ARM program in this process, its peripherals run in shards.

Needs the package `unicorn` (pip install 'shardio[soft]').
"""

from unicorn import UC_ARCH_ARM, UC_MODE_ARM, Uc
from unicorn.arm_const import UC_ARM_REG_R2

from shardio import Dispatcher, MutDeviceMmio

CODE, UART, TIMER = 0x1_0000, 0x1000_0000, 0x1000_1000
# Prints "hi" through the UART, then adds three readings of the timer in r2.
PROGRAM = bytes.fromhex(
    "0102a0e3"  # mov r0, #0x10000000
    "6810a0e3"  # mov r1, #'h'
    "001080e5"  # str r1, [r0]
    "6910a0e3"  # mov r1, #'i'
    "001080e5"  # str r1, [r0]
    "010a80e2"  # add r0, r0, #0x1000
    "0020a0e3"  # mov r2, #0
    "003090e5032082e0"  # ldr r3, [r0]; add r2, r2, r3
    "003090e5032082e0"
    "003090e5032082e0"
)


class Uart(MutDeviceMmio):
    """Keeps what is printed."""

    def __init__(self):
        self.text = ""

    def read(self, offset, size):
        return 0

    def write(self, offset, size, value):
        self.text += chr(value & 0xFF)

    def printed(self):
        return self.text


class Timer(MutDeviceMmio):
    """Counts how often it was read."""

    def __init__(self):
        self.ticks = 0

    def read(self, offset, size):
        self.ticks += 1
        return self.ticks


def main() -> None:
    """Run the program to its end."""
    with Dispatcher(vcpus=1, shards=2) as dispatcher:
        uart = dispatcher.add(Uart, mmio=UART, size=0x1000, posted=True)
        dispatcher.add(Timer, mmio=TIMER, size=0x1000)
        port = dispatcher.port(0)

        def read(_uc, offset, size, base):
            data = bytearray(size)
            port.mmio_read(base + offset, data)
            return int.from_bytes(data, "little")

        def write(_uc, offset, size, value, base):
            port.mmio_write(base + offset, value.to_bytes(size, "little"))

        cpu = Uc(UC_ARCH_ARM, UC_MODE_ARM)
        cpu.mem_map(CODE, 0x1000)
        cpu.mem_write(CODE, PROGRAM)
        for base in (UART, TIMER):
            cpu.mmio_map(base, 0x1000, read, base, write, base)
        cpu.emu_start(CODE, CODE + len(PROGRAM))
        print("r2 =", cpu.reg_read(UC_ARM_REG_R2))
        port.read(1, UART, 4)  # a read of the same device comes behind what was posted
        print("printed:", uart.call("printed"))


if __name__ == "__main__":
    main()
