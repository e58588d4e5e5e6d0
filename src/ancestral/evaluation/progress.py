"""Progress of a command, where somebody watches."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.progress import track

T = TypeVar("T")


def watched(items: Sequence[T], what: str, *, show: bool) -> Iterable[T]:
    """The items, with a progress bar if ``show`` and the output is a terminal."""
    return track(items, what, transient=True) if show and sys.stdout.isatty() else items
