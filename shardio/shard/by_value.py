"""Pickles what the VMM's program names for a shard, classes of the main file included.

Facts. A shard is a fresh interpreter: it imports modules by name, and must not run the program's main file
again. cloudpickle sends what it cannot import by value, but takes every module in `sys.modules` for one
that can be imported, also those that only this process knows: `__mp_main__` in a child of multiprocessing
(spawn, forkserver), and what runpy runs under a name of its own. It makes a class anew without its fields
where its metaclass builds them from annotations, as that of msgspec's Structs does. It drops the name of
code's file. Source lines of a traceback are read from the file, which may have changed or be no file (an
interactive session).

Consequences. A module whose specification has another name, or which has none, goes by value. A Struct's
class goes as its fields and then its methods. The source text travels beside a factory that goes by value.
"""

from __future__ import annotations

import inspect
import io
import linecache
import marshal
import sys
import uuid
import weakref
from collections.abc import Callable, Iterator
from inspect import Parameter
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from cloudpickle import Pickler

StructMeta: Any = type(msgspec.Struct)
CONFIG = (
    "frozen", "eq", "order", "array_like", "gc", "repr_omit_defaults", "omit_defaults",
    "forbid_unknown_fields", "weakref", "dict", "cache_hash", "tag", "tag_field",
)  # fmt: skip
_MADE_BY_STRUCT = {"__module__", "__qualname__", "__annotations__", "__doc__", "__slots__", "__match_args__"}

_keys: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_made: dict[str, type] = {}
"""In a shard: the Struct classes that came by value, so that each is made once, however often it comes."""


def dumps(value: object, factory: object = None) -> bytes:
    """A pickle of `value` for a shard, which has or will have `factory`. Raises what pickling raises for what
    cannot leave this process.
    """
    import cloudpickle  # the VMM alone needs it

    for name in {"__mp_main__", getattr(factory, "__module__", None)}:
        module = sys.modules.get(name) if isinstance(name, str) else None
        if module is not None and not _importable(module):
            cloudpickle.register_pickle_by_value(module)
    file = io.BytesIO()
    _pickler()(file).dump(value)
    return file.getvalue()


def sources(factory: object) -> dict[str, str]:
    """The source text of the files of a factory that goes by value, for the tracebacks of a shard."""
    parts = factory.__mro__ if isinstance(factory, type) else (factory,)
    names = {code.co_filename for part in parts if _goes_by_value(part) for code in _codes(part)}
    texts = {name: "".join(linecache.getlines(name)) for name in names}
    return {name: text for name, text in texts.items() if text}


def show_sources(texts: dict[str, str]) -> None:
    """In a shard: tracebacks show these lines for these files."""
    for name, text in texts.items():
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)


def file_of(factory: object) -> str:
    """The file that declares a class or function, "" where nobody knows."""
    module = sys.modules.get(getattr(factory, "__module__", None) or "")
    if module is not None and _importable(module):
        return getattr(module, "__file__", None) or ""
    return next((code.co_filename for code in _codes(factory)), "")


def _importable(module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return spec is not None and bool(spec.name == module.__name__)


def _goes_by_value(part: object) -> bool:
    name = getattr(part, "__module__", None) or ""
    module = sys.modules.get(name)
    if module is None or name == "__main__" or "<locals>" in getattr(part, "__qualname__", "<locals>"):
        return True
    return not _importable(module)


def _codes(part: object) -> Iterator[CodeType]:
    for value in (*vars(part).values(), part) if hasattr(part, "__dict__") else (part,):
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if isinstance(function, FunctionType):
            yield function.__code__


def _pickler() -> type[Pickler]:
    import cloudpickle

    class ShardPickler(cloudpickle.Pickler):  # type: ignore[misc]
        """cloudpickle's, and Structs whose class is not importable."""

        def reducer_override(self, obj: Any) -> Any:
            """See `pickle.Pickler.reducer_override`."""
            if isinstance(obj, StructMeta) and _goes_by_value(obj):
                return _reduced(obj)
            if isinstance(obj, CodeType):  # with its file's name; a shard is the same interpreter
                return marshal.loads, (marshal.dumps(obj),)
            return super().reducer_override(obj)

    return ShardPickler


def _reduced(kind: Any) -> tuple[object, ...]:
    """How a Struct's class is made again: its fields, then (since they may name the class) its methods."""
    own = vars(kind)
    annotations = dict(own.get("__annotations__", {}))
    fields = kind.__struct_fields__
    defaults = dict(zip(reversed(fields), reversed(kind.__struct_defaults__), strict=False))
    declared: dict[str, tuple[str, Any]] = {}
    for name in (name for name in annotations if name in fields):
        default = defaults.get(name, msgspec.NODEFAULT)
        made = getattr(default, "factory", None)
        told = {} if default is msgspec.NODEFAULT else {"default": default}
        told = {"default_factory": made} if made is not None else told
        declared[name] = (kind.__struct_encode_fields__[fields.index(name)], told)
    config = {name: getattr(kind.__struct_config__, name) for name in CONFIG}
    parameters = inspect.signature(kind).parameters
    config["kw_only"] = bool(declared) and all(
        parameters[name].kind is Parameter.KEYWORD_ONLY for name in declared
    )
    rest = {
        name: value
        for name, value in own.items()
        if name not in _MADE_BY_STRUCT and name not in fields and not name.startswith("__struct_")
    }
    key = _keys.setdefault(kind, uuid.uuid4().hex)
    named = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    arguments = (key, kind.__name__, kind.__bases__, named, annotations, declared, config)
    setter: Callable[..., None] = _finish
    return _begin, arguments, rest, None, None, setter


def _begin(
    key: str,
    name: str,
    bases: tuple[type, ...],
    named: dict[str, Any],
    annotations: dict[str, Any],
    declared: dict[str, tuple[str, dict[str, Any]]],
    config: dict[str, Any],
) -> type:
    if key not in _made:
        fields = {
            field: msgspec.field(name=encoded, **told)
            for field, (encoded, told) in declared.items()
        }
        namespace = {**named, "__annotations__": annotations, **fields}
        made: type = StructMeta(name, bases, namespace, **config)
        _made[key] = made
    return _made[key]


def _finish(kind: type, rest: dict[str, Any]) -> None:
    for name, value in rest.items():
        setattr(kind, name, value)
