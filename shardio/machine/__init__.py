"""`Machine`: a virtual machine whose device accesses other processes answer.

`machine` is the object and its life, `guest` and `forwarded` are parts of it.
"""

from shardio.machine.machine import Machine

__all__ = ["Machine"]
