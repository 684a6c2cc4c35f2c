"""A template of shards: an interpreter that has imported what every shard needs, and forks when told to.

Facts. Starting Python and importing what a shard needs takes 60 ms and more of a CPU: a machine of 64 shards
on two CPUs waited seconds for that. A fork of a process that has done it takes a few milliseconds. Forking is
sound where a process has one thread and nothing that two may not share: no ring, no event loop, no socket but
the one that it is told by.

Consequences. The template imports the library, never a device. Each fork is a child of the VMM, as if that
had started it (`native/sibling.c`): it is watched, killed and reaped like any other, and dies with the VMM.
It is nobody's shard yet, and goes on as a fresh interpreter does, in `shardio.shard.process.main`. What such
siblings have in common is where the kernel has placed their code and data, and Python's hash seed.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import threading

from shardio._core import lib
from shardio.shard import process

FDS = 3
"""What comes with each message: control and interrupt sockets, and notebook. The answer is the new process's
id in decimal, or a negative errno value.
"""


def main(control_fd: int, parent: int) -> None:
    """Fork at each message. Ends when the socket closes; dies with the VMM's supervisor thread."""
    if lib.sio_die_with_parent(parent) != 0:
        return
    gc.collect()
    gc.freeze()  # a collection in a fork would copy what all of them share
    with socket.socket(fileno=control_fd) as control:
        fds = _fork_until_told_no_more(control)
    if fds is not None:
        process.main(fds[0], fds[1], parent, fds[2])


def _fork_until_told_no_more(control: socket.socket) -> list[int] | None:
    """In a fork: its descriptors. In the template, at its end: None."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, 16, FDS, socket.MSG_CMSG_CLOEXEC)
        if not data or len(fds) != FDS:
            return None
        alone = threading.active_count() == 1
        pid = lib.sio_fork_sibling() if alone else -errno.EAGAIN
        if pid == 0:
            return fds
        for fd in fds:
            os.close(fd)
        control.send(b"%d" % pid)
