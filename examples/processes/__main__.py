"""A VMM of plain processes: four vCPUs that are Python programs, two devices in two shards, and one of the
shards killed while they run. Nothing is lost: the counters keep their state in memory that outlives a shard.
"""

import os
import signal
from multiprocessing import Process

from shardio import Dispatcher, MutDeviceMmio, Port

COUNT, BASE, STRIDE = 2000, 0xD000_0000, 0x1000


class Counter(MutDeviceMmio):
    """Counts what is added. `persistent`: bytes of state that a successor finds again."""

    persistent = 8

    def attach(self, host):
        self.store = host.persistent
        self.value = int.from_bytes(self.store.state or b"", "little")

    def read(self, offset, size):
        return self.value

    def write(self, offset, size, value):
        self.value += value
        self.store.save(self.value.to_bytes(8, "little"))


def vcpu(port: Port) -> None:
    """What a vCPU does: it adds 1 to each counter, again and again."""
    for _ in range(COUNT):
        for number in range(2):
            port.mmio_write(BASE + STRIDE * number, (1).to_bytes(4, "little"))


def main() -> None:
    """Run it, and check the sums."""
    with Dispatcher(vcpus=4, shards=["left", "right"]) as dispatcher:
        counters = [
            dispatcher.add(Counter, mmio=BASE + STRIDE * n, size=STRIDE, shard=shard, policy="replay")
            for n, shard in enumerate(("left", "right"))
        ]
        guests = [Process(target=vcpu, args=(dispatcher.port(number),)) for number in range(4)]
        for guest in guests:
            guest.start()
        os.kill(dispatcher.statistics().shards[1].pid, signal.SIGKILL)
        for guest in guests:
            guest.join()
        print(*(counter.call("read", 0, 4) for counter in counters), "of", 4 * COUNT)
        print(*(f"{shard.name}: {shard.spawns} processes" for shard in dispatcher.statistics().shards))


if __name__ == "__main__":
    main()
