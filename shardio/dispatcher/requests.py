"""Requests to shards: what is asked, and how long their answers are waited for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any

from shardio.dispatcher.kinds import is_text
from shardio.dispatcher.structure import structure
from shardio.errors import MachineError
from shardio.shard import by_value
from shardio.shard.protocol import Call, Returned
from shardio.supervisor import ShardProcess, Supervisor
from shardio.supervisor.stacks import look_into

if TYPE_CHECKING:
    from shardio.dispatcher.device import DeviceHandle

REQUEST_TIMEOUT_S = 30.0
"""How long a shard may take to make or drop devices."""


class Requests:
    """`closing` is done once the dispatcher is being closed: then nobody waits for a shard any more."""

    def __init__(self, supervisor: Supervisor, closing: Future[None]) -> None:
        self._supervisor, self._closing = supervisor, closing

    def call(
        self,
        shard: ShardProcess,
        handle: DeviceHandle,
        method: str,
        arguments: tuple[Any, ...],
        options: Mapping[str, Any],
        timeout: float | None = None,
    ) -> Any:
        """What a method of the device returns there, within `timeout` seconds: see `answer`."""
        if not is_text(method):
            raise MachineError(f"device {handle.name} has no method {method!r}", "give a method's name")
        try:
            packed = by_value.dumps((arguments, dict(options)), handle.request.factory)
        except (TypeError, ValueError, AttributeError, RecursionError, pickle.PicklingError) as error:
            what = f"{handle.name}.{method}() is given what cannot be sent to its shard: {error}"
            raise MachineError(what, "give plain values, or objects that can be pickled") from None
        future = self._supervisor.call(
            lambda: shard.request(lambda serial: Call(serial, handle.name, method, packed))
        )
        result = self.answer(shard, future, timeout)
        return structure(handle, shard.name, result) if isinstance(result, Returned) else result

    def answer(self, shard: ShardProcess, future: Future[Any], timeout: float | None = None) -> Any:
        """What `shard` answers, unless the dispatcher is closed meanwhile. Raises `MachineError` when it does
        not within `timeout` seconds (None: `REQUEST_TIMEOUT_S`).
        """
        timeout = REQUEST_TIMEOUT_S if timeout is None else timeout
        done, _ = wait((future, self._closing), timeout, FIRST_COMPLETED)
        if future in done:
            return future.result()
        if done:
            raise MachineError(
                "it was closed before a shard had answered", "make a new Machine or Dispatcher"
            )
        raise self._hanging(shard, timeout)

    def _hanging(self, shard: ShardProcess, timeout: float) -> MachineError:
        """What is told of a shard that has not answered a request in time."""
        step, stacks = look_into(shard, self._supervisor.call)
        where = f" at {step}" if step else ""
        error = MachineError(
            f"shard {shard.name} has not answered for {timeout} s{where}",
            "mend what hangs there, or do it in a task of host.loop",
        )
        if stacks:
            error.add_note(f"in shard {shard.name}, the innermost call first:\n{stacks.rstrip()}")
        return error
