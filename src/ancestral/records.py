"""Files of JSON as dataclasses, which declare types and ranges: what lies behind this door may trust them."""

from pathlib import Path
from typing import Any, TypeVar

from ancestral.configuration import from_json
from ancestral.errors import UserError
from ancestral.files import Damaged, read_json

T = TypeVar("T")


def read_record(cls: type[T], path: Path, base: T | None = None) -> T:
    """The dataclass ``cls`` from a file of JSON; what it leaves out comes from ``base``, else the defaults.

    Raises:
        Damaged: the file is missing or holds something else.
        UserError: it may not be read.
    """
    return as_record(cls, read_json(path), path, base)


def as_record(cls: type[T], content: Any, path: Path, base: T | None = None) -> T:
    """The same of what ``path`` is known to hold."""
    try:
        return from_json(cls, content, base=base)
    except UserError as error:
        raise Damaged(f"{error.problem} in {path}", "restore the file, or make it anew") from None
