"""Command line to dataclass through tyro, with mistakes as one line."""

import contextlib
import io
import re
from typing import Any, TypeVar

import tyro

from ancestral.errors import UserError

T = TypeVar("T")


def parse(options: type[T], arguments: list[str], command: str, default: T | None = None) -> T:
    """The options of ``ancestral COMMAND`` as a dataclass. ``--help`` prints the help and exits.

    Raises:
        UserError: an unknown option (the nearest is named), a value of another type, a missing option.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(options, prog=f"ancestral {command}", args=arguments, default=default)  # type: ignore[return-value]
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise _one_line(errors.getvalue(), command) from None


def _one_line(box: str, command: str) -> UserError:
    """What tyro says in a box, as a sentence."""
    lines = [re.sub(r"[│╭╮╰╯]", "", line).strip() for line in box.splitlines()]
    problem = [line for line in lines[1:] if line]
    end = next((i for i, line in enumerate(problem) if set(line) <= {"─"}), len(problem))
    text = " ".join(problem[:end]).rstrip(".")
    hint = re.search(r"(?:Perhaps you meant|Similar)[^-]*(--[\w.-]+)", " ".join(problem))
    remedy = f"did you mean {hint[1]}?" if hint else f"see ancestral {command} --help"
    return UserError(text[:1].lower() + text[1:], remedy)


def take_option(arguments: list[str], name: str) -> str | None:
    """The value of ``name`` in the arguments, which stay as they are: for options that decide what the other options are."""
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def device(choice: str) -> Any:
    """The torch device of ``auto``, ``cpu``, ``cuda`` or ``mps``; auto takes a GPU where there is one."""
    import torch  # noqa: PLC0415 - help must not wait for it

    if choice == "cuda" and not torch.cuda.is_available():
        raise UserError("expected a CUDA device, got none", "choose --device auto")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)
