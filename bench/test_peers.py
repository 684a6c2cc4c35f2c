"""The same device in other hands, in the same run as shardio."""

from __future__ import annotations

import pytest

from shardio.bench.conftest import Keep
from shardio.bench.effort import Effort
from shardio.bench.peers import PEERS, Session
from shardio.bench.peers.measure import measure


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_peer(keep: Keep, peer: type[Session], cpus: tuple[int, int], effort: Effort) -> None:
    reason = peer.missing()
    if reason:
        pytest.skip(reason)

    figures = keep(lambda: measure(peer, cpus, effort))

    assert figures[0].value > 0
