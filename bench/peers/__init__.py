"""Other ways to serve the same device, each in a file of its own behind the interface in `peer`.

`PEERS` lists them; one whose package is not installed says so and is left out.
"""

from shardio.bench.peers.busy_wait import BusyWait
from shardio.bench.peers.faster import FasterFifo
from shardio.bench.peers.free_threaded import FreeThreaded
from shardio.bench.peers.gil import OneProcess
from shardio.bench.peers.iceoryx import Iceoryx
from shardio.bench.peers.managers import Manager
from shardio.bench.peers.peer import Session
from shardio.bench.peers.pipe import Pipe
from shardio.bench.peers.queues import Queue
from shardio.bench.peers.seqpacket import SeqPacket
from shardio.bench.peers.shard import CClient, PythonClient
from shardio.bench.peers.subinterpreters import Subinterpreters
from shardio.bench.peers.zero import ZeroMq

PEERS: tuple[type[Session], ...] = (
    CClient, PythonClient, OneProcess, FreeThreaded, Subinterpreters, BusyWait, FasterFifo, Iceoryx,
    SeqPacket, ZeroMq, Pipe, Queue, Manager,
)  # fmt: skip

__all__ = ["PEERS", "Session"]
