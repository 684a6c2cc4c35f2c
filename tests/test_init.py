"""The public face: complete, light, and without the compiled core until something needs it."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import shardio

BLOCKED = """
import sys
sys.modules["shardio._core"] = None
import shardio
from shardio import *
manager = shardio.IoManager()
heavy = {"asyncio", "subprocess", "multiprocessing", "msgspec", "cffi", "rich"} & set(sys.modules)
print(sorted(heavy), shardio.PioRange(0x3F8, 8))
"""


def test_vocabulary_imports_without_the_core_and_without_heavy_modules() -> None:
    command = [sys.executable, "-c", BLOCKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] PIO [0x3f8, 0x3ff]\n", "")


@pytest.mark.parametrize("name", sorted({*shardio.__all__} - {*shardio._LAZY}))
def test_every_public_name_is_there_at_once(name: str) -> None:
    assert name in vars(shardio)


@pytest.mark.parametrize("name", sorted(shardio._LAZY))
def test_every_lazy_name_is_its_modules(name: str) -> None:
    assert getattr(shardio, name) is getattr(importlib.import_module(f"shardio.{shardio._LAZY[name]}"), name)
    assert name in dir(shardio)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Uart'"):
        _ = shardio.Uart
