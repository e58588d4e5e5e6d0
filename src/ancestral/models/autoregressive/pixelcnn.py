"""PixelCNN (van den Oord et al., Pixel Recurrent Neural Networks, 2016), https://arxiv.org/abs/1601.06759."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ancestral.models.autoregressive.masked_stack import MaskedBlock, MaskedStack
from ancestral.nn.causal import RasterConv2d, check_odd
from ancestral.nn.receptive_field import Grid, through
from ancestral.nn.streaming import Chain, Cursor, Injection
from ancestral.recipe import Optimization, Recipe


class ConvolutionalBlock(MaskedBlock):
    """Residual block of masked convolutions (figure 5, left).

    ReLU and 1x1 to h channels, ReLU and kxk, ReLU and 1x1 back to 2h.
    """

    def __init__(
        self, group: Tensor, hidden_group: Tensor, kernel: int, condition_width: int, dropout: float
    ) -> None:
        super().__init__()
        half = kernel // 2
        self.narrow = Chain(nn.ReLU(), RasterConv2d(group, hidden_group), nn.ReLU(), nn.Dropout(dropout))
        self.masked = RasterConv2d(hidden_group, hidden_group, up=half, left=half, right=half)
        self.condition = Injection(condition_width, len(hidden_group)) if condition_width else None
        self.widen = Chain(nn.ReLU(), RasterConv2d(hidden_group, group))

    def forward(self, h: Tensor, condition: Tensor | None, cursor: Cursor | None) -> Tensor:
        """See ``MaskedBlock``."""
        inner = self.masked(self.narrow(h, cursor), cursor)
        if self.condition is not None:
            inner = inner + self.condition(condition, cursor)
        return h + self.widen(inner, cursor)

    def receptive_field(self, grid: Grid, before: Tensor) -> Tensor:
        """See ``MaskedBlock``: the rows above as far right as left, so that the upper right stays unseen."""
        return before | through(self.masked.receptive_field(grid), before)


class PixelCNN(MaskedStack):
    """One stack of masked convolutions: fast, with a blind spot up to the right.

    See ``Autoregressive`` for shapes and figures.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MaskedStack.Config):
        """Options of the PixelCNN."""

        kind: ClassVar = "pixelcnn"
        kernel: int = 3
        """Size of the blocks' kernel (mask B), odd."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_odd(kernel=self.kernel)

        @classmethod
        def tiny(cls) -> "PixelCNN.Config":
            """Small enough for a test."""
            return cls(hidden=4, layers=2, first_kernel=3, head=8, head_layers=1, condition_width=4)

    recipes: ClassVar = {
        "small": Recipe(
            source="a quarter of an hour on two CPU cores on Fashion-MNIST (docs/figures.md)",
            model=Config(
                hidden=32,
                layers=10,
                head=64,
                head_layers=1,
                likelihood="logistic-mixture",
                class_conditional=False,
            ),
            stages={"training": Optimization(steps=6500, batch_size=16, learning_rate=2e-3, compile=True)},
        ),
        "cifar10": Recipe(
            source="van den Oord et al. 2016, table 1: 15 layers, h=128, 1024 channels on top, RMSProp, "
            "batch 16",
            model=Config(hidden=128, layers=15, head=1024),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-4, schedule="constant"
                )
            },
        ),
    }

    def block(self, group: Tensor, hidden_group: Tensor) -> ConvolutionalBlock:
        """See ``MaskedStack.block``."""
        c = self.config
        return ConvolutionalBlock(group, hidden_group, c.kernel, self.condition_width, c.dropout)
