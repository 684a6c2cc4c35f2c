"""The demo's machine: its devices by shard, its run, and the host's own calculation of the guest's result.

Each vCPU has one checksum device on every shard; those of the odd shards take posted writes. The serial
console and the exit port are devices in shards too.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardio.demo.assembler import assemble
from shardio.dispatcher import ExitInfo, MachineStatistics
from shardio.errors import MachineError
from shardio.machine import Machine

LOAD_ADDRESS = 0x1000
PARAMETERS = 0x1010
RESULTS, RESULTS_SIZE = 0x8000, 64
DEVICES, DEVICE_STRIDE = 0xD000_0000, 0x1000
MAX_VCPUS = 10
"""The guest tells a vCPU by one digit."""
MAX_SHARDS = 7
"""Checksums that fit a vCPU's results."""
MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1


@dataclass(frozen=True)
class Outcome:
    """What the demo came to. Checksums by vCPU, then by shard: `read` by the guest, `expected` by the host.

    `ended` is None when the guest had not ended in time.
    """

    ended: ExitInfo | None
    read: list[list[int]]
    expected: list[list[int]]
    statistics: MachineStatistics

    @property
    def matches(self) -> bool:
        """Whether the guest came to its end with every checksum right."""
        return self.ended == ExitInfo("exit", status=0) and self.read == self.expected


class Demo:
    """The demo's scene: `vcpus` (1 to 10), `shards` (1 to 7), `count` writes to each device (1 to 2^31);
    `cpu` as `Machine` has it.

    Raises MachineError for other numbers.
    """

    def __init__(self, vcpus: int = 2, shards: int = 2, count: int = 2000, cpu: str = "auto") -> None:
        for what, value, limit in (
            ("vCPUs", vcpus, MAX_VCPUS),
            ("shards", shards, MAX_SHARDS),
            ("writes", count, 1 << 31),
        ):
            if not 1 <= value <= limit:
                raise MachineError(f"a demo with {value} {what}", f"use 1 to {limit}")
        self.vcpus, self.shards, self.count, self.cpu = vcpus, shards, count, cpu

    def run(self, output: str = "stdout", timeout: float = 60.0) -> Outcome:
        """Runs the guest to its end, its console on `output` (an output of `Uart16550`); `timeout` in
        seconds.

        Raises AssemblerError, and what `Machine` raises.
        """
        image = assemble(address=LOAD_ADDRESS)
        with Machine(memory="2M", vcpus=self.vcpus, shards=self.shards, cpu=self.cpu) as vm:
            vm.load(image, at=LOAD_ADDRESS)
            for i, value in enumerate((self.vcpus, self.shards, self.count)):
                vm.memory.write(PARAMETERS + 4 * i, value.to_bytes(4, "little"))
            self._add_devices(vm, output)
            vm.start()
            ended = vm.wait(timeout)
            vm.stop()
            read = [
                [self._result(vm, vcpu, shard) for shard in range(self.shards)] for vcpu in range(self.vcpus)
            ]
            return Outcome(ended, read, self.expected(), vm.statistics())

    def expected(self) -> list[list[int]]:
        """What each device's checksum must be: FNV-1a over the guest's sequence, by the host alone."""
        return [self._expected_of(vcpu) for vcpu in range(self.vcpus)]

    def _add_devices(self, vm: Machine, output: str) -> None:
        vm.add("shardio.devices:Uart16550", name="console", pio=0x3F8, irq=4, output=output, shard="shard0")
        last = f"shard{self.shards - 1}"
        vm.add("shardio.devices:ExitPort", name="exit", pio=0xF4, raw=True, shard=last)
        for number in range(self.vcpus * self.shards):
            vcpu, shard = divmod(number, self.shards)
            vm.add(
                "shardio.devices:Checksum",
                name=f"checksum {vcpu}.{shard}",
                mmio=DEVICES + DEVICE_STRIDE * number,
                shard=f"shard{shard}",
                posted=bool(shard & 1),
            )

    def _result(self, vm: Machine, vcpu: int, shard: int) -> int:
        return int.from_bytes(vm.memory.read(RESULTS + RESULTS_SIZE * vcpu + 8 + 8 * shard, 8), "little")

    def _expected_of(self, vcpu: int) -> list[int]:
        state = (vcpu + 1) * 0x9E37_79B9 & MASK32
        hashes = [0xCBF2_9CE4_8422_2325] * self.shards
        for _ in range(self.count):
            for shard in range(self.shards):
                state = (state * 1664525 + 1013904223) & MASK32
                for byte in state.to_bytes(4, "little"):
                    hashes[shard] = (hashes[shard] ^ byte) * 0x0000_0100_0000_01B3 & MASK64
        return hashes
