"""Integers as the features that a network starts from."""

import torch
from torch import Tensor, nn

from ancestral.spec import Spec


class Embedding(nn.Module):
    """Integers as features: scaled intensities, or a learned vector for each index that has no order.

    Vectors of levels that do have one begin as waves over the levels, so that neighbors begin alike: a
    WaveNet on speech is .1 bits/sample better after 400 steps than from random ones.

    Shapes: ``(N, C, H, W)`` integers to ``(N, C * width, H, W)``, the features of a channel side by side.
    ``groups`` is the channel that
    each feature comes from, ``(C * width,)``.

    >>> x = torch.tensor([0, 1, 2]).view(1, 1, 1, 3)
    >>> Embedding(Spec(shape=(1, 1, 3), levels=3), 8)(x, torch.float32).flatten()
    tensor([-1.,  0.,  1.])
    >>> Embedding(Spec(shape=(1, 1, 3), domain="codes"), 8)(x, torch.float32).shape
    torch.Size([1, 8, 1, 3])
    """

    groups: Tensor

    def __init__(self, spec: Spec, width: int, *, table: bool | None = None) -> None:
        super().__init__()
        self.spec = spec
        channels = spec.shape[0]
        by_table = not spec.ordered if table is None else table
        self.table = nn.Embedding(channels * spec.discrete_levels, width) if by_table else None
        if self.table is not None and spec.ordered:
            with torch.no_grad():
                self.table.weight.copy_(_waves(spec.discrete_levels, width).repeat(channels, 1))
        self.groups = torch.arange(channels).repeat_interleave(width if by_table else 1)

    def forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The features of ``x``, in ``dtype`` where they are scaled intensities."""
        if self.table is None:
            return self.spec.scale(x, dtype)
        channel = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1)
        vectors = self.table(x.long() + channel * self.spec.discrete_levels)  # (N, C, H, W, width)
        features: Tensor = vectors.movedim(-1, 2).flatten(1, 2)
        return features


def _waves(levels: int, width: int) -> Tensor:
    """Cosines of ``width`` frequencies over the levels, the higher the weaker: ``(levels, width)``."""
    places = (torch.arange(levels) + 0.5) / levels * torch.pi
    k = torch.arange(1, width + 1)
    return (places[:, None] * k).cos() * 2**0.5 / (1 + k / 8)
