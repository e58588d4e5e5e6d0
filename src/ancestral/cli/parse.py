"""Command line to dataclass through tyro, with mistakes as one line."""

import contextlib
import difflib
import io
import itertools
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from ancestral.errors import UserError, nearest

T = TypeVar("T")


def shown_as(metavar: str) -> Any:
    """For ``Annotated``: what stands for an option's value in the help; a default of None is not shown."""
    return tyro.conf.arg(
        metavar=metavar,
        help_behavior_hint=lambda default: f"(default: {default})" if default not in ("None", "") else "",
    )


def parse(options: type[T], arguments: list[str], command: str, default: T | None = None) -> T:
    """The options of ``ancestral COMMAND`` as a dataclass. ``--help`` prints the help and exits.

    Raises:
        UserError: an unknown option (the nearest is named), a value of another type, a missing option.
    """
    errors, prog = io.StringIO(), f"ancestral {command}"
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(options, prog=prog, args=arguments, default=default, registry=_REGISTRY)  # type: ignore[return-value]
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
    raise _one_line(errors.getvalue(), prog, lambda: known_options(options, default))


def known_options(options: type[T], default: T | None = None) -> list[str]:
    """All options of a command, as its help names them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"], default=default, registry=_REGISTRY)
    return list(dict.fromkeys(re.findall(r"--[a-z](?:[\w.-]*\w)?", text.getvalue())))


_REGISTRY = tyro.constructors.ConstructorRegistry()
"""How options are read where tyro's own way shows too much."""


@_REGISTRY.primitive_rule
def _number(
    option: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """A number that may be None, or one for each level: the help shows INT, not {None}|INT.

    Several are written with commas: after spaces, what follows the option would be read as more of them.
    """
    hints = [hint for hint in typing.get_args(option.type) if hint is not type(None)]
    several = any(_is_sequence(hint) for hint in hints)
    kinds = [getattr(hint, "__origin__", hint) for hint in hints if not _is_sequence(hint)]
    optional = type(None) in typing.get_args(option.type)
    if len(kinds) != 1 or kinds[0] not in (int, float) or not (optional or several):
        return None
    kind = kinds[0]

    def read(words: list[str]) -> Any:
        parts = words[0].split(",") if several else words
        values = [None if optional and part == "None" else kind(part) for part in parts]
        return tuple(values) if len(values) > 1 else values[0]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{kind.__name__.upper()}[,...]" if several else kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, int | float | tuple),
        str_from_instance=lambda value: [
            ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        ],
    )


def _is_sequence(hint: Any) -> bool:
    return typing.get_origin(hint) in (tuple, Sequence)


def _one_line(box: str, command: str, known: Callable[[], list[str]]) -> UserError:
    """What tyro says in a box, as a sentence; ``known`` gives all options."""
    # Where the terminal knows no lines, the title stands above a rule, else it is in the frame.
    inside = [re.sub(r"[│╭╮╰╯]", " ", line).rstrip() for line in box.splitlines()]
    blocks: list[list[str]] = [[]]
    for line in inside[1:]:
        if re.fullmatch(r"[\s─-]+", line):
            blocks += [[]] if blocks[-1] else []
        elif line:
            blocks[-1].append(line)
    text, hints = (" ".join(line.strip() for line in block) for block in (*blocks, [])[:2])
    see = f"see {command} --help"

    if text.startswith("Missing from"):
        indents = sorted({len(line) - len(line.lstrip()) for line in blocks[0]})
        names = [line.strip() for line in blocks[0] if len(line) - len(line.lstrip()) == indents[1]]
        return UserError(f"expected {' and '.join(names)}, got none", see)
    if match := re.match(r"Unrecognized options: ([^\s,]+)", text):
        hinted = re.findall(r"--[\w.-]+", hints) if hints.startswith(("Perhaps", "Similar")) else []
        if not match[1].startswith("-"):
            return UserError(f"expected no more words, got {match[1]}", see)
        near = _same_end(match[1].partition("=")[0], known()) or hinted[:1]
        remedy = f"did you mean {' or '.join(near)}?" if near else see
        return UserError(f"expected an option of {command}, got {match[1]}", remedy)
    if match := re.match(r"Missing value for argument '(\S+)'\. Expected (\d+)", text):
        return UserError(
            f"expected {match[2]} value{'s' if match[2] != '1' else ''} for {match[1]}, got fewer", see
        )
    if match := re.match(r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*)\)", text):
        choices = re.findall(r"'([^']*)'", match[3])
        return UserError(
            f"expected {match[2]} to be one of {', '.join(choices)}, got {match[1]}",
            nearest(match[1], choices),
        )
    if match := re.match(r"Error parsing (\S+): .*?(\['.*?'\]|'.*?')", text):
        first = match[1].split("/")[0]  # of an option with another name
        form = next((line.strip() for line in (*blocks, [])[1] if line.strip().startswith(first)), match[1])
        got = " ".join(re.findall(r"'([^']*)'", match[2]))
        return UserError(
            f"expected {form.replace('{None}|', '').replace('{', '').replace('}', '')}, got {got}", see
        )
    return UserError(text.rstrip("."), see)


def _same_end(option: str, known: list[str]) -> list[str]:
    """The options whose last part is that of ``option``; the likeliest one if it says more than that part.

    Or has it as initials, as ``lr`` is of ``learning-rate``.
    """

    def last(name: str) -> str:
        return name.lstrip("-").rpartition(".")[2]

    same = [
        name
        for name in known
        if last(option) in (last(name), "".join(word[:1] for word in last(name).split("-")))
    ]
    most = 1 if "." in option else 4  # --steps may be any stage's
    return difflib.get_close_matches(option, same, n=most, cutoff=0) if same else []


def take_option(arguments: list[str], name: str) -> str | None:
    """The value of ``name`` in the arguments, which stay as they are.

    For options that decide what the other options are. As everywhere, - and _ in names are the same.

    >>> take_option(["--model.top-prior", "transformer"], "--model.top_prior")
    'transformer'
    """
    return next(iter(take_values(arguments, name)), None)


def take_values(arguments: list[str], name: str) -> list[str]:
    """The values of ``name``, which takes several, as ``take_option`` takes one."""
    for i, argument in enumerate(arguments):
        option, given, value = argument.partition("=")
        if option.replace("_", "-") == name.replace("_", "-"):
            if given:
                return [value]
            return list(itertools.takewhile(lambda word: not word.startswith("-"), arguments[i + 1 :]))
    return []
