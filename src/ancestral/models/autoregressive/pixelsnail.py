"""PixelSNAIL (Chen et al., 2017), https://arxiv.org/abs/1712.09763."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from ancestral.configuration import Blocks, Depth, Natural, Range, Width
from ancestral.models.autoregressive.weight_normalized import WeightNormalized
from ancestral.nn.attention import CausalAttention
from ancestral.nn.causal import RasterConv2d, VerticalConv2d
from ancestral.nn.gated_residual import GatedResidual, normalize_weights
from ancestral.nn.receptive_field import shifted_down, shifted_right, through
from ancestral.nn.streaming import Cursor, InputShift, Pointwise, Shift, take
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


class AttentionBlock(nn.Module):
    """Residual blocks of causal convolutions, then attention to the content of the past (figure 3).

    Queries come from the features and the background, keys and values from the input as well. In the paper's
    order of things a position's content joins in after the position; here that is a shift by one position.
    """

    def __init__(self, config: "PixelSNAIL.Config", inputs: int, condition_width: int, attends: bool) -> None:
        super().__init__()
        k, width = config.kernel, config.width
        left, right = (k - 1, 0) if k % 2 == 0 else (k // 2, k // 2)
        convolution = partial(RasterConv2d, up=k - 1, left=left, right=right)
        self.residual = nn.ModuleList(
            GatedResidual(
                width,
                convolution,
                hidden=config.residual_width,
                condition_width=condition_width,
                dropout=config.dropout,
            )
            for _ in range(config.residual_blocks)
        )
        self.attention: CausalAttention | None = None
        if attends:
            key, value = config.heads * config.key, config.heads * config.value
            self.attention = CausalAttention(config.heads, strict=True)
            self.shift = Shift()
            self.content = GatedResidual(inputs + width + 2, Pointwise, dropout=config.dropout)
            self.query = GatedResidual(width + 2, Pointwise, dropout=config.dropout)
            self.to_keys, self.to_values = (
                Pointwise(inputs + width + 2, key),
                Pointwise(inputs + width + 2, value),
            )
            self.to_queries = Pointwise(width + 2, key)
            self.join = GatedResidual(width, Pointwise, aside=value, dropout=config.dropout)

    def forward(
        self, h: Tensor, before: Tensor, background: Tensor, condition: Tensor | None, cursor: Cursor | None
    ) -> Tensor:  # fmt: skip
        """``(N, width, H, W)`` to the same shape; ``before`` is the input at the position before each."""
        for block in self.residual:
            h = block(h, condition=condition, cursor=cursor)
        if self.attention is None:
            return h
        here = torch.cat([h, background], 1)
        content = self.content(torch.cat([before, self.shift(here, cursor)], 1))
        queries = self.to_queries(self.query(here))
        found = self.attention(queries, self.to_keys(content), self.to_values(content), cursor)
        return self.join(h, aside=found)


class PixelSNAIL(WeightNormalized):
    """Causal convolutions interleaved with attention over the whole past.

    See ``Autoregressive`` for shapes and figures.
    """

    background: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(WeightNormalized.Config):
        """Options of the PixelSNAIL."""

        kind: ClassVar = "pixelsnail"
        width: Width = 256
        """Filters of every layer."""
        blocks: Depth = 12
        """Attention blocks."""
        residual_blocks: Depth = 4
        """Residual blocks in each attention block."""
        residual_width: Width = 256
        """Hidden filters of a residual block."""
        kernel: Annotated[int, Range(least=2, most=2**20)] = 2
        """Size of the causal kernel: an even one sees the upper left, an odd one the rows above to both
        sides."""
        attention_every: Natural = 1
        """Blocks from one that attends to the next; 0 for convolutions alone."""
        heads: Width = 1
        """Heads of each attention."""
        key: Width = 16
        """Size of a head's keys."""
        value: Width = 128
        """Size of a head's values."""
        output_blocks: Blocks = 0
        """Residual blocks of 1x1 convolutions before the output: the output stack of VQ-VAE-2's priors."""

        @classmethod
        def tiny(cls) -> "PixelSNAIL.Config":
            """Small enough for a test."""
            return cls(
                width=6, blocks=2, residual_blocks=1, residual_width=6, heads=2, key=2, value=3,
                output_blocks=1, likelihood="categorical", components=2, condition_width=4,
            )  # fmt: skip

    recipes: ClassVar = {
        "small": Recipe(
            source="half an hour on two CPU cores on Fashion-MNIST (docs/figures.md); not tuned",
            model=Config(
                width=48, blocks=3, residual_blocks=2, residual_width=48, value=48, components=5,
                class_conditional=False,
            ),
            stages={"training": Optimization(steps=3500, batch_size=16, learning_rate=2e-3, compile=True)},
        ),
        "cifar10": Recipe(
            source="Chen et al. 2017, section 4, and its code: 12 blocks of 4, 256 filters, keys 16, "
            "values 128, 10 mixtures, dropout 0.5",
            model=Config(dropout=0.5, class_conditional=False),
            stages={
                "training": Optimization(
                    steps=1_500_000,
                    batch_size=64,
                    learning_rate=1e-3,
                    betas=(0.95, 0.9995),
                    eps=1e-6,
                    schedule="exponential",
                    decay=0.999998,
                    warmup=0,
                    gradient_clip=None,
                    ema=0.9995,
                )
            },
        ),
        "vqvae2-top": Recipe(
            source="Razavi et al. 2019, ImageNet priors, top: 512 filters, 2048 in residual blocks, "
            "20 layers, 4 attentions of 8 heads, kernel 5, dropout 0.1, 20 layers of output stack; "
            "steps and rate are ours",
            model=Config(
                width=512, blocks=4, residual_blocks=5, residual_width=2048, kernel=5, heads=8, key=64,
                value=64, dropout=0.1, output_blocks=20, likelihood="categorical",
            ),
            stages={"training": Optimization(steps=1_500_000, batch_size=1024, learning_rate=3e-4)},
        ),
        "vqvae2-bottom": Recipe(
            source="Razavi et al. 2019, ImageNet priors, bottom: 512 filters, 1024 in residual blocks, 20 "
            "layers without attention, kernel 5, dropout 0.1, 20 residual blocks over the top codes; "
            "steps and rate are ours",
            model=Config(
                width=512, blocks=4, residual_blocks=5, residual_width=1024, kernel=5, attention_every=0,
                dropout=0.1, context_blocks=20, condition_width=512, likelihood="categorical",
            ),
            stages={"training": Optimization(steps=1_500_000, batch_size=512, learning_rate=3e-4)},
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec, embedding_width=max(1, config.width // spec.shape[0]))
        width = config.width
        inputs, half = len(self.input_groups), max(1, config.kernel // 2)
        self.shift, self.shift_on = InputShift(wrap=False), InputShift(wrap=True)
        self.first_above = VerticalConv2d(inputs, width, half - 1, half)
        self.first_left = RasterConv2d(inputs, width, up=half, left=half - 1)
        every = config.attention_every
        self.blocks = nn.ModuleList(
            AttentionBlock(config, inputs, self.condition_width, attends=every > 0 and (i + 1) % every == 0)
            for i in range(config.blocks)
        )
        self.output_stack = nn.ModuleList(
            GatedResidual(width, Pointwise, hidden=config.residual_width, dropout=config.dropout)
            for _ in range(config.output_blocks)
        )
        self.head = self.channel_head(width)
        if config.weight_norm:
            normalize_weights((self.first_above, self.first_left, self.blocks, self.output_stack))
        height, columns = self.grid
        place = torch.stack(
            torch.meshgrid(
                torch.arange(height) / height - 0.5, torch.arange(columns) / columns - 0.5, indexing="ij"
            )
        )
        self.register_buffer("background", place[None], persistent=False)

    def receptive_field(self, *, own: bool) -> Tensor | None:
        """See ``Autoregressive.receptive_field``: the whole past wherever a block attends."""
        blocks = [block for block in self.blocks if isinstance(block, AttentionBlock)]
        if any(block.attention for block in blocks):
            return None
        left = through(self.first_left.receptive_field(self.grid), shifted_right(self.grid))
        field = left | through(self.first_above.receptive_field(self.grid), shifted_down(self.grid))
        for block in blocks:
            for residual in block.residual:
                assert isinstance(residual, GatedResidual)
                field = residual.receptive_field(self.grid, field)
        return field

    def rows(self, above: Tensor, condition: Tensor | None, cursor: Cursor | None = None) -> Tensor:
        """What the rows above add to the first features."""
        features: Tensor = self.first_above(above, cursor)
        return features

    def trunk(
        self, x: Tensor, rows: Tensor, condition: Tensor | None, cursor: Cursor | None = None
    ) -> Tensor:
        """See ``Shifted.trunk``."""
        h = take(rows, cursor) + self.first_left(self.shift(x, cursor), cursor)
        before = self.shift_on(x, cursor)
        background = take(self.background.to(h.dtype), cursor).expand(h.shape[0], *[-1] * (h.dim() - 1))
        for block in self.blocks:
            h = block(h, before, background, condition, cursor)
        for block in self.output_stack:
            h = block(h)
        return h
