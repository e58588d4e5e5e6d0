"""PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ancestral.configuration import Depth, Width
from ancestral.models.autoregressive.weight_normalized import WeightNormalized
from ancestral.nn.causal import RasterConv2d, Upsample2d, VerticalConv2d
from ancestral.nn.gated_residual import GatedResidual, concat_elu, normalize_weights
from ancestral.nn.receptive_field import Grid, shifted_down, shifted_right, through
from ancestral.nn.streaming import Cursor, InputShift, Pointwise, take
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

Conditions = tuple[Tensor | None, ...]
"""What the model is conditioned on, a map for each resolution."""


@dataclass
class _Links:
    """What the vertical stack tells the other one at one resolution, up and down.

    And at the coarser ones, None between their rows.
    """

    up: list[Tensor]
    down: list[Tensor]
    coarser: "_Links | None" = None


class Level(nn.Module):
    """Both stacks at one resolution, around the coarser ones (figure 2).

    Blocks, half the resolution and back, blocks with skips. The vertical stack u sees the rows above; the
    other one, ul, the row so far as well, and the vertical one through links.
    """

    def __init__(self, width: int, blocks: int, levels: int, condition_width: int, dropout: float) -> None:
        super().__init__()
        options: dict[str, Any] = {"condition_width": condition_width, "dropout": dropout}

        def vertical(inputs: int, outputs: int) -> nn.Module:
            return VerticalConv2d(inputs, outputs, 1, 1)

        def raster(inputs: int, outputs: int) -> nn.Module:
            return RasterConv2d(inputs, outputs, up=1, left=1)

        down_blocks = blocks + (levels > 1)
        self.u_up = nn.ModuleList(GatedResidual(width, vertical, **options) for _ in range(blocks))
        self.ul_up = nn.ModuleList(GatedResidual(width, raster, **options) for _ in range(blocks))
        self.u_down = nn.ModuleList(
            GatedResidual(width, vertical, aside=width, **options) for _ in range(down_blocks)
        )
        self.ul_down = nn.ModuleList(
            GatedResidual(width, raster, aside=width, **options) for _ in range(down_blocks)
        )
        self.links_up = nn.ModuleList(Pointwise(2 * width, width) for _ in range(blocks))
        self.links_down = nn.ModuleList(Pointwise(2 * width, width) for _ in range(down_blocks))
        self.coarser: Level | None = None
        if levels > 1:
            self.u_coarsen, self.ul_coarsen = (
                VerticalConv2d(width, width, 1, 1, stride=2),
                RasterConv2d(width, width, up=1, left=1, stride=2),
            )
            self.coarser = Level(width, blocks, levels - 1, condition_width, dropout)
            self.u_refine, self.ul_refine = Upsample2d(width, width, side=1), Upsample2d(width, width, side=0)

    def rows(self, u: Tensor, conditions: Conditions, cursor: Cursor | None) -> tuple[Tensor, _Links]:
        """The vertical stack ``(N, width, H, W)``, and its links."""
        skips, links = [u], _Links([], [])
        for block, link in zip(self.u_up, self.links_up, strict=True):
            u = block(u, condition=conditions[0], cursor=cursor)
            skips.append(u)
            links.up.append(link(concat_elu(u)))
        if self.coarser is None:
            u = skips.pop()
        else:
            coarse = self.u_coarsen(u, cursor)
            if coarse.numel():
                coarse, links.coarser = self.coarser.rows(coarse, conditions[1:], cursor and cursor.coarser())
            u = self._crop(self.u_refine(coarse, cursor), u)
        for block, link in zip(self.u_down, self.links_down, strict=True):
            u = block(u, aside=skips.pop(), condition=conditions[0], cursor=cursor)
            links.down.append(link(concat_elu(u)))
        return u, links

    def positions(self, ul: Tensor, links: _Links, conditions: Conditions, cursor: Cursor | None) -> Tensor:
        """The other stack, ``(N, width, H, W)``."""
        skips = [ul]
        for block, link in zip(self.ul_up, links.up, strict=True):
            ul = block(ul, link=link, condition=conditions[0], cursor=cursor)
            skips.append(ul)
        if self.coarser is None:
            ul = skips.pop()
        else:
            coarse = self.ul_coarsen(ul, cursor)
            if coarse.numel():
                assert links.coarser is not None
                coarse = self.coarser.positions(
                    coarse, links.coarser, conditions[1:], cursor and cursor.coarser()
                )
            ul = self._crop(self.ul_refine(coarse, cursor), ul)
        for block, link in zip(self.ul_down, links.down, strict=True):
            ul = block(ul, aside=skips.pop(), link=link, condition=conditions[0], cursor=cursor)
        return ul

    def receptive_field(self, grid: Grid, u: Tensor, ul: Tensor) -> tuple[Tensor, Tensor]:
        """What both stacks see after this resolution, of what they saw before it."""
        u_skips, ul_skips = [u], [ul]
        for u_block, ul_block in zip(self.u_up, self.ul_up, strict=True):
            assert isinstance(u_block, GatedResidual)
            assert isinstance(ul_block, GatedResidual)
            u = u_block.receptive_field(grid, u)
            ul = ul_block.receptive_field(grid, ul, u)
            u_skips.append(u)
            ul_skips.append(ul)
        if self.coarser is None:
            u, ul = u_skips.pop(), ul_skips.pop()
        else:
            coarse_u, coarse_ul = (
                through(self.u_coarsen.receptive_field(grid), u),
                through(self.ul_coarsen.receptive_field(grid), ul),
            )
            coarse_u, coarse_ul = self.coarser.receptive_field(
                (-(-grid[0] // 2), -(-grid[1] // 2)), coarse_u, coarse_ul
            )
            u, ul = (
                through(self.u_refine.receptive_field(grid), coarse_u),
                through(self.ul_refine.receptive_field(grid), coarse_ul),
            )
        for u_block, ul_block in zip(self.u_down, self.ul_down, strict=True):
            assert isinstance(u_block, GatedResidual)
            assert isinstance(ul_block, GatedResidual)
            u = u_block.receptive_field(grid, u, u_skips.pop())
            ul = ul_block.receptive_field(grid, ul, u, ul_skips.pop())
        return u, ul

    @staticmethod
    def _crop(fine: Tensor, like: Tensor) -> Tensor:
        return fine if fine.dim() == 2 else fine[:, :, : like.shape[2], : like.shape[3]]


class PixelCNNpp(WeightNormalized):
    """Two shifted stacks at several resolutions with skips, and logistic mixtures that couple the channels.

    See ``Autoregressive`` for shapes and figures.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(WeightNormalized.Config):
        """Options of the PixelCNN++."""

        kind: ClassVar = "pixelcnnpp"
        width: Width = 160
        """Filters of every layer."""
        blocks: Depth = 5
        """Residual blocks at each resolution, each way."""
        levels: Depth = 3
        """Resolutions, each half the one before."""

        @classmethod
        def tiny(cls) -> "PixelCNNpp.Config":
            """Small enough for a test."""
            return cls(width=6, blocks=1, levels=2, likelihood="categorical", components=2, condition_width=4)

    recipes: ClassVar = {
        "small": Recipe(
            source="half an hour on two CPU cores on Fashion-MNIST (docs/figures.md)",
            model=Config(width=32, blocks=1, class_conditional=False),
            stages={"training": Optimization(steps=7000, batch_size=16, learning_rate=2e-3, compile=True)},
        ),
        "cifar10": Recipe(
            source="Salimans et al. 2017 and its code: 160 filters, 5 blocks, 10 mixtures, dropout 0.5, "
            "Adam (0.95, 0.9995), EMA",
            model=Config(dropout=0.5, class_conditional=False),
            stages={
                "training": Optimization(
                    steps=1_500_000,
                    batch_size=64,
                    learning_rate=1e-3,
                    betas=(0.95, 0.9995),
                    schedule="exponential",
                    decay=0.999995,
                    warmup=0,
                    gradient_clip=None,
                    ema=0.9995,
                )
            },
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec, embedding_width=max(1, config.width // spec.shape[0]))
        width = config.width
        inputs = len(self.input_groups)
        self.shift = InputShift(wrap=False)
        self.first_u = VerticalConv2d(inputs, width, 1, 1)
        self.first_above = VerticalConv2d(inputs, width, 0, 1)
        self.first_left = RasterConv2d(inputs, width, up=1)
        self.level = Level(width, config.blocks, config.levels, self.condition_width, config.dropout)
        self.head = self.channel_head(width)
        if config.weight_norm:
            normalize_weights((self.first_u, self.first_above, self.first_left, self.level))

    def condition(
        self, labels: Tensor | None, contexts: Sequence[Tensor], own: tuple[Tensor, int] | None = None
    ) -> Conditions:
        """See ``Autoregressive.condition``: a map for each resolution."""
        condition = super().condition(labels, contexts, own)
        conditions = [condition]
        for _ in range(self.config.levels - 1):
            spatial = condition is not None and condition.shape[2:] != (1, 1)
            condition = avg_pool2d(condition, 2, ceil_mode=True) if spatial else condition
            conditions.append(condition)
        return tuple(conditions)

    def receptive_field(self, *, own: bool) -> Tensor:
        """See ``Autoregressive.receptive_field``."""
        u = through(self.first_u.receptive_field(self.grid), shifted_down(self.grid))
        above = through(self.first_above.receptive_field(self.grid), shifted_down(self.grid))
        return self.level.receptive_field(
            self.grid,
            u,
            above | through(self.first_left.receptive_field(self.grid), shifted_right(self.grid)),
        )[1]

    def rows(
        self, above: Tensor, condition: Conditions, cursor: Cursor | None = None
    ) -> tuple[Tensor, _Links]:
        """See ``Autoregressive.rows``."""
        return self.first_above(above, cursor), self.level.rows(
            self.first_u(above, cursor), condition, cursor
        )[1]

    def trunk(
        self, x: Tensor, rows: tuple[Tensor, _Links], condition: Conditions, cursor: Cursor | None = None
    ) -> Tensor:
        """See ``Shifted.trunk``."""
        above, links = rows
        ul = take(above, cursor) + self.first_left(self.shift(x, cursor), cursor)
        return self.level.positions(ul, links, condition, cursor)
