"""The one error that a user's mistake raises, and the nearest word to a misspelled one."""

import difflib
import unicodedata
from collections.abc import Iterable
from types import UnionType


class UserError(Exception):
    r"""What was asked for cannot be done, for a reason that the person asking can mend.

    The message is one line: what was expected and what came, then what to do. The command line prints it and
    exits with status 2. Control characters of names and files are written out: no terminal obeys them.

    >>> print(UserError("expected 3 labels, got 2", "give one for each example"))
    expected 3 labels, got 2; give one for each example
    >>> print(UserError("expected a folder, got cats\x1b[2J", "check the path"))
    expected a folder, got cats\x1b[2J; check the path
    """

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        words = f"{problem if len(problem) <= _LONGEST else problem[:_LONGEST] + '…'}; {remedy}"
        super().__init__("".join(map(_printed, words.replace("\n", " "))))


_LONGEST = 1000
"""Characters of a problem that are shown: it may quote a file."""
_COMMANDS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that are not shown but obeyed, or that no encoding holds."""


def _printed(character: str) -> str:
    obeyed = unicodedata.category(character) in _COMMANDS
    return character.encode("unicode_escape").decode("ascii") if obeyed else character


class Interrupted(Exception):
    """The training was asked to stop (Ctrl-C, SIGTERM, a closed terminal), saved, and can go on."""

    def __init__(self, stage: str, step: int, number: int) -> None:
        self.stage, self.step, self.signal = stage, step, number
        super().__init__(f"stopped in stage {stage} after step {step}; saved")


def nearest(word: str, choices: Iterable[str]) -> str:
    """The remedy for an unknown word: the nearest known one if there is one, else all of them.

    >>> nearest("vqave", ["vae", "vqvae", "glow"])
    'did you mean vqvae?'
    >>> nearest("diffusion", ["vae", "vqvae", "glow"])
    'choose from glow, vae, vqvae'
    """
    known = sorted(choices)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}"


def shown(value: object, most: int = 80) -> str:
    """A value as a message shows it: as Python writes it, and cut off where that is long.

    >>> shown("cat"), shown([0] * 1000, most=10)
    ("'cat'", '[0, 0, 0, …')
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def check_at_least(minimum: float, **values: float) -> None:
    """Raise UserError, naming the first, unless every value is at least ``minimum``.

    >>> check_at_least(1, n=4, k=0)
    Traceback (most recent call last):
    ancestral.errors.UserError: expected k of at least 1, got 0; raise k
    """
    for name, value in values.items():
        if not value >= minimum:
            raise UserError(f"expected {name} of at least {minimum}, got {value}", f"raise {name}")


def check_type(value: object, kinds: type | UnionType, what: str, remedy: str) -> None:
    """Raise UserError unless ``value``, which ought to be ``what``, is of one of ``kinds``.

    >>> check_type(3, str, "a name", "put it in quotes")
    Traceback (most recent call last):
    ancestral.errors.UserError: expected a name, got int; put it in quotes
    """
    if not isinstance(value, kinds):
        raise UserError(f"expected {what}, got {type(value).__name__}", remedy)
