"""The shard: a device-owner process with its own interpreter, event loop, `IoManager` and half of the rings.

`protocol` is what the VMM and a shard say to each other; `process` is the shard's main; `runtime` drives the
drain loop from asyncio; `devices` is what it holds; `host` is what a device is given; `loading` makes
devices. The VMM's side is `shardio.supervisor`.
"""
