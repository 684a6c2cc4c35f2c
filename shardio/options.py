"""What values in a configuration mean: sizes, and a device's options, for which its signature is the schema.

A device is named by dotted path, `package.module:Class`. Every key of its table that is not the machine's own
is an argument of the constructor: a plain TOML value whose type the parameter's annotation gives.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Collection, Iterable, Mapping
from inspect import Parameter

import msgspec

from shardio.errors import ConfigError

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE = re.compile(r"(0x[0-9a-f]+|[0-9]+)\s*(?:([KMGT])(?:i?B)?)?", re.IGNORECASE)
BY_KEYWORD = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)


def parse_size(size: int | str) -> int:
    """Bytes of a size: a number of bytes, or text with K, M, G or T for powers of 1024.

    Raises ConfigError for anything else and for zero.

    >>> parse_size("64M"), parse_size("1 GiB"), parse_size(4096)
    (67108864, 1073741824, 4096)
    """
    number = size if isinstance(size, int) and not isinstance(size, bool) else None
    match = SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if match is not None:
        number = int(match[1], 0 if match[1][:2] in ("0x", "0X") else 10) * UNITS[(match[2] or "").upper()]
    if number is None or number <= 0:
        raise ConfigError("size", f'not "{size}"', 'write bytes, or a number with K, M or G, like "64M"')
    return number


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The cure for an unknown name: the known one that is nearest, or None when none is near.

    >>> nearest("vcpu", ["memory", "vcpus"])
    'did you mean "vcpus"?'
    """
    names = sorted(known)
    slip = [each for each in names if _slips(name, each) == 1]
    close = slip or difflib.get_close_matches(name, names, n=1)
    return f'did you mean "{close[0]}"?' if close else None


def _slips(typed: str, meant: str) -> int:
    """How many letters to insert, delete, replace or swap with the next one (Damerau and Levenshtein)."""
    above, row = [0] * (len(meant) + 1), list(range(len(meant) + 1))
    for i, letter in enumerate(typed):
        over, above, row = above, row, [i + 1]
        for j, other in enumerate(meant):
            row.append(min(above[j] + (letter != other), above[j + 1] + 1, row[j] + 1))
            if i and j and letter == meant[j - 1] and typed[i - 1] == other:
                row[j + 1] = min(row[j + 1], over[j - 1] + 1)
    return row[-1]


def listed(names: Iterable[str]) -> str:
    """The cure where nothing is near: what there is.

    >>> listed(["vcpus", "memory"])
    'known are memory, vcpus'
    """
    return f"known are {', '.join(sorted(names)) or 'none'}"


def load_device_class(path: str, where: str) -> type:
    """Imports the class that the dotted path `package.module:Class` names.

    Raises ConfigError for `where` when the path has another shape, or names nothing or no class.
    """
    module_name, _, attribute = path.partition(":")
    if not (module_name and attribute):
        raise ConfigError(where, f'type "{path}" is no dotted path', 'write it as "package.module:Class"')
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute, None)
    except ModuleNotFoundError as error:
        cure = "correct the module's name, or install its package"
        raise ConfigError(where, f'type "{path}": {first_line(error)}', cure) from error
    except Exception as error:  # the module is the user's code: whatever it raises is the reason
        reason = f'type "{path}": importing {module_name} raised {type(error).__name__}: {first_line(error)}'
        raise ConfigError(where, reason, "mend the module") from error
    if found is None:
        classes = {name for name in dir(module) if name[:1].isupper()}
        cure = nearest(attribute, classes) or listed(classes)
        raise ConfigError(where, f'{module_name} has no "{attribute}"', cure)
    if not inspect.isclass(found):
        raise ConfigError(where, f'type "{path}" is a {type(found).__name__}, no class', "name a class")
    return found


def check_options(
    device: type, options: Mapping[str, object], where: str, table_keys: Collection[str] = ()
) -> None:
    """Checks the options against the constructor of `device`: names, types, and that none is missing.

    Raises ConfigError for `where`. An unknown name gets the nearest right one: an option's, or one of
    `table_keys`, the keys that the table has besides.
    """
    try:
        parameters = _parameters(device)
    except (NameError, TypeError, ValueError) as error:
        reason = f"the options of {device.__qualname__} cannot be read: {first_line(error)}"
        raise ConfigError(where, reason, "annotate its __init__ with names that its module holds") from error
    named = {name for name, (how, _) in parameters.items() if how.kind is not Parameter.VAR_KEYWORD}
    takes_any = len(named) < len(parameters)
    for key, value in options.items():
        if key in named:
            _check_type(value, parameters[key][1], where, f'"{key}" of {device.__qualname__}')
        elif not takes_any:
            cure = nearest(key, {*named, *table_keys}) or f"its options: {', '.join(sorted(named)) or 'none'}"
            raise ConfigError(where, f'{device.__qualname__} knows no "{key}"', cure)
    for name in sorted(named - options.keys()):
        if parameters[name][0].default is Parameter.empty:
            raise ConfigError(where, f'{device.__qualname__} needs "{name}"', f"add `{name} = ...`")


def takes_option(device: type, name: str) -> bool:
    """Whether the constructor of `device` has an argument of that name."""
    return name in _parameters(device)


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _parameters(device: type) -> dict[str, tuple[Parameter, object]]:
    """The constructor's parameters that a keyword can set, each with its resolved annotation."""
    constructor = device.__init__  # type: ignore[misc]
    if constructor is object.__init__:
        return {}
    found = list(inspect.signature(constructor).parameters.values())[1:]
    hints = typing.get_type_hints(constructor)
    return {each.name: (each, hints.get(each.name, typing.Any)) for each in found if each.kind in BY_KEYWORD}


def _check_type(value: object, annotation: object, where: str, what: str) -> None:
    """Raises ConfigError unless the TOML value fits the annotation."""
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at `")[0]
        raise ConfigError(where, f"{what}: {reason[:1].lower()}{reason[1:]}", "correct the value") from error
    except TypeError as error:  # an annotation that no TOML value has, such as a callable
        raise ConfigError(where, f"{what} is no value that a file can hold", "set it from Python") from error
