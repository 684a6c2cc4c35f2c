"""Which shardio this is: its version, and the commit that it was built from, as far as that is known."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

__version__ = "0.1.0"
_ROOT = Path(__file__).resolve().parent.parent
_PATIENCE_S = 5.0


def commit(root: Path = _ROOT) -> str:
    """What git calls the checkout that this runs from, "-dirty" behind it where files have changed; else what
    the build was made from (`setup.py` writes that down); "" where nobody knows.
    """
    if (root / ".git").exists():
        return described(root)
    try:
        return str(import_module("shardio._commit").COMMIT)
    except ImportError:
        return ""


def described(root: Path) -> str:
    """`git describe` of a checkout; "" without git, or where it refuses."""
    import subprocess  # heavy, and `import shardio` asks for no commit

    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def full_version() -> str:
    """The version, and the commit where it is known: "0.1.0 (commit 0123456789ab)"."""
    found = commit()
    return f"{__version__} (commit {found})" if found else __version__
