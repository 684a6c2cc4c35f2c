"""What tests against a model share."""

from __future__ import annotations

from collections.abc import Callable

from shardio import ShardioError


def attempt(call: Callable[[], object]) -> object:
    """What the call returns, or the type and the values of the error that it raises."""
    try:
        return call()
    except ShardioError as error:
        return type(error), *error.args
