"""Command line to dataclass through tyro, with mistakes as one line."""

import contextlib
import difflib
import io
import re
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
    errors, text = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(options, prog=f"ancestral {command}", args=arguments, default=default)  # type: ignore[return-value]
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"], default=default)
    raise _one_line(
        errors.getvalue(), f"ancestral {command}", re.findall(r"--[a-z](?:[\w.-]*\w)?", text.getvalue())
    )


def _one_line(box: str, command: str, known: list[str]) -> UserError:
    """What tyro says in a box, as a sentence; ``known`` are all options."""
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
        near = _same_end(match[1].partition("=")[0], known) or hinted
        kind = f"an option of {command}" if match[1].startswith("-") else "no more words"
        return UserError(f"expected {kind}, got {match[1]}", f"did you mean {near[0]}?" if near else see)
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
        form = next(
            (line.strip() for line in (*blocks, [])[1] if line.strip().startswith(match[1])), match[1]
        )
        got = " ".join(re.findall(r"'([^']*)'", match[2]))
        return UserError(
            f"expected {form.replace('{None}|', '').replace('{', '').replace('}', '')}, got {got}", see
        )
    return UserError(text.rstrip("."), see)


def _same_end(option: str, known: list[str]) -> list[str]:
    """The options whose last part is that of ``option``, the likeliest first.

    Or has it as initials, as ``lr`` is of ``learning-rate``.
    """

    def last(name: str) -> str:
        return name.lstrip("-").rpartition(".")[2]

    if not option.startswith("-"):
        return []
    same = [
        name
        for name in known
        if last(option) in (last(name), "".join(word[:1] for word in last(name).split("-")))
    ]
    return difflib.get_close_matches(option, same, n=len(same), cutoff=0) if same else []


def take_option(arguments: list[str], name: str) -> str | None:
    """The value of ``name`` in the arguments, which stay as they are.

    For options that decide what the other options are.
    """
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None
