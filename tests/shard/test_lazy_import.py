"""Modules that are read on first use: whoever uses them sees no difference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

START = """
import sys
from shardio.shard import lazy_import as module
with module.lazy_import():
    from shardio.shard import process
unread = sorted(name for name in module.SELDOM if type(sys.modules[name]) is not type(sys))
"""
OWN = """
import sys, threading
sys.path.insert(0, {path!r})
from shardio.shard import lazy_import as module
module.SELDOM = {{"seldom": ""}}
with module.lazy_import():
    import seldom
import seldom
assert not hasattr(sys, "times_read"), "read when imported"
"""
SELDOM = """
import sys, time
sys.times_read = getattr(sys, "times_read", 0) + 1
if sys.times_read == {failures}:
    raise OSError("not now")
time.sleep(0.02)
here = sys.modules[__name__]
assert not hasattr(here, "answer")
answer = 42
"""


def _output(code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _seldom(path: Path, code: str, failures: int = 0) -> str:
    (path / "seldom.py").write_text(SELDOM.format(failures=failures))
    return _output(OWN.format(path=str(path)) + code)


def test_a_shard_that_starts_reads_none_of_them() -> None:
    found = _output(START + "print(unread, '_ssl' in sys.modules, 'msgspec._json_schema' in sys.modules)")

    assert found == "['asyncio.sslproto', 'msgspec.inspect', 'msgspec.json', 'ssl'] False False\n"


def test_they_are_whole_when_they_are_used() -> None:
    code = """
import asyncio, ssl, msgspec, msgspec.json
from ssl import SSLContext
assert asyncio.base_events.ssl is ssl
assert issubclass(SSLContext, object) and asyncio.sslproto.SSLAgainErrors[0] is ssl.SSLWantReadError
assert ssl.__spec__.loader is ssl.__loader__ and type(ssl) is type(sys)
print(msgspec.json.encode([1]), msgspec.inspect.type_info(bool))
"""

    assert _output(START + code) == "b'[1]' BoolType()\n"


def test_an_event_loop_serves_sockets() -> None:
    code = """
import asyncio, socket
async def talk():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.send(b"line\\n")
    print(await reader.readline())
    writer.close()
asyncio.run(talk())
"""

    assert _output(START + code) == "b'line\\n'\n"


def test_what_is_imported_afterwards_is_imported_as_ever() -> None:
    code = """
import sys
from shardio.shard.lazy_import import lazy_import
with lazy_import():
    pass
import ssl
print("_ssl" in sys.modules)
"""

    assert _output(code) == "True\n"


def test_a_module_is_read_once_whoever_looks_first(tmp_path: Path) -> None:
    code = """
found = []
look = [threading.Thread(target=lambda: found.append(seldom.answer)) for _ in range(8)]
[each.start() for each in look], [each.join() for each in look]
print(set(found), len(found), sys.times_read)
"""

    assert _seldom(tmp_path, code) == "{42} 8 1\n"


def test_a_name_that_is_not_there_is_an_attribute_error(tmp_path: Path) -> None:
    code = "print(hasattr(seldom, 'nothing'), seldom.answer, sys.times_read)"

    assert _seldom(tmp_path, code) == "False 42 1\n"


def test_a_module_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    code = """
try:
    seldom.answer
except OSError as error:
    print(error)
print(seldom.answer, sys.times_read)
"""

    assert _seldom(tmp_path, code, failures=1) == "not now\n42 2\n"


def test_one_that_could_not_be_imported_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "seldom.py").write_text("import no_such_extension")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from shardio.shard import lazy_import as module
module.SELDOM = {{"seldom": "no_such_extension"}}
try:
    with module.lazy_import():
        import seldom
except ImportError as error:
    print(error)
"""

    assert _output(code) == "No module named 'no_such_extension'\n"
