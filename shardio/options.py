"""A device's options, for which the signature of its constructor is the schema: what a file can give it, and
what is wrong with that.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from inspect import Parameter

import msgspec

from shardio.errors import MachineError
from shardio.spelling import nearest

BY_KEYWORD = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)


def check_options(
    factory: Callable[..., object], options: Mapping[str, object], table_keys: Collection[str] = ()
) -> None:
    """Checks the options against the parameters of `factory`: names, types, and that none is missing.

    Raises `MachineError`. An unknown name gets the nearest right one: an option's, or one of `table_keys`,
    the keys that the table has besides.
    """
    what = getattr(factory, "__qualname__", type(factory).__name__)
    try:
        parameters = _parameters(factory)
    except (NameError, TypeError, ValueError) as error:
        reason = f"the options of {what} cannot be read: {first_line(error)}"
        raise MachineError(reason, "annotate its __init__ with names that its module holds") from error
    named = {name for name, (how, _) in parameters.items() if how.kind is not Parameter.VAR_KEYWORD}
    takes_any = len(named) < len(parameters)
    for key, value in options.items():
        if key in named:
            _check_type(value, parameters[key][1], f'"{key}" of {what}')
        elif not takes_any:
            cure = nearest(key, {*named, *table_keys}) or f"its options: {', '.join(sorted(named)) or 'none'}"
            raise MachineError(f'{what} knows no "{key}"', cure)
    for name in sorted(named - options.keys()):
        if parameters[name][0].default is Parameter.empty:
            cure = f"add `options = {{ {name} = ... }}`" if name in table_keys else f"add `{name} = ...`"
            raise MachineError(f'{what} needs "{name}"', cure)


def takes_option(factory: Callable[..., object], name: str) -> bool:
    """Whether `factory` has a parameter of that name."""
    return name in _parameters(factory)


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _parameters(factory: Callable[..., object]) -> dict[str, tuple[Parameter, object]]:
    """The parameters that a keyword can set, each with its resolved annotation."""
    made_by = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    if made_by is object.__init__:
        return {}
    found = list(inspect.signature(made_by).parameters.values())[isinstance(factory, type) :]
    hints = typing.get_type_hints(made_by)
    return {each.name: (each, hints.get(each.name, typing.Any)) for each in found if each.kind in BY_KEYWORD}


def _check_type(value: object, annotation: object, what: str) -> None:
    """Raises `MachineError` unless the TOML value fits the annotation."""
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at `")[0]
        raise MachineError(f"{what}: {reason[:1].lower()}{reason[1:]}", "correct the value") from error
    except TypeError as error:  # an annotation that no TOML value has, such as a callable
        raise MachineError(f"{what} is no value that a file can hold", "set it from Python") from error
