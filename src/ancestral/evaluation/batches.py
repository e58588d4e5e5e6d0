"""Examples batch after batch, with progress where somebody watches."""

from collections.abc import Iterable

import torch

from ancestral.pipeline import part_size
from ancestral.progress import watched

SIZE = 50
"""Examples of a batch: more leave a CPU's caches and take it up to three times as long. Other devices have
five times as many."""
WHOLE = 2**24
"""Dimensions of examples that come one by one."""


def batches(n: int, what: str, *, device: torch.device, show: bool, dims: int = 1) -> Iterable[slice]:
    """Where each batch of ``n`` examples lies, one after another: with many dimensions, of fewer."""
    size = part_size(dims, SIZE if device.type == "cpu" else 5 * SIZE)
    return watched([slice(first, first + size) for first in range(0, n, size)], what, show=show)
