"""What can be wrong with a benchmark run."""

from shardio.errors import ShardioError


class BenchError(ShardioError):
    """A benchmark cannot be run, read or compared: `message` says why, `hint` what to do."""
