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


def check_names(
    factory: Callable[..., object], options: Mapping[str, object], table_keys: Collection[str] = ()
) -> None:
    """Checks that `factory` has a parameter for each of the options, and that none is missing. Of what tells
    no signature, nothing is known.

    Raises `MachineError`. An unknown name gets the nearest right one: an option's, or one of `table_keys`,
    the keys or arguments that there are besides.
    """
    try:
        parameters = _by_keyword(factory)
    except (TypeError, ValueError):  # of a type written in C, say
        return
    what = getattr(factory, "__qualname__", type(factory).__name__)
    named = {each.name: each for each in parameters if each.kind is not Parameter.VAR_KEYWORD}
    for key in options.keys() - named.keys() if len(named) == len(parameters) else ():
        hint = nearest(key, {*named, *table_keys}) or f"its options: {', '.join(sorted(named)) or 'none'}"
        raise MachineError(f'{what} knows no "{key}"', hint)
    for name in sorted(named.keys() - options.keys()):
        if named[name].default is Parameter.empty:
            hint = f"add `options = {{ {name} = ... }}`" if name in table_keys else f"add `{name} = ...`"
            raise MachineError(f'{what} needs "{name}"', hint)


def check_options(
    factory: Callable[..., object], options: Mapping[str, object], table_keys: Collection[str] = ()
) -> None:
    """`check_names`, and that the values of a file are of the parameters' types. Raises `MachineError`."""
    what = getattr(factory, "__qualname__", type(factory).__name__)
    check_names(factory, options, table_keys)
    try:
        hints = _hints(factory)
    except (NameError, TypeError, ValueError) as error:
        reason = f"the options of {what} cannot be read: {first_line(error)}"
        raise MachineError(reason, "annotate its __init__ with names that its module holds") from error
    for key, value in options.items():
        if key in hints:
            _check_type(value, hints[key], f'"{key}" of {what}')


def takes_option(factory: Callable[..., object], name: str) -> bool:
    """Whether `factory` has a parameter of that name."""
    return any(each.name == name for each in _by_keyword(factory))


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _by_keyword(factory: Callable[..., object]) -> list[Parameter]:
    """The parameters that a keyword can set."""
    return [each for each in inspect.signature(factory).parameters.values() if each.kind in BY_KEYWORD]


def _hints(factory: Callable[..., object]) -> dict[str, object]:
    """The resolved annotation of each parameter that a keyword of its name can set."""
    made_by = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    hints = {} if made_by is object.__init__ else typing.get_type_hints(made_by)
    named = [each.name for each in _by_keyword(factory) if each.kind is not Parameter.VAR_KEYWORD]
    return {name: hints[name] for name in named if name in hints}


def _check_type(value: object, annotation: object, what: str) -> None:
    """Raises `MachineError` unless the TOML value fits the annotation."""
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        reason = str(error).partition(" - at `")[0]
        raise MachineError(f"{what}: {reason[:1].lower()}{reason[1:]}", "correct the value") from error
    except TypeError as error:  # an annotation that no TOML value has, such as a callable
        raise MachineError(f"{what} is no value that a file can hold", "set it from Python") from error
