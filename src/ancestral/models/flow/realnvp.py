"""Real NVP (Dinh et al., Density Estimation Using Real NVP, 2016), https://arxiv.org/abs/1605.08803."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ancestral.bijections import (
    Affine,
    BatchNormalization,
    Bijection,
    Composition,
    Coupling,
    Inverse,
    Logit,
    MaskedCoupling,
    MultiScale,
    Rescale,
    Squeeze,
    checkerboard,
)
from ancestral.bijections.coupling import halves
from ancestral.bijections.shape import check_squeezable
from ancestral.configuration import Blocks, Depth, Width
from ancestral.errors import UserError
from ancestral.models.flow.base import Flow
from ancestral.nn.normalization import BatchNorm
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

_PAPER = Optimization(
    steps=500_000, batch_size=64, learning_rate=1e-3, schedule="constant", warmup=0, gradient_clip=100.0
)


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return weight_norm(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


class _Block(nn.Sequential):
    """Batch norm, rectifier, 3x3 convolution, twice, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for _ in range(2):
            self.extend([BatchNorm(width), nn.ReLU(), _convolution(width, width, 3)])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width, H, W)`` to the same shape."""
        return x + super().forward(x)


class _Bounded(nn.Module):
    """Shifts as they are, and log-scales as a learned number times their tanh (section 4.1)."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, output: Tensor) -> Tensor:
        """``(N, 2 C, *grid)``: shifts, then log-scales."""
        shift, a = output.chunk(2, 1)
        return torch.cat([shift, self.scale * a.tanh()], 1)


class ResidualNetwork(nn.Module):
    """Residual blocks whose features all reach the output by 1x1 convolutions (section 3.2, appendix)."""

    mask: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, width: int, blocks: int, classes: int, *, mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("mask", None if mask is None else mask[None], persistent=False)
        self.norm = BatchNorm(inputs, affine=False)
        self.first = _convolution(2 * inputs + (mask is not None), width, 3)
        self.classes = nn.Linear(classes, width, bias=False) if classes else None
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.skips = nn.ModuleList(_convolution(width, width, 1) for _ in range(blocks + 1))
        self.last = nn.Sequential(BatchNorm(width), nn.ReLU(), _convolution(width, outputs, 1))
        # Checkerboards start as shifts alone (the authors' code).
        self.bounded = _Bounded(0.0 if mask is not None else 1.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What stays ``(N, inputs, H, W)``, and the class one-hot, to ``(N, outputs, H, W)``."""
        h = self.norm(x) * (1 if self.mask is None else 2)  # half of a masked input is zeros
        parts = [h, -h]
        if self.mask is not None:
            parts.append(self.mask.to(h.dtype).expand(len(h), *self.mask.shape[1:]))
        h = self.first(torch.cat(parts, 1).relu())
        if self.classes is not None:
            h = h + self.classes(context)[:, :, None, None]
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            h = block(h)
            total = total + skip(h)
        return self.bounded(self.last(total))


class RowNetwork(nn.Module):
    """Log-scales by a network with tanh, shifts by one with rectifiers (Papamakarios et al., 2017)."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int, classes: int) -> None:
        super().__init__()
        self.shift, self.log_scale = (
            self._network(inputs + classes, outputs // 2, width, layers, kind) for kind in (nn.ReLU, nn.Tanh)
        )

    @staticmethod
    def _network(
        inputs: int, outputs: int, width: int, layers: int, activation: type[nn.Module]
    ) -> nn.Sequential:
        sizes, parts = [inputs, *[width] * layers], list[nn.Module]()
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after), activation()]
        last = nn.Linear(sizes[-1], outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(*parts, last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The columns that stay ``(N, inputs)``, and the class one-hot, to ``(N, outputs)``."""
        x = x if context is None else torch.cat([x, context], 1)
        return torch.cat([self.shift(x), self.log_scale(x)], 1)


class RealNVP(Flow):
    r"""Affine couplings :math:`z_2 = (x_2 + t(x_1)) \, e^{s(x_1)}` on several scales.

    Images (section 4.1): at each scale three couplings of checkerboards, then three of channels of the
    squeezed image, each with batch normalization; then half of the pixels of each 2x2 block are done (section
    3.6). The last scale has four checkerboards. Rows of a table: couplings of halves of the columns, which
    take turns.

    The authors penalize the gains of the weight normalization, which here no weight decay singles out.

    See ``Flow`` for shapes and figures.

    >>> model = RealNVP(RealNVP.Config.tiny(), Spec(shape=(5,), levels=None)).eval()
    >>> x = model.sample(3)
    >>> torch.allclose(model.decode(model.embed(x)), x, atol=1e-5)
    True
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Flow.Config):
        """Options of Real NVP."""

        scales: Depth = 3
        """Of images: resolutions."""
        width: Width = 64
        """Channels of the networks at the first scale, twice as many at each further one; of tables units."""
        blocks: Blocks = 8
        """Of images: residual blocks of each network; of tables: hidden layers."""
        couplings: Depth = 10
        """Of tables: couplings."""

        @classmethod
        def tiny(cls) -> "RealNVP.Config":
            """Small enough for a test."""
            return cls(scales=1, width=8, blocks=1, couplings=2)

    recipes: ClassVar = {
        "small": Recipe(
            source="a small network of the paper's kind, for two CPU cores",
            model=Config(scales=2, width=32, blocks=2, class_conditional=False),
            stages={"training": Optimization(steps=8000, batch_size=64, learning_rate=1e-3)},
        ),
        "cifar10": Recipe(
            source="Dinh et al. 2016, section 4.1: 4 scales down to 4x4, 8 residual blocks, base width 64; "
            "Adam, 1e-3, batch 64; steps are ours",
            model=Config(scales=4),
            stages={"training": _PAPER},
        ),
        "imagenet64": Recipe(
            source="the same for 64x64: 5 scales, 2 residual blocks, base width 32; steps are ours",
            model=Config(scales=5, width=32, blocks=2),
            stages={"training": _PAPER},
        ),
        "table": Recipe(
            source="Papamakarios et al. 2017, the row Real NVP (10), for two CPU cores",
            model=Config(width=128, blocks=2, couplings=10),
            stages={"training": Optimization(steps=5000, batch_size=256, learning_rate=1e-3, keep_best=True)},
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.shape) not in (1, 3):
            raise UserError(
                f"expected images (C, H, W) or rows (D,), got shape {spec.shape}", "use nice or maf"
            )
        first: list[Bijection] = [] if spec.levels is None else [Rescale(0, spec.levels), Logit(0.05)]
        build = self._rows if len(spec.shape) == 1 else self._images
        self.flow = Composition(*first, *build())

    def _rows(self) -> list[Bijection]:
        d, config, steps = self.spec.dims, self.config, list[Bijection]()
        for i in range(config.couplings):
            stays = self._side(i % 2 == 1)
            kept, changed = halves(d, stays)
            network = RowNetwork(kept, 2 * changed, config.width, config.blocks, self.sample_classes)
            steps.append(Coupling(Affine("exp"), network, stays=stays))
            steps.append(BatchNormalization(d))
        return steps

    def _images(self) -> list[Bijection]:
        check_squeezable(self.spec.shape[1:], self.config.scales - 1)
        shape, levels, shapes = self.spec.shape, list[Bijection](), list[tuple[int, ...]]()
        for i in range(self.config.scales - 1):
            squeezed = (4 * shape[0], shape[1] // 2, shape[2] // 2)
            width = self.config.width * 2**i
            steps = [self._checkerboard(shape, width, odd=k % 2 == 1) for k in range(3)]
            steps.append(Squeeze())
            steps += [self._channels(squeezed, 2 * width, second=k % 2 == 1) for k in range(3)]
            levels.append(Composition(*steps, Inverse(Squeeze()), Squeeze(diagonal=True)))
            shapes.append(squeezed)
            shape = (squeezed[0] // 2, *squeezed[1:])
        width = self.config.width * 2 ** (self.config.scales - 1)
        levels.append(Composition(*(self._checkerboard(shape, width, odd=k % 2 == 1) for k in range(4))))
        return [MultiScale(levels, [*shapes, shape])]

    @staticmethod
    def _side(second: bool) -> Literal["first", "second"]:
        return "second" if second else "first"

    def _checkerboard(self, shape: Sequence[int], width: int, *, odd: bool) -> Bijection:
        c, h, w = shape
        mask = checkerboard(h, w, odd=odd)
        network = ResidualNetwork(c, 2 * c, width, self.config.blocks, self.sample_classes, mask=mask)
        norm = BatchNormalization(c, learned=False, eps=1e-4, mask=mask)
        return Composition(MaskedCoupling(Affine("exp"), network, mask), norm)

    def _channels(self, shape: Sequence[int], width: int, *, second: bool) -> Bijection:
        c, stays = shape[0], self._side(second)
        kept, changed = halves(c, stays)
        network = ResidualNetwork(kept, 2 * changed, width, self.config.blocks, self.sample_classes)
        places = torch.arange(c).view(-1, 1, 1)
        mask = places >= c - kept if second else places < kept  # what stays
        norm = BatchNormalization(c, learned=False, eps=1e-4, mask=mask)
        return Composition(Coupling(Affine("exp"), network, stays=stays), norm)
