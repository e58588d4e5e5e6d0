"""What PixelCNN and PixelRNN share: a masked convolution, residual blocks, 1x1 convolutions on top."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ancestral.configuration import Blocks, Depth, Width
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.heads import masked_head
from ancestral.nn.causal import RasterConv2d, channel_groups, check_odd
from ancestral.nn.receptive_field import Grid
from ancestral.nn.streaming import Cursor
from ancestral.spec import Spec


class MaskedBlock(nn.Module):
    """A residual block of a ``MaskedStack``."""

    @abstractmethod
    def forward(self, h: Tensor, condition: Tensor | None, cursor: Cursor | None) -> Tensor:
        """``(N, 2h, H, W)`` to the same shape."""

    @abstractmethod
    def receptive_field(self, grid: Grid, before: Tensor) -> Tensor:
        """The receptive field after the block, from that of its input."""


class MaskedStack(Autoregressive):
    """Residual blocks behind a masked convolution (van den Oord et al., 2016, arXiv 1601.06759, table 1)."""

    repeated = (*Autoregressive.repeated, MaskedBlock)

    @dataclass(frozen=True, kw_only=True)
    class Config(Autoregressive.Config):
        """Options that these models share."""

        hidden: Width = 32
        """h: the blocks work on h channels and add to 2h."""
        layers: Depth = 15
        """Residual blocks."""
        first_kernel: int = 7
        """Size of the first kernel (mask A), odd."""
        head: Width = 128
        """Channels of the 1x1 convolutions before the output."""
        head_layers: Blocks = 2
        """1x1 convolutions before the output."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_odd(first_kernel=self.first_kernel)

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec, embedding_width=max(1, 2 * config.hidden // spec.shape[0]))
        group = channel_groups(2 * config.hidden, self.groups)
        hidden_group = channel_groups(config.hidden, self.groups)
        half = config.first_kernel // 2
        self.first = RasterConv2d(self.input_groups, group, up=half, left=half, right=half, mask="A")
        self.layers = nn.ModuleList(self.block(group, hidden_group) for _ in range(config.layers))
        self.head = masked_head(
            group, config.head, groups=self.groups, likelihood=self.likelihood_of, layers=config.head_layers
        )

    @abstractmethod
    def block(self, group: Tensor, hidden_group: Tensor) -> MaskedBlock:
        """A block with new weights.

        Args:
            group: the channel of the data that each of its 2h channels belongs to.
            hidden_group: the same of its h hidden channels.
        """

    def receptive_field(self, *, own: bool) -> Tensor:
        """See ``Autoregressive.receptive_field``."""
        field = self.first.receptive_field(self.grid, own=own)
        for block in self.layers:
            assert isinstance(block, MaskedBlock)
            field = block.receptive_field(self.grid, field)
        return field

    def positions(
        self, x: Tensor, rows: None, condition: Tensor | None, cursor: Cursor | None = None
    ) -> Tensor:
        """See ``Autoregressive.positions``."""
        h = self.first(x, cursor)
        for block in self.layers:
            h = block(h, condition, cursor)
        return self.head(h, cursor)
