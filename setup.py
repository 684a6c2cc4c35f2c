"""The compiled core, and the benchmarks' loops beside it: cffi in API mode over native/ (everything else
is in pyproject.toml).
"""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

NATIVE = Path(__file__).resolve().parent / "native"


class WithSources(build_py):
    """Puts the client's sources beside shardio/include/shardio.c, which in the source tree finds them in
    native/.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        to = Path(self.build_lib, "shardio", "include", "native")
        self.mkpath(str(to))
        for path in (*NATIVE.glob("*.h"), *NATIVE.glob("*.c")):
            if path.suffix == ".h" or f'"native/{path.name}"' in _INCLUDED:
                copyfile(path, to / path.name)


_INCLUDED = NATIVE.with_name("shardio").joinpath("include", "shardio.c").read_text()

setup(
    cmdclass={"build_py": WithSources},
    cffi_modules=["native/build_core.py:ffibuilder", "native/build_core.py:measure"],
)
