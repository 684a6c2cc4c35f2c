"""Other ways to serve the same device, each in a file of its own behind the interface in `peer`.

`PEERS` lists them; one whose package is not installed says so and is left out.
"""

from shardio.bench.peers import (
    busy_wait,
    faster,
    free_threaded,
    gil,
    iceoryx,
    managers,
    peer,
    pipe,
    queues,
    seqpacket,
    shard,
    subinterpreters,
    zero,
)

PEERS: tuple[type[peer.Session], ...] = (
    shard.CClient, shard.PythonClient, gil.OneProcess, free_threaded.FreeThreaded,
    subinterpreters.Subinterpreters, busy_wait.BusyWait, faster.FasterFifo, iceoryx.Iceoryx,
    seqpacket.SeqPacket, zero.ZeroMq, pipe.Pipe, queues.Queue, managers.Manager,
)  # fmt: skip
