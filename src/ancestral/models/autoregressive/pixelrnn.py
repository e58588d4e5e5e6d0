"""PixelRNN (van den Oord et al., Pixel Recurrent Neural Networks, 2016), https://arxiv.org/abs/1601.06759."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from ancestral.errors import UserError, check_at_least
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.heads import masked_head
from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.nn.receptive_field import through
from ancestral.nn.recurrent import DiagonalBiLSTM, RowLSTM
from ancestral.nn.streaming import Cursor, Injection
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


class RecurrentBlock(nn.Module):
    """Residual block around a two-dimensional LSTM (figure 5, right): 2h channels to h hidden ones and, by a 1x1 convolution, back."""

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
        """``(N, 2h, H, W)`` to the same shape."""
        inner = h if self.condition is None else h + self.condition(condition, cursor)
        return h + self.widen(self.dropout(self.lstm(inner, cursor)), cursor)


class PixelRNN(Autoregressive):
    """A stack of two-dimensional LSTMs; the diagonal one sees nearly the whole past. See ``Autoregressive`` for shapes and figures."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Autoregressive.Config):
        """Options of the PixelRNN."""

        layer: Literal["row-lstm", "diagonal-bilstm"] = "diagonal-bilstm"
        """Down the rows (faster, sees a triangle), or along the diagonals from both sides."""
        hidden: int = 16
        """h: hidden units of each LSTM at a position; residual connections have 2h channels."""
        layers: int = 7
        """LSTM layers."""
        first_kernel: int = 7
        """Size of the first kernel (mask A), odd."""
        head: int = 32
        """Channels of the 1x1 convolutions before the output."""
        head_layers: int = 2
        """1x1 convolutions before the output."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_at_least(1, hidden=self.hidden, layers=self.layers, head=self.head)
            check_at_least(0, head_layers=self.head_layers)
            if self.first_kernel % 2 == 0 or self.first_kernel < 3:
                raise UserError(
                    f"expected an odd first_kernel of at least 3, got {self.first_kernel}", "try 3 or 7"
                )

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
            source="van den Oord et al. 2016, sections 5.3 and 5.4: Diagonal BiLSTM, 7 layers, h=16, 32 channels on top, RMSProp, "
            "batch 16; binarize with --images.levels 2",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-3, schedule="constant"
                )
            },
        ),
        "cifar10-row-lstm": Recipe(
            source="van den Oord et al. 2016, table 1: Row LSTM, 12 layers, h=128, 1024 channels on top, RMSProp, batch 16",
            model=Config(layer="row-lstm", hidden=128, layers=12, head=1024),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=16, optimizer="rmsprop", learning_rate=1e-4, schedule="constant"
                )
            },
        ),
        "cifar10": Recipe(
            source="van den Oord et al. 2016, table 1: Diagonal BiLSTM, 12 layers, h=128, 1024 channels on top, RMSProp, batch 16",
            model=Config(hidden=128, layers=12, head=1024),
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
        kind = RowLSTM if config.layer == "row-lstm" else DiagonalBiLSTM
        self.layers = nn.ModuleList(
            RecurrentBlock(kind, group, hidden_group, self.condition_width, dropout=config.dropout)
            for _ in range(config.layers)
        )
        self.head = masked_head(group, config.head, self, config.head_layers)

    def receptive_field(self, *, own: bool) -> Tensor:
        """See ``Autoregressive.receptive_field``: the Row LSTM sees a triangle above, the Diagonal BiLSTM nearly all (see ``DiagonalBiLSTM``)."""
        reach = self.first.receptive_field(self.grid, own=own)
        for block in self.layers:
            assert isinstance(block, RecurrentBlock)
            reach = reach | through(block.lstm.receptive_field(self.grid), reach)
        return reach

    def positions(
        self, x: Tensor, rows: None, condition: Tensor | None, cursor: Cursor | None = None
    ) -> Tensor:
        """See ``Autoregressive.positions``."""
        h = self.first(x, cursor)
        for layer in self.layers:
            h = layer(h, condition, cursor)
        return self.head(h, cursor)
