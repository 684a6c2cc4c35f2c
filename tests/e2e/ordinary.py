"""Runs a program as an ordinary user where the tests run as root: the words to put before it.

Python or the repository may lie where only root looks, in /root say. Then both are shown where they are to
that program alone, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]


def closed_folder(path: Path) -> Path | None:
    """The outermost folder above `path` that others cannot go through."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o1), None)


@cache
def words() -> tuple[str, ...]:
    """What runs the words that follow as an ordinary user; skips the test where that cannot be done."""
    if os.geteuid() != 0:
        return ()
    steps = ["mount -t tmpfs -o mode=1777 tmpfs /tmp"]
    hidden = [
        (str(folder), str(path), f"/tmp/{number}")
        for number, path in enumerate((Path(sys.base_prefix), Path(sys.prefix), ROOT))
        if (folder := closed_folder(path)) is not None
    ]
    steps += [f"mkdir {kept}; mount --bind {shlex.quote(path)} {kept}" for _, path, kept in hidden]
    for folder in {folder for folder, _, _ in hidden}:
        steps.append(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(folder)}")
    for _, path, kept in sorted(hidden):
        steps.append(f"mkdir -p {shlex.quote(path)}; mount --bind {kept} {shlex.quote(path)}")
    user = f"--reuid {NOBODY} --regid {NOBODY} --clear-groups --inh-caps=-all --bounding-set=-all"
    script = "\n".join(["set -e", *steps, f'exec setpriv {user} "$@"'])
    found = ("unshare", "--mount", "sh", "-c", script, "sh")
    tried = subprocess.run(
        [*found, sys.executable, "-c", "import shardio"], capture_output=True, cwd=ROOT, text=True
    )
    if tried.returncode:
        pytest.skip(f"no ordinary user can be had here: {tried.stderr.strip()[-200:]}")
    return found
