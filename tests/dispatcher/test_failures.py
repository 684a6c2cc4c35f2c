"""What a device's own code raises reaches the user with its device, class, file and the shard's traceback;
what it returns arrives as what it is, and a class of the main file is a device like any other.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shardio import Dispatcher, MachineError, MutDeviceMmio
from shardio.errors import DeviceFailed
from tests.e2e.support import PATIENCE_S

BASE = 0xD000_0000


class State(msgspec.Struct):
    """What a `Faulty` is."""

    value: int
    parts: list[int] = []


class Undeclared:
    """A place where nobody looks for Structs."""

    class State(msgspec.Struct):
        """No name of a module."""

        value: int = 0


class Faulty(MutDeviceMmio):
    """Fails in the step that it is told."""

    mmio_size = 0x100

    def __init__(self, step: str = "") -> None:
        self.step = step
        self.state = State(1, [2])
        self.fail("constructor")

    def fail(self, step: str) -> None:
        if self.step == step:
            raise RuntimeError(f"no {step} today")

    def attach(self, host: object) -> None:
        self.fail("attach()")

    def detach(self) -> None:
        self.fail("detach()")

    def poke(self) -> None:
        self.fail("poke()")

    def read(self, offset: int, size: int) -> int:
        return self.state.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.value = value

    def snapshot(self) -> State:
        return self.state

    def restore(self, state: State) -> None:
        assert type(state) is State
        self.state = state

    def undeclared(self) -> object:
        return Undeclared.State()


def dispatcher() -> Dispatcher:
    return Dispatcher(shards=1, hang_deadline=PATIENCE_S)


def add(d: Dispatcher, step: str = "") -> Any:
    return d.add(Faulty, mmio=BASE, name="lamp", shard="room", options={"step": step})


def check(error: DeviceFailed, step: str) -> None:
    """The error names all: device, class, file, shard, step, reason, and the line that raised."""
    where = f"device lamp (Faulty, {__file__}) in shard room, {step}: RuntimeError: no {step} today"
    assert str(error) == where
    assert (error.device, error.shard, error.step) == ("lamp", "room", step)
    (note,) = error.__notes__
    assert note.startswith("in shard room:\nTraceback (most recent call last):")
    assert f'File "{__file__}"' in note
    assert 'raise RuntimeError(f"no {step} today")' in note
    assert "shardio/shard" not in note


@pytest.mark.parametrize("step", ["constructor", "attach()"])
def test_what_a_device_raises_while_it_is_made_says_where(step: str) -> None:
    with dispatcher() as d:
        d.start()
        with pytest.raises(DeviceFailed) as caught:
            add(d, step)

        check(caught.value, step)
        add(d)


def test_what_detach_raises_says_where() -> None:
    with dispatcher() as d:
        handle = add(d, "detach()")
        d.start()
        with pytest.raises(DeviceFailed) as caught:
            d.remove(handle)

        check(caught.value, "detach()")
        add(d)


def test_what_a_called_method_raises_says_where() -> None:
    with dispatcher() as d:
        handle = add(d, "poke()")
        d.start()
        with pytest.raises(DeviceFailed) as caught:
            handle.call("poke")

        check(caught.value, "poke()")


def test_a_struct_arrives_as_a_struct_and_goes_back_as_one() -> None:
    with dispatcher() as d:
        handle = add(d)
        port = d.port(0)
        port.mmio_write(BASE, b"\x07\0\0\0")
        state = handle.call("snapshot")
        port.mmio_write(BASE, b"\x09\0\0\0")
        handle.call("restore", state)
        answer = bytearray(4)
        port.mmio_read(BASE, answer)

        assert state == State(7, [2])
        assert answer == b"\x07\0\0\0"


def test_a_struct_that_the_devices_module_does_not_declare_is_refused() -> None:
    with dispatcher() as d:
        handle = add(d)
        d.start()
        with pytest.raises(MachineError, match="does not declare; declare the Struct at the top level"):
            handle.call("undeclared")


MAIN = '''
from __future__ import annotations
import multiprocessing, sys
import msgspec
from shardio import Dispatcher, MutDeviceMmio

class State(msgspec.Struct, frozen=True):
    value: int
    def more(self) -> State: return State(self.value + 1)

class Lamp(MutDeviceMmio):
    mmio_size = 8
    def __init__(self): self.state = State(1)
    def read(self, offset, size): return self.state.value
    def snapshot(self): return self.state.more()
    def restore(self, state): self.state = state.more()
    def fail(self): raise RuntimeError("dark")  # the line to be shown

def use():
    with Dispatcher(shards=1, hang_deadline=60.0) as d:
        lamp = d.add(Lamp, mmio=0xD0000000)
        d.start()
        lamp.call("restore", lamp.call("snapshot"))
        assert lamp.call("snapshot") == State(4)
        try:
            lamp.call("fail")
        except Exception as error:
            assert "# the line to be shown" in error.__notes__[0], error.__notes__
    print("used", flush=True)

if __name__ == "__main__" and sys.argv[1:] and sys.argv[1] != "here":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=use)
    child.start()
    child.join()
elif __name__ in ("__main__", "<run_path>"):
    use()
'''


def run(*command: str, path: Path) -> str:
    """The output of a program."""
    done = subprocess.run(
        [sys.executable, *command], cwd=path.parent, capture_output=True, text=True, timeout=PATIENCE_S
    )
    return done.stdout or done.stderr


@pytest.mark.parametrize("way", ["here", "spawn", "forkserver"])
def test_a_class_of_the_main_file_works_in_a_child_too(way: str, tmp_path: Path) -> None:
    (main := tmp_path / "main.py").write_text(MAIN)

    assert run(str(main), way, path=main) == "used\n"


@pytest.mark.parametrize("name", ["__main__", "<run_path>"])
def test_a_class_of_the_main_file_works_under_runpy(name: str, tmp_path: Path) -> None:
    (main := tmp_path / "main.py").write_text(MAIN)
    program = f"import runpy; runpy.run_path({str(main)!r}, run_name={name!r})"

    assert run("-c", program, path=main) == "used\n"


def test_a_factory_that_goes_by_value_brings_its_source(tmp_path: Path) -> None:
    (main := tmp_path / "main.py").write_text(MAIN)
    program = (
        f"import linecache; path={str(tmp_path / 'gone.py')!r}; text=open({str(main)!r}).read();"
        "linecache.cache[path]=(len(text), None, text.splitlines(True), path);"
        "exec(compile(text, path, 'exec'))"
    )

    assert run("-c", program, path=main) == "used\n"
