"""A machine as a file: one `[machine]` table and a `[[device]]` table per device, checked before it starts.

`load_config` reads TOML, `machine_config` takes the same tables as a dict; both give a `MachineConfig`, and
`build` makes the `Machine` of it. What is wrong is a `ConfigError` of one line: file, table, key, hint.

Read `model` first: what can be said. `check` holds it against what the library takes, `convert` says where in
the file a value is wrong, `file` reads and writes TOML, and `build` makes the machine.
"""

from shardio.config.build import build
from shardio.config.check import device_config, find_firmware, machine_config, with_devices
from shardio.config.file import as_toml, load_config, load_tables
from shardio.config.model import DEVICE_KEYS, MACHINE_KEYS, DeviceConfig, MachineConfig

__all__ = [
    "DEVICE_KEYS",
    "MACHINE_KEYS",
    "DeviceConfig",
    "MachineConfig",
    "as_toml",
    "build",
    "device_config",
    "find_firmware",
    "load_config",
    "load_tables",
    "machine_config",
    "with_devices",
]
