"""PixelCNN (van den Oord et al., Pixel Recurrent Neural Networks, 2016), https://arxiv.org/abs/1601.06759."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ancestral.errors import UserError, check_at_least
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.heads import masked_head
from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.nn.receptive_field import through
from ancestral.nn.streaming import Chain, Cursor, Injection
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


class ConvolutionalBlock(nn.Module):
    """Residual block of masked convolutions (figure 5, left): ReLU and 1x1 to h channels, ReLU and kxk, ReLU and 1x1 back to 2h."""

    def __init__(
        self, group: Tensor, hidden_group: Tensor, kernel: int, condition_width: int, dropout: float
    ) -> None:
        super().__init__()
        reach = kernel // 2
        self.narrow = Chain(nn.ReLU(), RasterConv2d(group, hidden_group), nn.ReLU(), nn.Dropout(dropout))
        self.masked = RasterConv2d(hidden_group, hidden_group, up=reach, left=reach, right=reach)
        self.condition = Injection(condition_width, len(hidden_group)) if condition_width else None
        self.widen = Chain(nn.ReLU(), RasterConv2d(hidden_group, group))

    def forward(self, h: Tensor, condition: Tensor | None, cursor: Cursor | None) -> Tensor:
        """``(N, 2h, H, W)`` to the same shape."""
        inner = self.masked(self.narrow(h, cursor), cursor)
        if self.condition is not None:
            inner = inner + self.condition(condition, cursor)
        return h + self.widen(inner, cursor)


class PixelCNN(Autoregressive):
    """One stack of masked convolutions: fast, with a blind spot up to the right. See ``Autoregressive`` for shapes and figures."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Autoregressive.Config):
        """Options of the PixelCNN."""

        hidden: int = 32
        """h: the blocks work on h channels and add to 2h."""
        layers: int = 15
        """Residual blocks."""
        first_kernel: int = 7
        """Size of the first kernel (mask A), odd."""
        kernel: int = 3
        """Size of the blocks' kernel (mask B), odd."""
        head: int = 128
        """Channels of the 1x1 convolutions before the output."""
        head_layers: int = 2
        """1x1 convolutions before the output."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_at_least(1, hidden=self.hidden, layers=self.layers, head=self.head)
            check_at_least(0, head_layers=self.head_layers)
            for name in ("first_kernel", "kernel"):
                if getattr(self, name) % 2 == 0 or getattr(self, name) < 3:
                    raise UserError(
                        f"expected an odd {name} of at least 3, got {getattr(self, name)}", "try 3 or 7"
                    )

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
            source="van den Oord et al. 2016, table 1: 15 layers, h=128, 1024 channels on top, RMSProp, batch 16",
            model=Config(hidden=128, layers=15, head=1024),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-4, schedule="constant"
                )
            },
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec, embedding_width=max(1, 2 * config.hidden // spec.shape[0]))
        group, hidden_group = (
            channel_groups(2 * config.hidden, self.groups),
            channel_groups(config.hidden, self.groups),
        )
        reach = config.first_kernel // 2
        self.first = RasterConv2d(self.input_groups, group, up=reach, left=reach, right=reach, mask="A")
        self.layers = nn.ModuleList(
            ConvolutionalBlock(group, hidden_group, config.kernel, self.condition_width, config.dropout)
            for _ in range(config.layers)
        )
        self.head = masked_head(group, config.head, self, config.head_layers)

    def receptive_field(self, *, own: bool) -> Tensor:
        """See ``Autoregressive.receptive_field``: the rows above only as far to the right as left, so that the upper right stays unseen."""
        reach = self.first.receptive_field(self.grid, own=own)
        for block in self.layers:
            assert isinstance(block, ConvolutionalBlock)
            reach = reach | through(block.masked.receptive_field(self.grid), reach)
        return reach

    def positions(
        self, x: Tensor, rows: None, condition: Tensor | None, cursor: Cursor | None = None
    ) -> Tensor:
        """See ``Autoregressive.positions``."""
        h = self.first(x, cursor)
        for layer in self.layers:
            h = layer(h, condition, cursor)
        return self.head(h, cursor)
