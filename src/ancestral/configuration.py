"""Configuration dataclasses to JSON and back, strictly: an unknown key is an error that names the nearest one."""

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from ancestral.errors import UserError, nearest

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass, and what it holds, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def from_json(cls: type[T], data: Any, *, where: str = "", base: T | None = None) -> T:
    """The dataclass ``cls`` from JSON values; what they leave out comes from ``base``, else from the defaults.

    Raises:
        UserError: an unknown key or a value of another type, by its full name.
    """
    if not isinstance(data, dict):
        raise UserError(
            f"expected options of {where or cls.__name__}, got {data!r}",
            "give an object with names and values",
        )
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, cls))}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        full = f"{where}.{key}" if where else key
        if key not in fields:
            raise UserError(
                f"expected an option of {where or cls.__name__}, got {full}", nearest(key, fields)
            )
        values[key] = _convert(hints[key], value, full, getattr(base, key, None))
    needed = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if base is None and (absent := [name for name in needed if name not in values]):
        raise UserError(f"expected {f'{where}.' if where else ''}{absent[0]}, got none", "give it a value")
    return (
        typing.cast(T, dataclasses.replace(typing.cast(Any, base), **values))
        if base is not None
        else cls(**values)
    )


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The names at which two JSON values differ, each with both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        parts = [
            differences(a.get(key), b.get(key), f"{where}.{key}" if where else key)
            for key in sorted({*a, *b})
        ]
        return [difference for part in parts for difference in part]
    return [] if a == b else [f"{where} ({a} there, {b} here)"]


def _convert(hint: Any, value: Any, where: str, base: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where, base)
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(Any, hint), value, where=where, base=base)
    if origin is typing.Literal:
        if value not in arguments:
            raise UserError(
                f"expected {where} to be one of {', '.join(map(str, arguments))}, got {value!r}",
                nearest(str(value), map(str, arguments)),
            )
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise UserError(f"expected {where} to be of type {hint.__name__}, got {value!r}", "mend the value")
    return value


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str, base: Any) -> Any:
    if value is None and type(None) in arguments:
        return None
    # Several sets of choices are one, so that the message names them all.
    choices = tuple(
        c for hint in arguments if typing.get_origin(hint) is typing.Literal for c in typing.get_args(hint)
    )
    if choices:
        arguments = (
            *(hint for hint in arguments if typing.get_origin(hint) is not typing.Literal),
            typing.Literal[choices],
        )
    # Of several dataclasses, the one that is there now comes first: what is left out comes from it, and its mistakes are told.
    problem: UserError | None = None
    for choice in sorted(arguments, key=lambda choice: choice is not type(base)):
        kept = None if dataclasses.is_dataclass(choice) and choice is not type(base) else base
        try:
            if choice is not type(None):
                return _convert(choice, value, where, kept)
        except UserError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"expected {where} to be a list, got {value!r}", "mend the value")
    hints = [arguments[0]] * len(value) if arguments[-1:] == (...,) else list(arguments)
    if len(hints) != len(value):
        raise UserError(f"expected {where} to have {len(hints)} values, got {len(value)}", "mend the value")
    return tuple(_convert(hint, v, where, None) for hint, v in zip(hints, value, strict=True))
