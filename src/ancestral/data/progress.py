"""Work on many images in threads, a chunk at a time, with a bar that says how much is left."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def bar() -> Progress:
    """A progress bar on the terminal that goes away when done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def in_chunks(
    function: Callable[[int], T], start: int, stop: int, chunk: int, what: str
) -> Iterator[tuple[int, list[T]]]:
    """Yield (first index, results) of ``function`` over ``start .. stop-1``, in order."""
    with bar() as progress, ThreadPoolExecutor(os.cpu_count()) as pool:
        task = progress.add_task(what, total=stop, completed=start)
        for first in range(start, stop, chunk):
            results = list(pool.map(function, range(first, min(first + chunk, stop))))
            yield first, results
            progress.advance(task, len(results))
