"""Builds shardio._core: every native/*.c and native/*.cdef, through cffi in API mode.

A `.cdef` file declares to Python what the `.c` files define; those named `*_x86.cdef` count only on x86-64.
"""

import platform
from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent
ROOT = NATIVE.parent
X86 = platform.machine() == "x86_64"


def _declarations() -> list[Path]:
    """The structs that others hold by value come first."""
    paths = sorted(NATIVE.glob("*.cdef"), key=lambda path: (path.stem != "fabric", path.stem))
    return [path for path in paths if X86 or not path.stem.endswith("_x86")]


ffibuilder = FFI()
for _path in _declarations():
    ffibuilder.cdef(_path.read_text())

ffibuilder.set_source(
    "shardio._core",
    "\n".join(f'#include "{path.stem}.h"' for path in _declarations()),
    sources=[str(path.relative_to(ROOT)) for path in sorted(NATIVE.glob("*.c")) if path.name != "_core.c"],
    include_dirs=[str(NATIVE)],
    depends=[str(path.relative_to(ROOT)) for path in sorted(NATIVE.glob("*.h"))],
    # The core calls handlers through the CPython C API (PyObject_Vectorcall).
    py_limited_api=False,
    define_macros=[("_CFFI_NO_LIMITED_API", None), ("_GNU_SOURCE", None)],
    # Workers share the VMM's address space, without a TLS block of their own: no stack protector, no lazy
    # binding.
    extra_compile_args=[
        *("-std=gnu11", "-O2", "-g", "-fvisibility=hidden", "-fno-stack-protector", "-fno-strict-aliasing"),
        *("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"),
    ],
    extra_link_args=["-Wl,-z,now"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
