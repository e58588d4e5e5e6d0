"""Activations that are computed a second time in the backward pass, in place of being kept from the first."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """Within, each of these modules keeps its inputs alone for the backward pass (Chen et al., 2016).

    https://arxiv.org/abs/1604.06174. The values and gradients are the same, dropout included, and so are the
    names of the weights; a step costs a forward pass more. A block that counts statistics in its forward pass
    would count them twice. Passes without gradients, and streams, are as they were.

    >>> block = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 4))
    >>> kept = []
    >>> def loss():
    ...     kept.clear()
    ...     with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda _: None):
    ...         return block(torch.ones(8, 4, requires_grad=True)).sum()
    >>> before = loss(), sum(kept)
    >>> with recomputed([block]):
    ...     within = loss(), sum(kept)
    >>> bool(before[0] == within[0]), within[1] < before[1]
    (True, True)
    """
    blocks = list(blocks)
    for block in blocks:
        block.forward = partial(_recomputing, block, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _recomputing(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
