"""The compiled core, and the benchmarks' loops beside it: cffi in API mode over native/. With them go the
client's sources, which shardio/include/shardio.c has, and the commit that a distribution is made from, for
`shardio --version` (everything else is in pyproject.toml).
"""

from pathlib import Path
from runpy import run_path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent


def write_commit(folder: Path) -> None:
    """Writes down what git calls this checkout; nothing where it is none, as an unpacked sdist."""
    described = run_path(str(ROOT / "shardio" / "version.py"))["described"]
    if (ROOT / ".git").exists() and (commit := described(ROOT)):
        (folder / "_commit.py").write_text(f'"""Written by the build."""\n\nCOMMIT = "{commit}"\n')


def copy_sources(include: Path) -> None:
    """Puts the client's sources beside shardio.c, which in the source tree finds them in native/."""
    included = (include / "shardio.c").read_text()
    (include / "native").mkdir(exist_ok=True)
    for path in (ROOT / "native").glob("*.[ch]"):
        if path.suffix == ".h" or f'"native/{path.name}"' in included:
            copyfile(path, include / "native" / path.name)


class BuildPy(build_py):
    """With the commit and the sources in what is built; an editable installation has git and native/."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            built = Path(self.build_lib) / "shardio"
            write_commit(built)
            copy_sources(built / "include")


class Sdist(sdist):
    """With the commit in it."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir) / "shardio")


setup(
    cffi_modules=["native/build_core.py:ffibuilder", "native/build_core.py:measure"],
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
)
