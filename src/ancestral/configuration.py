"""Configuration dataclasses: ranges declared with the fields, and JSON and back, strictly.

An unknown key is an error that names the nearest one; a value out of its range one that names the field.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from ancestral.errors import UserError, nearest, shown

T = TypeVar("T")
_FAR = 1000
"""Upper bounds from here on are there for the memory's sake."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers that a field may hold, declared as ``Annotated[int, Range(least=1)]``.

    Of a list, a tuple or a mapping, each number in it is to lie in the range; integers in 64 bits as well.

    >>> Range(least=0, below=1).check("dropout", 1.5)
    Traceback (most recent call last):
    ancestral.errors.UserError: expected dropout in [0, 1), got 1.5; choose a value in that range
    """

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf

    def check(self, name: str, value: Any, whole: Any = None) -> None:
        """Raise UserError, calling the value ``name``, unless it (or each of several) lies in the range.

        The message shows the value, or the ``whole`` that it is a part of.
        """
        got = shown(value if whole is None else whole)
        for number in _numbers(value):
            if not (self.least <= number <= self.most and self.above < number < self.below):
                # A bound far above is no help to one who is below the range.
                far = number < self.least and self.most >= _FAR
                end = dataclasses.replace(self, most=math.inf) if far else self
                one_sided = min(end.most, end.below) == math.inf and math.isfinite(number)
                remedy = f"raise {name}" if one_sided else "choose a value in that range"
                raise UserError(f"expected {name} {end}, got {got}", remedy)
            if isinstance(number, int) and number >= 2**63:
                problem = f"expected {name} below 2^63, got {got}"
                raise UserError(problem, "choose a value in that range")

    def __str__(self) -> str:
        least, above, most, below = (
            f"{end:g}" if isinstance(end, float) else str(end)
            for end in (self.least, self.above, self.most, self.below)
        )
        if min(self.most, self.below) < math.inf:
            low = f"[{least}" if self.least > -math.inf else f"({above}"
            return f"in {low}, {f'{most}]' if self.most < math.inf else f'{below})'}"
        return f"of at least {least}" if self.least > -math.inf else f"above {above}"


def _numbers(value: Any) -> Iterator[Any]:
    """A number, or those that a value holds at any depth."""
    if isinstance(value, list | tuple | typing.Mapping):
        for part in value.values() if isinstance(value, typing.Mapping) else value:
            yield from _numbers(part)
    elif isinstance(value, int | float):
        yield value


Count = Annotated[int, Range(least=1)]
Natural = Annotated[int, Range(least=0)]
Depth = Annotated[int, Range(least=1, most=1000)]
"""Of what a network has one after another, and a loop builds: layers, codebooks."""
Blocks = Annotated[int, Range(least=0, most=1000)]
"""The same where there may be none."""
Width = Annotated[int, Range(least=1, most=2**20)]
"""Of what a network has side by side: channels, units, heads."""
Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, below=1)]
"""A part of a whole that is never all of it: dropout, the decay of an average."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Configuration:
    """Base of the dataclasses of options, whose values are checked against the ranges and choices declared.

    A field may hold one of several configurations (``field: A | B``); these say which they are by ``kind``.
    """

    kind: ClassVar[str] = ""
    """What the choice of this configuration among several is called, in JSON and on the command line."""
    open: ClassVar[bool] = False
    """Whether JSON may say more than there are fields for, as files of a later version do."""

    def __post_init__(self) -> None:
        """Raise UserError for the first value that is out of its range, or none of its choices."""
        for name, hint in _checked(typing.cast(Any, type(self))).items():
            _check(hint, name, getattr(self, name))


@functools.cache
def _checked(cls: Any) -> dict[str, Any]:
    """The declared type of each field in which there is a range or a set of choices."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if _is_checked(hints[f.name])}


def _is_checked(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return True
    notes = getattr(hint, "__metadata__", ())
    return any(isinstance(note, Range) for note in notes) or any(map(_is_checked, typing.get_args(hint)))


def _check(hint: Any, name: str, value: Any, whole: Any = None) -> None:
    """Raise UserError for a value, or one inside it, out of the range or choices that its type declares."""
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Range):
            note.check(name, value, whole)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, str):
        _check_choice(_choices(hint), name, value)
    if origin is typing.Literal:
        return
    if origin is tuple and parts[-1:] != (...,) and isinstance(value, list | tuple):
        for part, inner in zip(parts, value, strict=False):
            _check(part, name, inner, value if whole is None else whole)
        return
    for part in parts:
        # Of all that a list or a mapping holds, or of the number that there may be.
        if _is_checked(part) and not _choices(part):
            _check(part, name, value, whole)


def _choices(hint: Any) -> tuple[Any, ...]:
    """What a field may hold that is one of several sets of choices: all of them; none if it is not."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(choice for part in typing.get_args(hint) for choice in _choices(part))
    return ()


def _check_choice(choices: tuple[Any, ...], name: str, value: Any) -> None:
    if choices and value not in choices:
        names = list(map(str, choices))
        problem = f"expected {name} to be one of {', '.join(names)}, got {shown(value)}"
        raise UserError(problem, nearest(value if isinstance(value, str) else shown(value), names))


def to_json(value: Any) -> Any:
    """A dataclass, and what it holds, as JSON values; one of several configurations says its ``kind``.

    >>> from ancestral.models.latent.quantizers import FiniteScalar
    >>> to_json(FiniteScalar(levels=(8, 5)))
    {'kind': 'finite-scalar', 'levels': [8, 5]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": value.kind} if isinstance(value, Configuration) and value.kind else {}
        return kind | {_key(f): to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, typing.Mapping):
        return {key: to_json(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def from_json(cls: type[T], data: Any, *, where: str = "", base: T | None = None) -> T:
    """The dataclass ``cls`` from JSON values; what they leave out comes from ``base``, else the defaults.

    A key that is a keyword of Python belongs to the field with an underscore: ``from`` to ``from_``.

    Raises:
        UserError: an unknown key, a value of another type or out of its range, by its full name.

    >>> from ancestral.recipe import Updates
    >>> from_json(Updates, {"warmup": 5}, base=Updates(learning_rate=0.01)).learning_rate
    0.01
    >>> from_json(Updates, {"warm_up": 5}, where="prior")
    Traceback (most recent call last):
    ancestral.errors.UserError: expected an option of prior, got prior.warm_up; did you mean warmup?
    """
    if not isinstance(data, dict):
        problem = f"expected options of {where or cls.__name__}, got {shown(data)}"
        raise UserError(problem, "give an object with names and values")
    fields = {_key(f): f for f in dataclasses.fields(typing.cast(Any, cls))}
    hints, checked = typing.get_type_hints(cls), _checked(typing.cast(Any, cls))
    values: dict[str, Any] = {}
    for key, value in data.items():
        full = f"{where}.{key}" if where else key
        if key == "kind" and key not in fields:
            if value != getattr(cls, "kind", ""):
                raise UserError(
                    f"expected {full} {getattr(cls, 'kind', '') or 'not to be said'}, got {shown(value)}",
                    "choose it there",
                )
            continue
        if key not in fields:
            if getattr(cls, "open", False):
                continue
            problem = f"expected an option of {where or cls.__name__}, got {full}"
            raise UserError(problem, nearest(key, fields))
        name = fields[key].name
        there = getattr(base, name) if base is not None else _default(fields[key])
        values[name] = _convert(hints[name], value, full, None if there is dataclasses.MISSING else there)
        if name in checked:
            _check(checked[name], full, values[name])  # before the dataclass does, which knows no full name
    for key, field in fields.items():
        if base is None and field.name not in values and _default(field) is dataclasses.MISSING:
            raise UserError(f"expected {f'{where}.' if where else ''}{key}, got none", "give it a value")
    return (
        typing.cast(T, dataclasses.replace(typing.cast(Any, base), **values))
        if base is not None
        else cls(**values)
    )


def _key(field: "dataclasses.Field[Any]") -> str:
    """What JSON calls a field."""
    return field.name.removesuffix("_")


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The names at which two JSON values differ, each with both values.

    >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    ['b.c (2 there, 3 here)']
    """
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted({*a, *b})
        parts = [differences(a.get(key), b.get(key), f"{where}.{key}" if where else key) for key in names]
        return [difference for part in parts for difference in part]
    if a == b:
        return []
    if isinstance(a, dict) and b is None:
        return [f"{where} (there, not here)"]
    if isinstance(b, dict) and a is None:
        return [f"{where} (here, not there)"]
    return [f"{where} ({a} there, {b} here)"]


def _convert(hint: Any, value: Any, where: str, base: Any) -> Any:
    if hint is Any:
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(arguments, value, where, base)
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(Any, hint), value, where=where, base=base)
    if origin is typing.Literal:
        _check_choice(arguments, where, value)
        return value
    if origin in (tuple, Sequence):
        return _convert_tuple(arguments if origin is tuple else (*arguments, ...), value, where)
    if isinstance(origin, type) and issubclass(origin, typing.Mapping):
        if not isinstance(value, dict):
            problem = f"expected {where} to be an object with names and values, got {shown(value)}"
            raise UserError(problem, "mend the value")
        base = base or {}
        return base | {k: _convert(arguments[1], v, f"{where}.{k}", base.get(k)) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf if value > 0 else -math.inf
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise UserError(
            f"expected {where} to be of type {hint.__name__}, got {shown(value)}", "mend the value"
        )
    return value


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str, base: Any) -> Any:
    if value is None and type(None) in arguments:
        return None
    configurations = [h for h in arguments if isinstance(h, type) and issubclass(h, Configuration)]
    kinds = {hint.kind: hint for hint in configurations if hint.kind}
    if isinstance(value, dict) and kinds and "kind" in value:
        kind = value["kind"]
        if kind not in list(kinds):  # not in the keys: it may be a list, which has no hash
            problem = f"expected {where}.kind to be one of {', '.join(kinds)}, got {shown(kind)}"
            raise UserError(problem, nearest(shown(kind), kinds))
        arguments = (kinds[kind],)
    # Several sets of choices are one, so that the message names them all.
    if choices := tuple(choice for hint in arguments for choice in _choices(hint)):
        arguments = (
            *(hint for hint in arguments if typing.get_origin(hint) is not typing.Literal),
            typing.Literal[choices],
        )
    # Of several dataclasses, the one that is there now comes first: what is left out comes from it, and its
    # mistakes are told.
    problem_there: UserError | None = None
    for choice in sorted(arguments, key=lambda choice: choice is not type(base)):
        kept = None if dataclasses.is_dataclass(choice) and choice is not type(base) else base
        try:
            if choice is not type(None):
                return _convert(choice, value, where, kept)
        except UserError as error:
            problem_there = problem_there or error
    assert problem_there is not None
    raise problem_there


def _convert_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"expected {where} to be a list, got {shown(value)}", "mend the value")
    hints = [arguments[0]] * len(value) if arguments[-1:] == (...,) else list(arguments)
    if len(hints) != len(value):
        raise UserError(f"expected {where} to have {len(hints)} values, got {len(value)}", "mend the value")
    pairs = zip(hints, value, strict=True)
    return tuple(_convert(hint, v, f"{where}.{i}", None) for i, (hint, v) in enumerate(pairs))
