"""Examples batch after batch, with progress where somebody watches."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from rich.progress import track
from torch import Tensor

T = TypeVar("T")

SIZE = 250
"""Examples of a batch."""


def batches(*tensors: Tensor, what: str, device: torch.device, show: bool) -> Iterator[tuple[Tensor, ...]]:
    """The same ``SIZE`` examples of each of the tensors ``(N, ...)`` after another, on ``device``."""
    for parts in watched(list(zip(*(t.split(SIZE) for t in tensors), strict=True)), what, show=show):
        yield tuple(part.to(device) for part in parts)


def watched(items: Sequence[T], what: str, *, show: bool) -> Iterable[T]:
    """The items, with a progress bar if ``show`` and the output is a terminal."""
    return track(items, what, transient=True) if show and sys.stdout.isatty() else items
