"""Streaming: causal layers evaluated one position after another, each at the cost of that position alone.

A causal layer is written once, as a function of whole maps. In training it sees them whole. In a stream, the
same code of a model runs with a ``Cursor``, and each layer computes only what the cursor's place needs, from
what it has kept of the places before. What is kept lives in the cursor, never in a layer. So a network made
of such layers can be sampled at the cost of one forward pass, and no second implementation of it exists. A
row of a map that depends on the rows above alone is computed as a whole when its row begins.

Values have these shapes: the whole map ``(N, C, H, W)``; in a stream one row ``(N, C, 1, W)`` or one position
``(N, C)``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from ancestral.errors import UserError


class Cursor:
    """A place in a stream, and what every layer has kept of the places before it.

    Places are visited in raster order; a place may be visited again before the next one (a channel more is
    known), and then the last visit counts.

    >>> shift, cursor = Shift(), Cursor(1, (1, 3), torch.device("cpu"), torch.float32)
    >>> for column, value in enumerate((5.0, 6.0, 7.0)):
    ...     cursor.column = column
    ...     print(shift(torch.tensor([[value]]), cursor).item())
    0.0
    5.0
    6.0

    Args:
        n: examples in the batch.
        grid: height and width of the map.
        device: where the layers compute.
        dtype: in which they do.
    """

    def __init__(self, n: int, grid: tuple[int, int], device: torch.device, dtype: torch.dtype) -> None:
        self.n, self.grid, self.device, self.dtype = n, grid, device, dtype
        self.row = 0
        self.column: int | None = None
        """None while a row is computed as a whole."""
        self.previous: Tensor | None = None
        """The input at the position before this one, ``(N, C)``, now that it is known; None at the first
        position."""
        self._kept: dict[nn.Module, Any] = {}

    @property
    def index(self) -> int:
        """Positions before this one."""
        assert self.column is not None
        return self.row * self.grid[1] + self.column

    def kept(self, layer: nn.Module, start: Callable[[], Any]) -> Any:
        """What ``layer`` has kept; what ``start`` gives at the first place.

        Raises UserError for a layer that was not there then.
        """
        if layer not in self._kept:
            if self.row > 0 or self.column:
                raise UserError(
                    "expected the stream of this model, got another's (or one that began elsewhere)",
                    "begin a new one",
                )
            self._kept[layer] = start()
        return self._kept[layer]

    def once(self, model: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
        """What ``compute`` gives at the first visit of this place, whatever the position's own values."""
        if model not in self._kept or self._kept[model][0] != self.index:
            self._kept[model] = self.index, compute()
        found: Tensor = self._kept[model][1]
        return found

    def check(self, x: Tensor) -> None:
        """Raise UserError unless ``x`` has as many examples as the stream, or none (see ``coarser``)."""
        if x.shape[0] not in (self.n, 0):
            raise UserError(
                f"expected {self.n} examples in this stream, got {x.shape[0]}",
                "begin another stream for them",
            )

    def zeros(self, *shape: int) -> Tensor:
        """Zeros ``(N, *shape)`` on the stream's device."""
        return torch.zeros(self.n, *shape, device=self.device, dtype=self.dtype)

    def coarser(self) -> Self:
        """The same place on the map of half the resolution, with the same memory."""
        coarse = object.__new__(type(self))
        coarse.__dict__.update(self.__dict__)
        height, width = self.grid
        coarse.grid = (-(-height // 2), -(-width // 2))
        coarse.row, coarse.column = self.row // 2, None if self.column is None else self.column // 2
        coarse.previous = None
        return coarse


def take(features: Tensor, cursor: Cursor | None) -> Tensor:
    """The part of a map or of a row that belongs to the cursor's place; all of it without a cursor.

    A size of 1 stands for every row or column.
    """
    if cursor is None:
        return features
    if features.shape[2] > 1:
        features = features[:, :, cursor.row : cursor.row + 1]
    if cursor.column is None:
        return features
    return features[:, :, 0, cursor.column if features.shape[3] > 1 else 0]


class Streaming(nn.Module, ABC):
    """A layer with a memory: ``whole`` maps, or one place after another by ``start`` and ``step``."""

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """``x`` is a whole map, or with a cursor the part of it at its place; so is what comes back."""
        if cursor is not None:
            cursor.check(x)
        return (
            self.whole(x)
            if cursor is None
            else self.step(x, cursor.kept(self, lambda: self.start(cursor)), cursor)
        )

    @abstractmethod
    def whole(self, x: Tensor) -> Tensor:
        """The whole map at once."""

    @abstractmethod
    def start(self, cursor: Cursor) -> Any:
        """What the layer keeps before the first place.

        Weights are prepared here, when a stream starts, so that they are never stale.
        """

    @abstractmethod
    def step(self, x: Tensor, kept: Any, cursor: Cursor) -> Tensor:
        """One place. Changes ``kept``, to the same whether the place is visited once or more often."""


class Chain(nn.Sequential):
    """Layers one after another, with a memory or without."""

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """Each layer's result to the next."""
        for layer in self:
            x = layer(x, cursor) if isinstance(layer, Streaming | Chain) else layer(x)
        return x


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, of maps, rows and positions alike."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, ...)`` to ``(N, out, ...)``."""
        return linear(x, self.weight.flatten(1), self.bias) if x.dim() == 2 else super().forward(x)


class Shift(Streaming):
    """Each position receives the features of the one before it in raster order, the first one zeros."""

    def whole(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape."""
        return _shift_on(x)

    def start(self, cursor: Cursor) -> dict[int, Tensor]:
        """The features of the last two positions, by the parity of their index."""
        return {}

    def step(self, x: Tensor, kept: dict[int, Tensor], cursor: Cursor) -> Tensor:
        """The features of the position before."""
        kept[cursor.index % 2] = x
        return kept[1 - cursor.index % 2] if cursor.index else torch.zeros_like(x)


def _shift_on(x: Tensor) -> Tensor:
    return pad(x.flatten(2)[:, :, :-1], (1, 0)).view_as(x)


class InputShift(nn.Module):
    """``Shift`` of the network's input, whose values become known only after a step.

    Without ``wrap``, rows begin with zeros.
    """

    def __init__(self, *, wrap: bool) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """``(N, C, H, W)`` or ``(N, C)`` to the same shape."""
        if cursor is None:
            return _shift_on(x) if self.wrap else pad(x[..., :-1], (1, 0))
        if cursor.previous is None or (cursor.column == 0 and not self.wrap):
            return torch.zeros_like(x)
        return cursor.previous


def shift_down(x: Tensor) -> Tensor:
    """Each row of ``(N, C, H, W)`` receives the features of the row above, the first one zeros."""
    return pad(x[:, :, :-1], (0, 0, 1, 0))


class Injection(Streaming):
    """A linear map of what a model is conditioned on, ``(N, E, H, W)``; sizes of 1 mean the same everywhere.

    Rows of a condition that are shorter than those of the data, by a whole factor, are repeated. In a stream
    the condition stays the whole map, and each row of it is projected once.
    """

    def __init__(self, condition_width: int, out_channels: int) -> None:
        super().__init__()
        self.project = Pointwise(condition_width, out_channels, bias=False)

    def whole(self, x: Tensor) -> Tensor:
        """``(N, E, H, W)`` to ``(N, out, H, W)``."""
        return self.project(x)

    def start(self, cursor: Cursor) -> dict[str, Any]:
        """The row that was projected last."""
        return {"row": None}

    def step(self, x: Tensor, kept: dict[str, Any], cursor: Cursor) -> Tensor:
        """The projection at the cursor's place."""
        if kept["row"] != cursor.row:
            kept["row"] = cursor.row
            if x.shape[2] > 1 or "projected" not in kept:
                kept["projected"] = self.project(
                    x[:, :, cursor.row : cursor.row + 1] if x.shape[2] > 1 else x
                )
        projected: Tensor = kept["projected"]
        if cursor.column is None:
            return projected
        return projected[:, :, 0, cursor.column * projected.shape[3] // cursor.grid[1]]


def repeated(condition: Tensor, like: Tensor) -> Tensor:
    """A condition ``(N, E, 1, L)`` as long as ``like``, ``(N, E, 1, T)``; T is a multiple of L."""
    if condition.dim() == 2 or condition.shape[3] in (1, like.shape[3]):
        return condition
    return condition.repeat_interleave(like.shape[3] // condition.shape[3], 3)
