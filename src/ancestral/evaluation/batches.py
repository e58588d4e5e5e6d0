"""Examples batch after batch, with progress where somebody watches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ancestral.batch import Batch
from ancestral.data import Sounds
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


def alone(examples: Batch | Sounds, what: str, *, show: bool) -> Iterator[Batch]:
    """Sounds one by one, ``(1, C, T)`` each, without padding.

    >>> both = Batch(torch.arange(6).view(2, 1, 3), lengths=torch.tensor([3, 1]))
    >>> [sound.x.tolist() for sound in alone(both, "listening", show=False)]
    [[[[0, 1, 2]]], [[[3]]]]
    """
    for part in batches(len(examples), what, device=torch.device("cpu"), show=show, dims=WHOLE):
        sound = examples[part]
        length = sound.x.shape[-1] if sound.lengths is None else int(sound.lengths[0])
        yield replace(sound, x=sound.x[..., :length], lengths=None)


def together(sounds: Sequence[Tensor], value: int = 0) -> Tensor:
    """Sounds, or their codes, ``(..., T)`` as one tensor ``(N, ..., T)``, padded to the longest.

    >>> together([torch.tensor([1, 2]), torch.tensor([3])]).tolist()
    [[1, 2], [3, 0]]
    """
    longest = max(sound.shape[-1] for sound in sounds)
    return torch.stack([pad(sound, (0, longest - sound.shape[-1]), value=value) for sound in sounds])
