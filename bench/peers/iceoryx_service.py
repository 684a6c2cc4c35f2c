"""A service of iceoryx2 for one session. iceoryx2 leaves a segment of each configuration in /dev/shm, so a
session has a configuration of its own: every name begins with that of its folder, and goes when the session
does.
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any


class Access(ctypes.Structure):
    """A request; of a reply the value counts."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("op", "offset", "size", "value"))


def service(folder: str) -> tuple[Any, Any]:
    """The service and its node; its files are in `folder`."""
    import iceoryx2 as ice

    ice.set_log_level(ice.LogLevel.Error)
    config, name = ice.config.default(), Path(folder).name
    config.global_cfg.prefix, config.global_cfg.root_path = ice.FileName.new(f"{name}-"), ice.Path.new(folder)
    node = ice.NodeBuilder.new().config(config).create(ice.ServiceType.Ipc)
    builder = node.service_builder(ice.ServiceName.new(name)).request_response(Access, Access)
    return builder.open_or_create(), node


def remove(folder: str) -> None:
    """What iceoryx2 has left."""
    for path in Path("/dev/shm").glob(f"{Path(folder).name}-*"):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
