"""The demo: an SMP guest of our own whose every device lives in another process, and whose result the host
checks.

`guest.S` is the guest, assembled when the demo runs; `assembler` does that; `scene` builds the machine, runs
it and compares what the guest read with what it must have read. `shardio demo` and `make run` show it.
"""

from shardio.demo.scene import Demo, Outcome

__all__ = ["Demo", "Outcome"]
