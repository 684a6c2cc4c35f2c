"""What is shared, handed to a user's own `multiprocessing.Process`, by each start method."""

from __future__ import annotations

import multiprocessing
import pickle
from multiprocessing.connection import Connection

import pytest

from shardio import FabricError, MemoryAccessError
from shardio.fabric import Fabric, Port
from shardio.memory import PAGE_SIZE, GuestMemory
from tests.fabric.support import BASE, MMIO, PATIENCE_S, Log, bench
from tests.fabric.test_lifetime import in_a_process

METHODS = ["spawn", "forkserver", "fork"]


def ask(fabric: Fabric, memory: GuestMemory, told: Connection) -> None:
    """In the process: an access of vCPU 1, and what the guest's first bytes are."""
    client = Port(fabric, 1)
    answers = [*client.read(MMIO, BASE, 4), client.write(MMIO, BASE, 4, 9)]
    told.send([*map(int, answers), memory.read(0, 5)])
    memory.write(8, b"back")
    fabric.close()
    memory.close()


def hand_over(method: str) -> None:
    """Start such a process; what it was answered, what the device saw, and what it wrote."""
    context = multiprocessing.get_context(method)
    device = Log([0x1234])
    here, there = context.Pipe()
    with bench(vcpus=2) as b, GuestMemory(PAGE_SIZE) as memory:
        memory.write(0, b"shard")
        owner, _, _ = b.connect(device)
        process = context.Process(target=ask, args=(b.fabric, memory, there))
        process.start()
        with b.serving(owner):
            assert here.poll(PATIENCE_S)
            print(*here.recv())
            process.join(PATIENCE_S)
        print(process.exitcode, device.seen, memory.read(8, 4))


@pytest.mark.parametrize("method", METHODS)
def test_a_process_of_any_kind_takes_part(method: str) -> None:
    """In a process of its own, since multiprocessing keeps helpers until its end."""
    program = f"from tests.fabric.test_hand_over import hand_over; hand_over({method!r})"

    assert in_a_process(program).splitlines() == ["0 4660 0 b'shard'", "0 [(0, 4, None), (0, 4, 9)] b'back'"]


def test_what_is_closed_is_not_handed_over() -> None:
    fabric, memory = Fabric.create(vcpus=1, shards=1), GuestMemory(PAGE_SIZE)
    fabric.close()
    memory.close()

    with pytest.raises(FabricError, match="closed"):
        pickle.dumps(fabric)
    with pytest.raises(MemoryAccessError):
        pickle.dumps(memory)
