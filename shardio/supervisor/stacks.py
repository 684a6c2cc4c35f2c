"""Finds out what a shard that hangs is doing, before it is killed: the access, and its Python stacks.

The signal that asks for the stacks also interrupts a system call that sleeps: a shard may go on for the
moment until it is killed, and answer the access that it was at. Then that answer counts.
"""

from __future__ import annotations

import contextlib
import signal
import time

import msgspec

from shardio._core import ffi, lib
from shardio.address import Space
from shardio.fabric.statistics import describe_access
from shardio.shard import notebook
from shardio.supervisor.context import Context
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


def describe_hang(context: Context, vcpu: int, shard: ShardProcess) -> Hang:
    """What `vcpu` waits for, and the shard's stacks. May wait for `PATIENCE_S`."""
    device, access = _access(context, vcpu, shard.index)
    step, stacks = look_into(shard)
    return Hang(shard.name, vcpu, device, access, step, stacks)


def look_into(shard: ShardProcess) -> tuple[str, str]:
    """What a shard is doing, and its Python stacks; each "" where there is none."""
    interpreter = shard.interpreter
    if interpreter is None:
        return "", ""
    fd = interpreter.notebook
    notebook.erase(fd)
    with contextlib.suppress(OSError):  # it is dead
        signal.pidfd_send_signal(interpreter.pidfd, notebook.SIGNAL)
    end = time.monotonic() + PATIENCE_S
    found = notebook.read(fd)
    while time.monotonic() < end:
        time.sleep(QUIET_S)
        before, found = found, notebook.read(fd)
        if found[1] and found == before:
            break
    return found


def _access(context: Context, vcpu: int, shard: int) -> tuple[str, str]:
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
