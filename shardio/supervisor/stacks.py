"""Finds out what a shard that hangs is doing, before it is killed: the access, and its Python stacks.

The supervisor's thread waits for nobody: it asks, and reads at its next look what has been written. The
signal that asks also interrupts a system call that sleeps: a shard may go on for the moment until it is
killed, and answer the access that it was at. Then that answer counts.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec

from shardio._core import ffi, lib
from shardio.address import Space
from shardio.fabric.statistics import describe_access
from shardio.shard import notebook
from shardio.supervisor.context import Context
from shardio.supervisor.interpreter import Interpreter
from shardio.supervisor.shard_process import ShardProcess

PATIENCE_S = 0.03
"""How long a shard has to write its stacks: one that is stopped writes none."""
QUIET_S = 0.002


class Hang(msgspec.Struct, frozen=True):
    """What hangs: the `shard`, the `vcpu` that waits, for which `device`, and in which access ("read of 4
    bytes at mmio 0xd0000000"). `step`: the step of a device's life that the shard was in, "" in a handler.
    `stacks`: its Python stacks, innermost call first.
    """

    shard: str
    vcpu: int
    device: str
    access: str
    step: str
    stacks: str

    def __str__(self) -> str:
        what = f"device {self.device}, {self.access}" if self.device else self.access
        step = f"; the shard is at: {self.step}" if self.step else ""
        stacks = f"; its Python stacks:\n{self.stacks.rstrip()}" if self.stacks else "; it gives no stacks"
        return f"shard {self.shard} has not answered vCPU {self.vcpu} ({what}){step}{stacks}"


def ask(shard: ShardProcess) -> Interpreter | None:
    """Have a shard write its stacks, in the supervisor's thread: `told` reads them, a moment later. None
    where it has no process.
    """
    interpreter = shard.interpreter
    if interpreter is not None:
        notebook.erase(interpreter.notebook)
        with contextlib.suppress(OSError):  # it is dead
            signal.pidfd_send_signal(interpreter.pidfd, notebook.SIGNAL)
    return interpreter


def told(shard: ShardProcess, asked: Interpreter | None) -> tuple[str, str]:
    """What the process `asked` of a shard is doing, and its Python stacks so far; each "" where there is
    none, or another process has come. In the supervisor's thread.
    """
    if asked is None or shard.interpreter is not asked:
        return "", ""
    return notebook.read(asked.notebook)


def look_into(shard: ShardProcess, call: Callable[[Callable[[], Any]], Any]) -> tuple[str, str]:
    """The same in any other thread, which waits for `PATIENCE_S` at most. `call` runs a function in the
    supervisor's.
    """
    asked = call(lambda: ask(shard))
    end = time.monotonic() + PATIENCE_S
    found: tuple[str, str] = call(lambda: told(shard, asked))
    while time.monotonic() < end:
        time.sleep(QUIET_S)
        before, found = found, call(lambda: told(shard, asked))
        if found[1] and found == before:
            break
    return found


def describe_hang(access: tuple[str, str], vcpu: int, shard: ShardProcess, asked: Interpreter | None) -> Hang:
    """What `vcpu` waits for (`access_of`), and the stacks of the shard, which was asked for them."""
    step, stacks = told(shard, asked)
    return Hang(shard.name, vcpu, *access, step, stacks)


def access_of(context: Context, vcpu: int, shard: int) -> tuple[str, str]:
    """The device and the access that `vcpu` waits for at a shard, in words."""
    request, taken = ffi.new("struct sio_request *"), ffi.new("int *")
    if not lib.sio_recover_request(context.fabric.view, shard, vcpu, request, taken):
        return "", "room for its posted writes"
    access = describe_access(
        Space.MMIO if request.space == lib.SIO_MMIO else Space.PIO,
        request.address,
        request.size,
        write=bool(request.op & lib.SIO_WRITE),
        count=request.count if request.op & lib.SIO_STRING else 1,
    )
    return context.routes.device(request.range), access
