"""Builds shardio._core: every native/*.c and native/*.cdef, through cffi in API mode; and beside it
shardio._measure, the loops of the benchmarks in native/measure/.

A `.cdef` file declares to Python what the `.c` files define; those named `*_x86.cdef` count only on x86-64.
"""

import platform
from pathlib import Path

from cffi import FFI

NATIVE = Path(__file__).resolve().parent
MEASURE = NATIVE / "measure"
ROOT = NATIVE.parent
X86 = platform.machine() == "x86_64"
_NAMES = ("client", "journal", "doorbell", "route_cache", "posting", "trace", "fabric")
CLIENT = [NATIVE / f"{name}.c" for name in _NAMES]
"""A vCPU's side of an access, which the benchmarks drive from C as a worker does."""


def _declarations() -> list[Path]:
    """The structs that others hold by value come first."""
    paths = sorted(NATIVE.glob("*.cdef"), key=lambda path: (path.stem != "fabric", path.stem))
    return [path for path in paths if X86 or not path.stem.endswith("_x86")]


def _module(name: str, declarations: list[Path], sources: list[Path]) -> FFI:
    builder = FFI()
    for path in declarations:
        builder.cdef(path.read_text())
    builder.set_source(
        name,
        "\n".join(f'#include "{path.stem}.h"' for path in declarations),
        sources=[str(path.relative_to(ROOT)) for path in sources],
        include_dirs=[str(NATIVE), str(MEASURE)],
        depends=[str(path.relative_to(ROOT)) for path in sorted(NATIVE.rglob("*.h")) + declarations],
        # The core calls handlers through the CPython C API (PyObject_Vectorcall).
        py_limited_api=False,
        define_macros=[("_CFFI_NO_LIMITED_API", None), ("_GNU_SOURCE", None)],
        # Workers share the VMM's address space, without a TLS block of their own: no stack protector, no lazy
        # binding.
        extra_compile_args=[
            *("-std=gnu11", "-O2", "-g"),
            *("-fvisibility=hidden", "-fno-stack-protector", "-fno-strict-aliasing"),
            *("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers"),
        ],
        extra_link_args=["-Wl,-z,now"],
    )
    return builder


_sources = [path for path in sorted(NATIVE.glob("*.c")) if path.name not in ("_core.c", "_measure.c")]
ffibuilder = _module("shardio._core", _declarations(), _sources)
_loops = [*sorted(MEASURE.glob("*.c")), NATIVE / "unicorn_api.c", *CLIENT]
measure = _module("shardio._measure", [MEASURE / "measure.cdef"], _loops)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
    measure.compile(verbose=True)
