"""Installs tree, sdist and wheel as a stranger would: each in a fresh environment, used from elsewhere.

Checks that `shardio --version` and `import shardio, shardio.devices` work, that the compiled core came along,
and that nothing but `shardio` landed in site-packages. Exit status 1, with the output, when one does not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "native_vcpu" / "vcpu_loop.c"
PROBE = """
import pathlib, shardio, shardio.devices, shardio._core, shardio._measure
from shardio.devices import Uart16550
from shardio.version import commit
home = pathlib.Path(shardio.__file__).parent
assert "site-packages" in home.parts, home
assert not any((home / name).is_symlink() for name in ("devices", "bench"))
assert (home / "py.typed").exists()
strays = {"devices", "native", "tests", "tools", "bench"} & {path.name for path in home.parent.iterdir()}
assert not strays, strays
assert commit() or not CHECKOUT, "the build has not written down its commit"
"""
BUILD_CLIENT = """
import os, pathlib, shutil, subprocess, shardio
include = pathlib.Path(shardio.get_include())
assert "site-packages" in include.parts, include
sources = [{example!r}, str(include / "shardio.c")]
for compiler, language in (("cc", "c"), ("c++", "c++")):
    line = [compiler, "-x", language, "-I", str(include), *sources, "-o", "vcpu_loop"]
    subprocess.run(line, check=True)
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Runs a command; its output is shown only when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        print(f"check-dist: failed: {' '.join(words)}\n{done.stdout}", file=sys.stderr)
        sys.exit(1)


def check(package: Path, folder: Path) -> None:
    """Installs the package in an environment of its own under `folder` and uses it from there."""
    environment = folder / f"environment{package.suffix}"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    # This environment's pip, build tools and dependencies serve: what is under test is shardio alone.
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", python,
        "install", package, cwd=folder)  # fmt: skip
    run(python, "-W", "error", "-c", PROBE.replace("CHECKOUT", repr((ROOT / ".git").exists())), cwd=folder)
    run(environment / "bin" / "shardio", "--version", cwd=folder)
    run(python, "-c", BUILD_CLIENT.format(example=str(EXAMPLE)), cwd=folder)
    print(f"check-dist: {package.name} installs and works")


def main() -> None:
    """Builds what is to be built and checks each."""
    with tempfile.TemporaryDirectory(prefix="shardio-dist-") as name:
        folder = Path(name)
        # The wheel is built from the sdist, so it cannot hold what the sdist lacks.
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, cwd=folder)
        for package in (ROOT, *sorted((folder / "dist").iterdir())):
            check(package, folder)


if __name__ == "__main__":
    main()
