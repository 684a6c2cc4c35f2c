"""Finds libunicorn, which the worker alone loads, at run time: it is under GPL version 2, and optional."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from shardio.errors import HostError

HINT = "pip install 'shardio[soft]', which brings unicorn 2.1.4 or later"


def library() -> Path:
    """The shared library of the installed `unicorn` package, which is not imported.

    Raises `HostError` where there is none, or the host lets nobody look.
    """
    try:
        spec = find_spec("unicorn")
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            for found in sorted((Path(folder) / "lib").glob("libunicorn.so*")):
                return found
    except OSError as error:
        hint = "raise the limit on open files (ulimit -n)"
        raise HostError(f"looking for Unicorn: {error.strerror}", hint) from error
    raise HostError("the software CPU needs Unicorn, which is not installed", HINT)
