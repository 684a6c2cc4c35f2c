"""Has shards go on with what their devices' files say now, while the guest runs.

A shard ends in good order between two accesses and its successor takes over, by the same way as after a
death: what is asked of it meanwhile waits, and what outlives a shard is there (`shardio.persistent`). The
successor has loaded the devices' modules before, so that a file with a mistake in it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from shardio.errors import MachineError
from shardio.supervisor import ShardProcess, Supervisor
from shardio.supervisor.loop import QUIT_S

LOAD_S = 30.0
"""How long importing the modules of all devices may take."""


def reload(
    supervisor: Supervisor,
    shard: ShardProcess,
    answer: Callable[[ShardProcess, Future[Any]], Any],
    closing: Future[None],
) -> None:
    """Raises `MachineError`: where a module cannot be loaded the shard goes on as it was; where a device
    cannot be made, `DeviceFailed`, the shard has died by it.
    """
    if supervisor.call(lambda: shard.quarantined or not shard.alive):
        raise MachineError(f"shard {shard.name} has been given up", "start the machine anew")
    fresh: Future[Any] = supervisor.call(supervisor.fresh_spare)
    if not wait([fresh, closing], LOAD_S, FIRST_COMPLETED).done:
        what = f"shard {shard.name} goes on as it was: the modules are not imported within {LOAD_S:g} s"
        raise MachineError(what, "see what they wait for while they are imported, and reload again")
    if failed := answer(shard, fresh):
        what = f"shard {shard.name} goes on as it was: {failed}"
        raise MachineError(what, "mend it, and reload again")
    old, reloaded = supervisor.call(lambda: (shard.pid, shard.reload()))
    if not wait((reloaded, closing), QUIT_S, FIRST_COMPLETED).done:
        supervisor.call(lambda: shard.kill() if shard.pid == old else None)
    answer(shard, reloaded)
