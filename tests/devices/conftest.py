"""The fixtures of device tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shardio.rate import LogLimit, guest_log
from tests.devices.rtc import Clock, utc
from tests.devices.support import Ports, RecordingHost


@pytest.fixture
def host() -> RecordingHost:
    """A host whose loop moves by hand."""
    return RecordingHost()


@pytest.fixture
def host_on() -> Callable[[Any], RecordingHost]:
    """Makes a host with the given loop."""
    return RecordingHost


@pytest.fixture
def ports() -> Callable[..., Ports]:
    """Puts a device on a bare `IoManager`: `ports(device, base)`, or `ports(device, 0, mmio=address)`."""
    return Ports


@pytest.fixture
def clock() -> Clock:
    """Two seconds before midnight, the day before a leap day."""
    return Clock(utc(2024, 2, 28, 23, 59, 58))


@pytest.fixture
def quiet_log(monkeypatch: pytest.MonkeyPatch) -> LogLimit:
    """The limit on what a guest can make the host log, as at the start of a process."""
    monkeypatch.setattr(guest_log, "_tokens", guest_log._burst)
    monkeypatch.setattr(guest_log, "_untold", 0)
    return guest_log
