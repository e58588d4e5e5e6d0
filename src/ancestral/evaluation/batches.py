"""Examples batch after batch, with progress where somebody watches."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from rich.progress import Progress, track
from torch import Tensor

T = TypeVar("T")

SIZE = 50
"""Examples of a batch: more leave a CPU's caches and take it up to three times as long. Other devices have five times as many."""


def batches(*tensors: Tensor, what: str, device: torch.device, show: bool) -> Iterator[tuple[Tensor, ...]]:
    """The same few examples of each of the tensors ``(N, ...)`` after another, on ``device``."""
    size = SIZE if device.type == "cpu" else 5 * SIZE
    for parts in watched(list(zip(*(t.split(size) for t in tensors), strict=True)), what, show=show):
        yield tuple(part.to(device) for part in parts)


@contextmanager
def bar(what: str, *, show: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar that is told the share of the work that is done, if ``show`` and the output is a terminal."""
    with Progress(transient=True, disable=not (show and sys.stdout.isatty())) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)


def watched(items: Sequence[T], what: str, *, show: bool) -> Iterable[T]:
    """The items, with a progress bar if ``show`` and the output is a terminal."""
    return track(items, what, transient=True) if show and sys.stdout.isatty() else items
