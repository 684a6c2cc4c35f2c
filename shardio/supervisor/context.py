"""What the parts of one supervisor share. All of it is the supervisor's thread's."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shardio._core import lib
from shardio.fabric import Fabric
from shardio.routing import AddressMap
from shardio.supervisor.events import Event
from shardio.supervisor.prompts import Prompts
from shardio.supervisor.shard_process import ShardProcess
from shardio.vcpu import Vcpu


@dataclass(frozen=True, eq=False)
class Context:
    """The fabric and its address map, the processes, the selector (its data: a function to call), and where
    events go.
    """

    fabric: Fabric
    routes: AddressMap
    on_event: Callable[[Event], None]
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    shards: list[ShardProcess] = field(default_factory=list)
    vcpus: list[Vcpu] = field(default_factory=list)
    prompts: Prompts = field(default_factory=Prompts)

    def watch(self, readable: Any, then: Callable[[], None]) -> None:
        """Call `then` whenever this descriptor is readable."""
        self.selector.register(readable, selectors.EVENT_READ, then)

    def forget(self, readable: Any) -> None:
        """Watch it no more; harmless where it is not watched. Before it is closed."""
        if readable != -1 and readable in self.selector.get_map():
            self.selector.unregister(readable)

    def posted(self, vcpu: int, shard: int) -> int:
        """How many writes a vCPU has posted to a shard, ever."""
        known = next((known for known in self.vcpus if known.index == vcpu), None)
        if known is not None:
            return int(lib.sio_client_posted(known.client, shard))
        return int(lib.sio_credit(self.fabric.view, shard, vcpu).taken)
