"""Says whose code raised: the device, the step of its life, and the traceback in its shard."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardio.errors import ShardioError
from shardio.shard.log import DEVICE
from shardio.shard.notebook import doing
from shardio.shard.protocol import Failure

TRACE_LIMIT = 8 * 1024
"""Characters of a traceback that are told; its end says most."""
OUR_FILES = str(Path(__file__).parent)


class Blamed(ShardioError):
    """An error of a device's own code: `failure` says whose, `message` and `hint` say what."""

    def __init__(self, message: str, hint: str, failure: Failure) -> None:
        super().__init__(message, hint)
        self.failure = failure


@contextmanager
def blame(device: str, kind: str, step: str) -> Iterator[None]:
    """What is raised within, SystemExit too, becomes `Blamed`."""
    token = DEVICE.set(device)
    try:
        with doing(f"device {device} ({kind}), {step}"):
            yield
    except BaseException as error:
        known = isinstance(error, ShardioError)
        message = error.message if isinstance(error, ShardioError) else described(error)
        hint = error.hint if isinstance(error, ShardioError) else ""
        if known and not message:
            message = described(error)
        raise Blamed(message, hint, Failure(device, kind, step, _trace(error))) from error
    finally:
        DEVICE.reset(token)


def described(error: BaseException) -> str:
    """Its type and text, in one line."""
    try:
        return " ".join(f"{type(error).__name__}: {error}".split())
    except Exception:  # its text is the user's code
        return type(error).__name__


def _trace(error: BaseException) -> str:
    """The traceback from the first frame that is not ours."""
    found = error.__traceback__
    while found is not None and found.tb_next is not None:
        if not _ours(found.tb_frame.f_code.co_filename):
            break
        found = found.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, found))
    except Exception:  # its text is the user's code
        text = "".join(traceback.format_tb(found)) + type(error).__name__
    return text[-TRACE_LIMIT:]


def _ours(file: str) -> bool:
    return file.startswith(OUR_FILES) or file.endswith(("contextlib.py", "pickle.py"))
