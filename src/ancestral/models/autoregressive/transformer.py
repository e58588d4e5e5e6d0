"""A decoder-only transformer over code maps and images (Vaswani et al., 2017), arXiv 1706.03762.

Rotary positions: Su et al., 2021, https://arxiv.org/abs/2104.09864.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ancestral.capabilities import Lengthens
from ancestral.configuration import Depth, Width
from ancestral.errors import UserError
from ancestral.models.autoregressive.base import Autoregressive, Shifted
from ancestral.nn.attention import CausalAttention
from ancestral.nn.streaming import Cursor, Injection, InputShift, Pointwise, repeated, take
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of ``(N, C, H, W)`` or ``(N, C)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the features of each position."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class TransformerBlock(nn.Module):
    """Attention to the past, then a two-layer network, each on normalized features and added to them."""

    def __init__(self, config: "Transformer.Config", condition_width: int) -> None:
        super().__init__()
        width = config.width
        self.attention_norm, self.mlp_norm = ChannelNorm(width), ChannelNorm(width)
        self.to_attention = Pointwise(width, 3 * width)
        self.attention = CausalAttention(config.heads, strict=False)
        self.from_attention = Pointwise(width, width)
        self.condition = Injection(condition_width, width) if condition_width else None
        self.widen, self.narrow = Pointwise(width, 4 * width), Pointwise(4 * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, h: Tensor, rotation: Tensor | None, condition: Tensor | None, cursor: Cursor | None
    ) -> Tensor:
        """``(N, width, H, W)`` to the same shape."""
        if self.condition is not None:
            h = h + repeated(self.condition(condition, cursor), h)
        queries, keys, values = self.to_attention(self.attention_norm(h)).chunk(3, 1)
        if rotation is not None:
            queries, keys = (
                _rotate(queries, rotation, self.attention.heads),
                _rotate(keys, rotation, self.attention.heads),
            )
        h = h + self.dropout(self.from_attention(self.attention(queries, keys, values, cursor)))
        return h + self.dropout(self.narrow(gelu(self.widen(self.mlp_norm(h)))))


def _rotate(x: Tensor, rotation: Tensor, heads: int) -> Tensor:
    """Turn pairs of features ``(N, heads * 2 * pairs, ...)`` by the angles of the position.

    ``rotation`` holds cosines and sines, ``(1, 2 * pairs, ...)``.
    """
    cosine, sine = rotation.unsqueeze(1).chunk(2, 2)
    a, b = x.unflatten(1, (heads, -1)).chunk(2, 2)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], 2).flatten(1, 2)


class Transformer(Shifted, Lengthens):
    """A decoder-only transformer: each position attends to all before it in raster order.

    See ``Autoregressive`` for shapes and figures. Sequences are of any length if positions are rotary.
    """

    sequences = True
    repeated = (*Shifted.repeated, TransformerBlock)
    rotation: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Autoregressive.Config):
        """Options of the transformer."""

        kind: ClassVar = "transformer"
        width: Width = 128
        """Features of a position."""
        layers: Depth = 6
        """Blocks of attention and a two-layer network."""
        heads: Width = 4
        """Heads of each attention."""
        positions: Literal["learned", "rotary"] = "rotary"
        """A learned vector for each position, or queries and keys turned by angles of row and column."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.width % (4 * self.heads):
                raise UserError(
                    f"expected a width that 4 x {self.heads} heads divide, got {self.width}",
                    "choose a multiple",
                )

        @classmethod
        def tiny(cls) -> "Transformer.Config":
            """Small enough for a test."""
            return cls(width=8, layers=2, heads=2, condition_width=4)

    recipes: ClassVar = {
        "small": Recipe(
            source="half an hour on two CPU cores on Fashion-MNIST (docs/figures.md); not tuned",
            model=Config(width=64, layers=4, heads=2, likelihood="logistic-mixture", class_conditional=False),
            stages={"training": Optimization(steps=4000, batch_size=16, learning_rate=2e-3, compile=True)},
        ),
        "vqgan": Recipe(
            source="Esser et al. 2021 and its code, faces, 16x16 codes: 24 layers of 16 heads, 1024 "
            "features, learned positions, AdamW (0.9, 0.95), decay 0.01, a rate of 4.5e-6 for each example "
            "of a batch; steps and batch are ours",
            model=Config(width=1024, layers=24, heads=16, positions="learned"),
            stages={
                "training": Optimization(
                    steps=500_000,
                    batch_size=32,
                    optimizer="adamw",
                    learning_rate=1.44e-4,
                    betas=(0.9, 0.95),
                    weight_decay=0.01,
                    schedule="constant",
                    warmup=0,
                    gradient_clip=None,
                )
            },
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec, embedding_width=max(1, config.width // spec.shape[0]))
        self.shift = InputShift(wrap=True)
        self.first = Pointwise(len(self.input_groups), config.width)
        self.learned = (
            nn.Parameter(0.02 * torch.randn(1, config.width, *self.grid))
            if config.positions == "learned"
            else None
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(config, self.condition_width) for _ in range(config.layers)
        )
        self.norm = ChannelNorm(config.width)
        self.head = self.channel_head(config.width)
        self.register_buffer("rotation", _angles(config.width // config.heads, self.grid), persistent=False)

    def at_length(self, length: int) -> Self:
        """See ``Lengthens.at_length``. Raises UserError for learned positions, which have a length."""
        if self.learned is not None:
            problem = f"expected rotary positions for a length of {length}, got learned ones"
            raise UserError(problem, "train with positions rotary")
        other = super().at_length(length)
        other._buffers = {**self._buffers, "rotation": self._rotation(other.grid)}
        return other

    def _rotation(self, grid: tuple[int, int]) -> Tensor:
        """The angles of the positions of a map."""
        if tuple(self.rotation.shape[2:]) == grid:
            return self.rotation
        return _angles(self.config.width // self.config.heads, grid).to(self.rotation)

    def trunk(self, x: Tensor, rows: None, condition: Tensor | None, cursor: Cursor | None = None) -> Tensor:
        """See ``Shifted.trunk``."""
        h = self.first(self.shift(x, cursor))
        rotation = None
        if self.learned is None:
            grid = (x.shape[2], x.shape[3]) if cursor is None else cursor.grid
            rotation = take(self._rotation(grid).to(h.dtype), cursor)
        else:
            h = h + take(self.learned, cursor)
        for block in self.blocks:
            h = block(h, rotation, condition, cursor)
        return self.norm(h)


def _angles(size: int, grid: tuple[int, int]) -> Tensor:
    """Cosines and sines of a head's angles at each position, ``(1, size, H, W)``.

    Half of the pairs turn with the row, half with the column.
    """
    frequency = 100.0 ** -(torch.arange(size // 4) / max(1, size // 4))
    row, column = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angle = torch.cat([frequency.view(-1, 1, 1) * row, frequency.view(-1, 1, 1) * column])
    return torch.cat([angle.cos(), angle.sin()])[None]
