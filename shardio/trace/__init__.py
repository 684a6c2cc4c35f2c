"""The trace: what vCPUs and shards have written to their rings (native/trace.h), as values, text, and a file
for Perfetto.

`values` are what a trace consists of; `rings` takes raw records from the fabric, `join` makes values of them;
`text` and `chrome` write them.
"""

from shardio.trace.values import Access, Doorbell, Interrupt, Life, Lost, Record

__all__ = ["Access", "Doorbell", "Interrupt", "Life", "Lost", "Record"]
