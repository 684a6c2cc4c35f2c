"""A machine without KVM: a fabric, real shards under a supervisor, clients of this process as its vCPUs."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from shardio import MmioRange
from shardio.device import declared_capabilities
from shardio.fabric import Fabric, Port
from shardio.routing import AddressMap, Route, quiesce
from shardio.shard.loading import pack
from shardio.shard.protocol import Call, DeviceSpec, RangeSpec, RemoveDevice
from shardio.supervisor import DeviceRecord, ShardProcess, Supervisor
from shardio.supervisor.events import Event
from shardio.supervisor.failover import Policy
from shardio.vcpu import VcpuState

MMIO = 1
BASE = 0xD000_0000
PATIENCE_S = 50.0


class Cluster:
    """`shards` shard processes; `client(vcpu)` a vCPU that the supervisor watches as it does a worker."""

    def __init__(self, vcpus: int = 1, shards: int = 1, hang_deadline: float = 30.0) -> None:
        self.stack = ExitStack()
        self.fabric = self.stack.enter_context(
            Fabric.create(vcpus=vcpus, shards=shards, ranges=16, posted_slots=64)
        )
        self.map = AddressMap(self.fabric)
        self.policies: dict[int, Policy] = {}
        self.events: list[Event] = []
        self.supervisor = Supervisor(
            self.fabric,
            self.map,
            self._policy,
            self.events.append,
            hang_deadline=hang_deadline,
        )
        self.stack.callback(self.supervisor.close)
        self.shards = [ShardProcess(self.fabric, number, f"shard{number}") for number in range(shards)]
        self.supervisor.shards.extend(self.shards)
        self.stack.callback(self._close_shards)
        self.stack.callback(lambda: self.supervisor.call(self.supervisor.stop_shards))
        for shard in self.shards:
            self.supervisor.call(lambda shard=shard: self.supervisor.start_shard(shard))  # type: ignore[misc]

    def add(
        self,
        device: Any,
        base: int = BASE,
        *,
        shards: tuple[int, ...] = (0,),
        posted: bool = False,
        policy: Policy | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Route:
        """Make a device in each of `shards`, then route its range of 0x100 bytes there."""
        span = MmioRange(base, 0x100)
        route = self.map.add(span, shards, posted=posted)
        if policy is not None:
            self.policies[route.index] = policy
        spec = DeviceSpec(
            name or device.__name__,
            pack(device, options),
            [RangeSpec(route.index, "mmio", base, 0x100, posted)],
            capabilities=declared_capabilities(device, options),
        )
        for shard in shards:
            self.ask(lambda shard=shard: self.shards[shard].add([DeviceRecord(spec, ())]))  # type: ignore[misc]
        self.supervisor.call(self.map.publish)
        return route

    def remove(self, route: Route, base: int, name: str, *clients: Port, shard: int = 0) -> None:
        """Take a device out while the clients run."""
        self.map.remove(MmioRange(base, 0x100))
        self.supervisor.call(self.map.publish)
        quiesce([client.view for client in clients], PATIENCE_S)
        self.ask(lambda: self.shards[shard].request(lambda serial: RemoveDevice(serial, name, [route.index])))
        self.shards[shard].records.pop(name)
        self.map.release(route)

    def call(self, name: str, method: str, *arguments: Any, shard: int = 0) -> Any:
        """Call a device's method in its shard."""

        packed = pickle.dumps((arguments, {}))
        return self.ask(lambda: self.shards[shard].request(lambda serial: Call(serial, name, method, packed)))

    def ask(self, request: Any) -> Any:
        """Run `request` in the supervisor's thread, wait for the future that it gives."""
        return self.supervisor.call(request).result(PATIENCE_S)

    def client(self, vcpu: int = 0) -> Port:
        """A vCPU; a wait of more than 50 s is aborted."""
        client = Port(self.fabric, vcpu, {shard.index: shard.doorbell for shard in self.shards})
        watched = SimpleNamespace(
            index=vcpu,
            client=client.view,
            state=VcpuState.RUNNING,
            ended=False,
            pidfd=-1,
            command=lambda _: None,
            adopt=lambda: False,
            resumable=lambda: True,
        )
        self.supervisor.call(lambda: self.supervisor.vcpus.append(watched))  # type: ignore[arg-type]
        watchdog = threading.Timer(PATIENCE_S, client.abort)
        watchdog.daemon = True
        watchdog.start()
        self.stack.callback(lambda: self.supervisor.call(lambda: self.supervisor.vcpus.remove(watched)))  # type: ignore[arg-type]
        self.stack.callback(watchdog.join)
        self.stack.callback(watchdog.cancel)
        return client

    def _policy(self, index: int, write: bool) -> Policy:
        return self.policies.get(index, Policy.FAIL if write else Policy.REPLAY)

    def _close_shards(self) -> None:
        for shard in self.shards:
            shard.close()


@contextmanager
def cluster(**arguments: Any) -> Iterator[Cluster]:
    """A `Cluster`, taken down at the end."""
    made = Cluster(**arguments)
    with made.stack:
        yield made
