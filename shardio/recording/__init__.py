"""Recordings of what devices are asked and answer, and their replay without a machine.

`format` is what a file consists of, `memory` guest memory as a device reads it, recorded and replayed;
`replay` feeds a device offline. The shards record (`shardio.shard.recorder`).
"""
