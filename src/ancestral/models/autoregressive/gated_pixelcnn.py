"""Gated PixelCNN (van den Oord et al., 2016), https://arxiv.org/abs/1606.05328."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from ancestral.configuration import Depth, Range, Width
from ancestral.errors import UserError
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.heads import masked_head
from ancestral.nn.causal import RasterConv2d, VerticalConv2d, channel_groups, check_odd
from ancestral.nn.gated_unit import gated_unit
from ancestral.nn.receptive_field import shifted_down, through
from ancestral.nn.streaming import Cursor, Injection, Pointwise, take
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


class VerticalLayer(nn.Module):
    r"""A layer of the vertical stack (figure 2, left).

    :math:`y = \tanh(W_f * x + V_f h) \odot \sigma(W_g * x + V_g h)` (equations 4 and 5). It sees the rows
    above, in a rectangle that widens with each layer, so that both stacks together have no blind spot.
    """

    def __init__(self, width: int, kernel: int, dilation: int, condition_width: int) -> None:
        super().__init__()
        self.convolution = VerticalConv2d(width, 2 * width, kernel // 2, kernel // 2, dilation=dilation)
        self.link = Pointwise(2 * width, 2 * width)
        self.condition = Injection(condition_width, 4 * width) if condition_width else None

    def forward(self, v: Tensor, condition: Tensor | None, cursor: Cursor | None) -> tuple[Tensor, Tensor]:
        """The next features ``(N, width, H, W)``, and the link across, ``(N, 2 width, H, W)``."""
        v = self.convolution(v, cursor)
        link = self.link(v)
        if self.condition is not None:
            v_condition, h_condition = self.condition(condition, cursor).chunk(2, dim=1)
            v, link = v + v_condition, link + h_condition
        return gated_unit(v), link


class HorizontalLayer(nn.Module):
    """A layer of the horizontal stack (figure 2, right).

    It sees the row so far and, through the link, the vertical stack.
    """

    def __init__(self, group: Tensor, kernel: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.convolution = RasterConv2d(group, torch.cat([group, group]), left=kernel // 2, dilation=dilation)
        self.residual = RasterConv2d(group, group)

    def forward(self, h: Tensor, link: Tensor, cursor: Cursor | None) -> Tensor:
        """Features ``(N, width, H, W)`` to the next ones."""
        gates = self.convolution(self.dropout(h), cursor) + take(link, cursor)
        return h + self.residual(gated_unit(gates), cursor)


class GatedPixelCNN(Autoregressive):
    """Two stacks of gated convolutions without a blind spot.

    See ``Autoregressive`` for shapes and figures.
    """

    repeated = (*Autoregressive.repeated, VerticalLayer, HorizontalLayer)

    @dataclass(frozen=True, kw_only=True)
    class Config(Autoregressive.Config):
        """Options of the Gated PixelCNN."""

        kind: ClassVar = "gated-pixelcnn"
        width: Width = 64
        """Channels of each stack."""
        layers: Depth = 8
        """Gated layers."""
        kernel: int = 3
        """Size of the (masked) kernel, odd."""
        dilations: tuple[Annotated[int, Range(least=1, most=1024)], ...] = (1,)
        """Dilation of each layer, repeated in turn."""
        head: Width = 128
        """Channels of the 1x1 convolution before the output."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_odd(kernel=self.kernel)
            if not self.dilations:
                raise UserError("expected at least one dilation, got none", "leave it at 1")

        @classmethod
        def tiny(cls) -> "GatedPixelCNN.Config":
            """Small enough for a test."""
            return cls(width=8, layers=2, head=8, condition_width=4)

    recipes: ClassVar = {
        "small": Recipe(
            source="a quarter of an hour on two CPU cores on Fashion-MNIST (docs/figures.md)",
            model=Config(
                width=48,
                layers=8,
                dilations=(1, 2, 1, 4),
                likelihood="logistic-mixture",
                class_conditional=False,
            ),
            stages={"training": Optimization(steps=4000, batch_size=16, learning_rate=2e-3, compile=True)},
        ),
        "imagenet32": Recipe(
            source="van den Oord et al. 2016, section 3.2: 20 layers, 384 units, 5x5 kernels, batch 128",
            model=Config(width=384, layers=20, kernel=5, head=1024),
            stages={
                "training": Optimization(
                    steps=200_000,
                    batch_size=128,
                    optimizer="rmsprop",
                    learning_rate=1e-4,
                    schedule="constant",
                )
            },
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec, embedding_width=max(1, config.width // spec.shape[0]))
        group = channel_groups(config.width, self.groups)
        half = config.kernel // 2
        self.first_vertical = VerticalConv2d(len(self.input_groups), config.width, half, half)
        self.first_horizontal = RasterConv2d(self.input_groups, group, left=half, mask="A")
        dilations = [config.dilations[i % len(config.dilations)] for i in range(config.layers)]
        self.vertical = nn.ModuleList(
            VerticalLayer(config.width, config.kernel, d, self.condition_width) for d in dilations
        )
        self.horizontal = nn.ModuleList(
            HorizontalLayer(group, config.kernel, d, config.dropout) for d in dilations
        )
        self.head = masked_head(group, config.head, groups=self.groups, likelihood=self.likelihood_of)

    def receptive_field(self, *, own: bool) -> Tensor:
        """See ``Autoregressive.receptive_field``: rows above in a widening rectangle, and the row itself."""
        v = through(self.first_vertical.receptive_field(self.grid), shifted_down(self.grid))
        h = self.first_horizontal.receptive_field(self.grid, own=own)
        for down, across in zip(self.vertical, self.horizontal, strict=True):
            assert isinstance(down, VerticalLayer)
            assert isinstance(across, HorizontalLayer)
            v = through(down.convolution.receptive_field(self.grid), v)
            h = h | through(across.convolution.receptive_field(self.grid), h) | v
        return h

    def rows(self, above: Tensor, condition: Tensor | None, cursor: Cursor | None = None) -> list[Tensor]:
        """The vertical stack, and what each of its layers tells the horizontal one."""
        v = self.first_vertical(above, cursor)
        links = []
        for layer in self.vertical:
            v, link = layer(v, condition, cursor)
            links.append(link)
        return links

    def positions(
        self, x: Tensor, rows: list[Tensor], condition: Tensor | None, cursor: Cursor | None = None
    ) -> Tensor:
        """The horizontal stack and the output."""
        h = self.first_horizontal(x, cursor)
        for layer, link in zip(self.horizontal, rows, strict=True):
            h = layer(h, link, cursor)
        return self.head(h, cursor)
