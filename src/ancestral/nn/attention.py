"""Attention over the past of the raster order, whole or in a stream."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from ancestral.nn.streaming import Cursor


@dataclass
class _Cache:
    """Keys and values of every position, ``(N, heads, positions, size)``, filled up to the cursor."""

    keys: Tensor
    values: Tensor


class CausalAttention(nn.Module):
    """Multi-head attention of each position to those before it, and to itself unless ``strict``.

    With ``strict``, a position's content is kept for the positions after it, and the first position, which
    has nothing to see, receives zeros. The keys and values given at a position are then those of the position
    before (``streaming.Shift``), as at that time those of the position itself are not known yet.

    Shapes: queries and keys ``(N, heads * key, H, W)``, values ``(N, heads * value, H, W)``, to the shape of
    the values.

    >>> attention = CausalAttention(1, strict=False)
    >>> alike, values = torch.zeros(1, 1, 1, 4), torch.tensor([0.0, 2.0, 4.0, 6.0]).view(1, 1, 1, 4)
    >>> attention(alike, alike, values).flatten()  # running means
    tensor([0., 1., 2., 3.])
    """

    def __init__(self, heads: int, *, strict: bool) -> None:
        super().__init__()
        self.heads, self.strict = heads, strict

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, cursor: Cursor | None = None) -> Tensor:
        """The values that each position's query finds."""
        if cursor is not None:
            cursor.check(keys)
        return (
            self._whole(queries, keys, values)
            if cursor is None
            else self._step(queries, keys, values, cursor)
        )

    def _whole(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q, k, v = (self._split(x.flatten(2)) for x in (queries, keys, values))
        if self.strict:  # content is shifted by one: query t sees entries 1..t, and the first query none
            q, k, v = q[:, :, 1:], k[:, :, 1:], v[:, :, 1:]
        found = pad(_attend(q, k, v), (0, 0, int(self.strict), 0))
        return found.transpose(2, 3).flatten(1, 2).unflatten(2, values.shape[2:])

    def _split(self, x: Tensor) -> Tensor:
        """``(N, heads * size, L)`` to ``(N, heads, L, size)``."""
        return x.unflatten(1, (self.heads, -1)).transpose(2, 3)

    def start(self, cursor: Cursor, keys: Tensor, values: Tensor) -> _Cache:
        """Room for every position."""
        shape = (len(keys), self.heads, cursor.grid[0] * cursor.grid[1])
        return _Cache(
            keys.new_zeros(*shape, keys.shape[1] // self.heads),
            values.new_zeros(*shape, values.shape[1] // self.heads),
        )

    def _step(self, queries: Tensor, keys: Tensor, values: Tensor, cursor: Cursor) -> Tensor:
        cache: _Cache = cursor.kept(self, lambda: self.start(cursor, keys, values))
        t, first = cursor.index, int(self.strict)
        cache.keys[:, :, t] = keys.unflatten(1, (self.heads, -1))
        cache.values[:, :, t] = values.unflatten(1, (self.heads, -1))
        if self.strict and t == 0:
            return torch.zeros_like(values)
        seen = slice(first, t + 1)
        q = queries.unflatten(1, (self.heads, 1, -1))
        return scaled_dot_product_attention(q, cache.keys[:, :, seen], cache.values[:, :, seen]).flatten(1)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of ``(N, heads, L, size)``, laid out for kernels that never build L x L weights.

    They take heads of one size with their features side by side; anything else costs three times as much on a
    CPU.
    """
    scale, kept = q.shape[-1] ** -0.5, v.shape[-1]
    size = max(q.shape[-1], kept)
    q, k, v = (pad(x, (0, size - x.shape[-1])).contiguous() for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)[..., :kept]
