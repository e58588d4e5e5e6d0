"""The gated residual block of PixelCNN++ and PixelSNAIL, and which of their weights are normalized."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import elu
from torch.nn.utils.parametrizations import weight_norm

from ancestral.nn.causal import RasterConv2d, Upsample2d, VerticalConv2d
from ancestral.nn.receptive_field import Grid, through, window
from ancestral.nn.streaming import Cursor, Injection, Pointwise, Streaming, take

Convolution = Callable[[int, int], nn.Module]
"""Makes a convolution from its numbers of input and output channels."""


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, twice the channels (Salimans et al., 2017, after Shang et al., 2016)."""
    return elu(torch.cat([x, -x], 1))


class GatedResidual(nn.Module):
    """``x + a * sigmoid(b)``, (a, b) two convolutions of ``x`` and an aside (Salimans et al., 2017).

    Args:
        width: channels of ``x``.
        convolution: makes both convolutions.
        hidden: channels between them; ``width`` if None.
        aside: channels of features that join in, by a 1x1 convolution.
        condition_width: features of the condition; 0 without.
        dropout: share of the hidden features dropped in training.
    """

    def __init__(
        self, width: int, convolution: Convolution, *, hidden: int | None = None, aside: int = 0,
        condition_width: int = 0, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = hidden or width
        self.first = convolution(2 * width, hidden)
        self.aside = Pointwise(2 * aside, hidden, bias=False) if aside else None
        self.dropout = nn.Dropout(dropout)
        self.second = convolution(2 * hidden, 2 * width)
        self.condition = Injection(condition_width, 2 * width) if condition_width else None

    def forward(
        self, x: Tensor, *, aside: Tensor | None = None, link: Tensor | None = None,
        condition: Tensor | None = None, cursor: Cursor | None = None,
    ) -> Tensor:  # fmt: skip
        """``(N, width, H, W)`` to the same shape; a ``link`` ``(N, hidden, H, W)`` is a row in a stream."""
        h = _apply(self.first, concat_elu(x), cursor)
        if self.aside is not None:
            assert aside is not None
            h = h + self.aside(concat_elu(aside))
        if link is not None:
            h = h + (link if h.dim() == link.dim() else take(link, cursor))
        h = _apply(self.second, self.dropout(concat_elu(h)), cursor)
        if self.condition is not None:
            h = h + self.condition(condition, cursor)
        a, b = h.chunk(2, 1)
        return x + a * b.sigmoid()

    def receptive_field(self, grid: Grid, before: Tensor, *joined: Tensor) -> Tensor:
        """The receptive field after the block from those of its input, and of asides and links."""
        first, second = (_receptive_field(layer, grid) for layer in (self.first, self.second))
        hidden = through(first, before)
        for other in joined:
            hidden = hidden | other
        return before | through(second, hidden)


def _receptive_field(layer: nn.Module, grid: Grid) -> Tensor:
    return (
        layer.receptive_field(grid)
        if isinstance(layer, RasterConv2d | VerticalConv2d)
        else window(grid, {(0, 0)})
    )


def _apply(layer: nn.Module, x: Tensor, cursor: Cursor | None) -> Tensor:
    result: Tensor = layer(x, cursor) if isinstance(layer, Streaming) else layer(x)
    return result


def normalize_weights(parts: Iterable[nn.Module]) -> None:
    """Weight normalization (Salimans & Kingma, 2016, arXiv 1602.07868) of every convolution in some modules.

    The projections of conditions (``Injection``) are left as they are.

    >>> layer = RasterConv2d(1, 2, left=1)
    >>> normalize_weights([layer])
    >>> sorted(name for name, _ in layer.named_parameters())
    ['bias', 'parametrizations.weight.original0', 'parametrizations.weight.original1']
    """
    layers = [layer for part in parts for layer in part.modules()]
    # Of a condition, a batch may hold one value alone, which has no variance to set.
    plain = {layer.project for layer in layers if isinstance(layer, Injection)}
    for layer in layers:
        if layer in plain:
            continue
        if isinstance(layer, RasterConv2d | VerticalConv2d | Pointwise):
            weight_norm(layer, "weight", dim=0)
        elif isinstance(layer, Upsample2d):
            weight_norm(layer, "weight", dim=1)
