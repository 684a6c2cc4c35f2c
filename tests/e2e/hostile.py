"""A machine with a hostile device beside a good one, as a program: `python -m tests.e2e.hostile WAY`.

The device attacks the VMM's side of its sockets; then the good device's shard is killed, which the VMM has
to mend, and the machine is closed. Prints as JSON what was seen: see `Seen`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator

import msgspec

from shardio import Machine, MachineError, MutDeviceMmio
from shardio.device import DeviceHost
from shardio.dispatcher import DeviceHandle, requests
from shardio.shard import protocol
from shardio.supervisor import stacks
from tests.e2e.support import MMIO, NEVER, accesses_to, machine, until
from tests.guests.build import guest

LARGE, SMALL = (12, 100_000), (1400, 10)
"""Calls of the device, and the bytes given with each."""
LINGER_S = 60


class Seen(msgspec.Struct):
    """What became of the machine: how often each shard was started, the seconds from a kill of the good
    device's shard until that device answered again, and those that closing took; the program's user.
    """

    spawns: dict[str, int]
    mended_s: float
    closed_s: float
    uid: int


class Hostile(MutDeviceMmio):
    """Attacks the process at the other end of each of its sockets. `peer`: the port of a listener on this
    host that reads nothing; `at_once`: what it does as soon as it has been made.
    """

    mmio_size = 0x100

    def __init__(self, peer: int = 0, at_once: str = "") -> None:
        self.peer, self.at_once = peer, at_once

    def attach(self, host: DeviceHost) -> None:
        if self.at_once:
            host.loop.call_later(0.2, self._begin)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Nothing."""

    def _begin(self) -> None:
        getattr(self, self.at_once)()
        socket.create_connection(("127.0.0.1", self.peer)).close()  # it has begun

    def linger(self) -> None:
        """Send a socket whose close waits for its peer on every socket that leads to the VMM."""
        for sock in _sockets():
            tcp = socket.create_connection(("127.0.0.1", self.peer))
            with contextlib.suppress(OSError), sock, tcp:
                tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_S))
                tcp.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while tcp.send(bytes(65536)):
                        pass
                message = protocol.encode(protocol.Done(1, beside=True))
                socket.send_fds(sock, [message], [tcp.fileno()])

    def nonsense(self) -> None:
        """Send bytes that are no message."""
        for sock in _sockets():
            with sock, contextlib.suppress(OSError):
                sock.send(b"\xc1\xff" * 100)

    def go_deaf(self) -> None:
        """Read no message of the VMM any more."""
        import asyncio

        for sock in _sockets():
            with sock:
                for fd in range(3, 64):
                    with contextlib.suppress(OSError):
                        if os.path.sameopenfile(fd, sock.fileno()):
                            asyncio.get_event_loop().remove_reader(fd)

    def take(self, data: bytes) -> None:
        """A call with something to carry."""


def _sockets() -> Iterator[socket.socket]:
    """Duplicates of this process's sockets of messages, as an attacker finds them."""
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(fd))
            if sock.type == socket.SOCK_SEQPACKET:
                yield sock
            else:
                sock.close()


def attack(way: str, vm: Machine, bad: DeviceHandle) -> None:
    """What the device, and the program that calls it, do."""
    what, _, calls = way.partition(" ")
    if what == "stopped":
        os.kill(vm.statistics().shards[1].pid, signal.SIGSTOP)
    else:
        _call(bad, what)
    count, size = {"": (0, 0), "large": LARGE, "small": SMALL}[calls]
    for _ in range(count):
        _call(bad, "take", bytes(size))


def _call(device: DeviceHandle, method: str, *arguments: object) -> None:
    with contextlib.suppress(MachineError):  # its shard is ended for it, or does not answer
        device.call(method, *arguments)


def main(way: str) -> None:
    """The machine's whole life."""
    # A program that gives up soon, and calls again.
    requests.REQUEST_TIMEOUT_S, stacks.PATIENCE_S = 0.0005, 0.0
    with socket.create_server(("127.0.0.1", 0)) as listener, machine(shards=2) as vm:
        vm.load(guest("mmio_loop", COUNT=NEVER, WRITE=0))
        vm.add("tests.e2e.devices:Recorder", mmio=MMIO, size=0x100, shard="good", name="good")
        bad = vm.add(Hostile, mmio=MMIO + 0x1000, shard="bad", peer=listener.getsockname()[1])
        requests.REQUEST_TIMEOUT_S, patience = 30.0, requests.REQUEST_TIMEOUT_S
        vm.start()
        requests.REQUEST_TIMEOUT_S = patience
        attack(way, vm, bad)
        os.kill(vm.statistics().shards[0].pid, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: vm.statistics().shards[0].spawns == 2, "a successor")
        so_far = accesses_to("good", vm)
        until(lambda: accesses_to("good", vm) > so_far + 1, "the good device answers")
        mended = time.monotonic() - killed
        shards = {shard.name: shard.spawns for shard in vm.statistics().shards[:2]}
        began = time.monotonic()
        vm.stop()
        vm.close()
        seen = Seen(shards, mended, time.monotonic() - began, os.geteuid())
    print(json.dumps(msgspec.to_builtins(seen)), flush=True)
    os._exit(0)  # a thread may still be closing what was sent


if __name__ == "__main__":
    main(sys.argv[1])
