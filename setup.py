"""The compiled core, and the benchmarks' loops beside it: cffi in API mode over native/; and the commit that
a distribution is made from, for `shardio --version` (everything else is in pyproject.toml).
"""

from pathlib import Path
from runpy import run_path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent


def write_commit(folder: Path) -> None:
    """Writes down what git calls this checkout; nothing where it is none, as an unpacked sdist."""
    described = run_path(str(ROOT / "shardio" / "version.py"))["described"]
    if (ROOT / ".git").exists() and (commit := described(ROOT)):
        (folder / "_commit.py").write_text(f'"""Written by the build."""\n\nCOMMIT = "{commit}"\n')


class BuildPy(build_py):
    """With the commit in what is built; an editable installation asks git."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            write_commit(Path(self.build_lib) / "shardio")


class Sdist(sdist):
    """With the commit in it."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir) / "shardio")


setup(
    cffi_modules=["native/build_core.py:ffibuilder", "native/build_core.py:measure"],
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
)
