"""PixelRNN (van den Oord et al., Pixel Recurrent Neural Networks, 2016), https://arxiv.org/abs/1601.06759."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from ancestral.configuration import Depth, Width
from ancestral.models.autoregressive.masked_stack import MaskedBlock, MaskedStack
from ancestral.nn.causal import RasterConv2d
from ancestral.nn.receptive_field import Grid, through
from ancestral.nn.recurrent import DiagonalBiLSTM, RowLSTM
from ancestral.nn.streaming import Cursor, Injection
from ancestral.recipe import Optimization, Recipe


class RecurrentBlock(MaskedBlock):
    """Residual block around a two-dimensional LSTM (figure 5, right).

    2h channels to h hidden ones and, by a 1x1 convolution, back.
    """

    def __init__(
        self,
        kind: type[RowLSTM] | type[DiagonalBiLSTM],
        group: Tensor,
        hidden_group: Tensor,
        condition_width: int,
        *,
        dropout: float,
    ) -> None:
        super().__init__()
        self.condition = Injection(condition_width, len(group)) if condition_width else None
        self.lstm = kind(group, hidden_group)
        self.dropout = nn.Dropout(dropout)
        self.widen = RasterConv2d(hidden_group, group)

    def forward(self, h: Tensor, condition: Tensor | None, cursor: Cursor | None) -> Tensor:
        """See ``MaskedBlock``."""
        inner = h if self.condition is None else h + self.condition(condition, cursor)
        return h + self.widen(self.dropout(self.lstm(inner, cursor)), cursor)

    def receptive_field(self, grid: Grid, before: Tensor) -> Tensor:
        """See ``MaskedBlock``: the Row LSTM sees a triangle above, the Diagonal BiLSTM nearly all."""
        return before | through(self.lstm.receptive_field(grid), before)


class PixelRNN(MaskedStack):
    """A stack of two-dimensional LSTMs; the diagonal one sees nearly the whole past.

    See ``Autoregressive`` for shapes and figures.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(MaskedStack.Config):
        """Options of the PixelRNN."""

        kind: ClassVar = "pixelrnn"
        layer: Literal["row-lstm", "diagonal-bilstm"] = "diagonal-bilstm"
        """Down the rows (faster, sees a triangle), or along the diagonals from both sides."""
        hidden: Width = 16
        """h: hidden units of each LSTM at a position; residual connections have 2h channels."""
        layers: Depth = 7
        """LSTM layers."""
        head: Width = 32
        """Channels of the 1x1 convolutions before the output."""

        @classmethod
        def tiny(cls) -> "PixelRNN.Config":
            """Small enough for a test."""
            return cls(hidden=4, layers=2, first_kernel=3, head=8, head_layers=1, condition_width=4)

    recipes: ClassVar = {
        "small": Recipe(
            source="a quarter of an hour on two CPU cores on Fashion-MNIST (docs/figures.md)",
            model=Config(
                layer="row-lstm",
                hidden=32,
                layers=4,
                head=64,
                head_layers=1,
                likelihood="logistic-mixture",
                class_conditional=False,
            ),
            stages={"training": Optimization(steps=4000, batch_size=16, learning_rate=2e-3)},
        ),
        "mnist": Recipe(
            source="van den Oord et al. 2016, sections 5.3 and 5.4: Diagonal BiLSTM, 7 layers, h=16, 32 "
            "channels on top, RMSProp, batch 16; binarize with --images.levels 2",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-3, schedule="constant"
                )
            },
        ),
        "cifar10-row-lstm": Recipe(
            source="van den Oord et al. 2016, table 1: Row LSTM, 12 layers, h=128, 1024 channels on top, "
            "RMSProp, batch 16",
            model=Config(layer="row-lstm", hidden=128, layers=12, head=1024),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-4, schedule="constant"
                )
            },
        ),
        "cifar10": Recipe(
            source="van den Oord et al. 2016, table 1: Diagonal BiLSTM, 12 layers, h=128, 1024 channels on "
            "top, RMSProp, batch 16",
            model=Config(hidden=128, layers=12, head=1024),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-4, schedule="constant"
                )
            },
        ),
    }

    def block(self, group: Tensor, hidden_group: Tensor) -> RecurrentBlock:
        """See ``MaskedStack.block``."""
        kind = RowLSTM if self.config.layer == "row-lstm" else DiagonalBiLSTM
        return RecurrentBlock(kind, group, hidden_group, self.condition_width, dropout=self.config.dropout)
