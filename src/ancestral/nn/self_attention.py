"""Self-attention of maps (Zhang et al., 2018), https://arxiv.org/abs/1805.08318, section 3."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d


class SelfAttention(nn.Module):
    """Each place of a map sees all, and what it sees is added, at first with a weight of 0.

    As in the authors' code: queries and keys have an eighth of the channels, values half of them, keys and
    values are the largest of 2x2 places, and products are not divided by anything.

    Args:
        channels: of the map, at least 8.
        wrap: what each 1x1 convolution passes through, such as spectral norm.
    """

    def __init__(self, channels: int, wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        layers = [nn.Conv2d(channels, width, 1, bias=False) for width in (narrow, narrow, half)]
        layers.append(nn.Conv2d(half, channels, 1, bias=False))
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        self.queries, self.keys, self.values, self.outputs = map(wrap, layers)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, H, W)`` to the same shape."""
        queries = self.queries(x).flatten(2)
        keys, values = (max_pool2d(part(x), 2).flatten(2) for part in (self.keys, self.values))
        weights = (queries.transpose(1, 2) @ keys).softmax(2)  # (N, places, quarter of the places)
        seen = (values @ weights.transpose(1, 2)).unflatten(2, x.shape[2:])
        y: Tensor = x + self.weight * self.outputs(seen)
        return y
