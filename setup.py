"""The compiled core, and the benchmarks' loops beside it: cffi in API mode over native/ (everything else
is in pyproject.toml).
"""

from setuptools import setup

setup(cffi_modules=["native/build_core.py:ffibuilder", "native/build_core.py:measure"])
