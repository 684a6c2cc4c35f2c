"""An interpreter that waits to be told which shard it is."""

from __future__ import annotations

import fcntl
import gc
import resource
import socket
import sys
from contextlib import closing

import pytest

from shardio.shard import protocol
from shardio.shard.spare import Spare

HIGH = 1500


def test_a_spare_of_a_vmm_with_many_descriptors_gets_ready() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard <= HIGH:
        pytest.skip(f"the limit on open files is {hard}: no descriptor above 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HIGH + 64), hard))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        high = socket.socket(fileno=fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, HIGH))
        with high, closing(Spare(high)) as spare:
            protocol.send(ours, protocol.Prepare(sys.path, []))
            ours.shutdown(socket.SHUT_WR)
            assert spare.wait() is None
    finally:
        gc.unfreeze()
        ours.close()
        theirs.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
