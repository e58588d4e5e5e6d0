"""Progress bars: on the standard error, where it is a terminal, and gone when the work is done."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")


@contextmanager
def bar(
    what: str, *, total: int | None = None, done: int = 0, show: bool = True
) -> Iterator[Callable[[float], None]]:
    """A bar, and the function that tells it how far the work has come.

    Args:
        what: what is done.
        total: how much there is to do, which is then counted; None is told the share that is done, up to 1.
        done: how much is done already.
        show: whether there is a bar at all.

    >>> with bar("decoding", total=3) as tell:
    ...     for i in range(3):
    ...         tell(i + 1)
    """
    console = Console(stderr=True)
    so_far = TaskProgressColumn() if total is None else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), so_far, TimeRemainingColumn())
    hidden = not (show and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=1.0 if total is None else total, completed=done)
        yield lambda amount: progress.update(task, completed=amount)


def watched(items: Sequence[T], what: str, *, show: bool = True) -> Iterator[T]:
    """The items one after another, with a bar that counts them.

    >>> list(watched([4, 5], "measuring"))
    [4, 5]
    """
    with bar(what, total=len(items), show=show) as tell:
        for done, item in enumerate(items, 1):
            yield item
            tell(done)
