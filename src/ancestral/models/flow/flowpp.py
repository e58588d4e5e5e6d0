"""Flow++ (Ho et al., Improving Flow-Based Generative Models, 2019), https://arxiv.org/abs/1902.00275."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from ancestral.bijections import (
    ActNorm,
    Bijection,
    Composition,
    Coupling,
    LogisticMixtureCDF,
    Logit,
    Permutation,
    Rescale,
    Reshape,
    Squeeze,
)
from ancestral.bijections.coupling import halves
from ancestral.bijections.shape import check_squeezable
from ancestral.configuration import Blocks, Depth, Share, Width
from ancestral.errors import UserError
from ancestral.models.flow.base import Flow
from ancestral.models.flow.dequantizers import UniformNoise, VariationalNoise
from ancestral.nn.gated_residual import GatedResidual
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class CouplingNetwork(nn.Module):
    """Gated residual convolutions; the output is zero at first."""

    def __init__(
        self, inputs: int, outputs: int, *, width: int, blocks: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.first = _convolution(inputs, width)
        self.classes = nn.Linear(classes, width, bias=False) if classes else None
        self.blocks = nn.ModuleList(
            GatedResidual(width, _convolution, dropout=dropout) for _ in range(blocks)
        )
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What stays ``(N, inputs, h, w)``, and the class one-hot, to ``(N, outputs, h, w)``."""
        h = self.first(x)
        if self.classes is not None:
            h = h + self.classes(context)[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        output: Tensor = self.last(elu(h))
        return output


class FlowPP(Flow):
    """Couplings by mixtures of logistics, and noise that is learned.

    At half the image's resolution, where the four pixels of a block are channels: ``fine`` couplings, of
    which each leaves a half of every block to the other, the diagonals of a checkerboard first, then rows and
    columns. Then ``coarse`` couplings at a quarter of it. Activation norm follows each. Nothing is factored
    out. This is a small relative of the authors' network, which couples odd and even columns at full
    resolution; has activation norm of each place and a 1x1 convolution before each coupling; and attention,
    layer norm and more layers in the couplings.

    See ``Flow`` for shapes and figures.

    >>> model = FlowPP(FlowPP.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> x = model.sample(3, temperature=0.7)
    >>> torch.equal(model.decode(model.embed(x)), x)
    True
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Flow.Config):
        """Options of Flow++."""

        dequantization: UniformNoise | VariationalNoise = field(default_factory=VariationalNoise)
        """Noise that is added to integers."""
        fine: Depth = 6
        """Couplings at half the image's resolution."""
        coarse: Blocks = 4
        """Couplings at a quarter of it."""
        width: Width = 80
        """Channels of a coupling's network."""
        blocks: Blocks = 1
        """Gated residual blocks of it."""
        components: Width = 4
        """Logistics of a value's transformation."""
        dropout: Share = 0.0
        """Share of the features of a block dropped in training."""

        @classmethod
        def tiny(cls) -> "FlowPP.Config":
            """Small enough for a test."""
            noise = VariationalNoise(couplings=1, width=4, blocks=0, components=1)
            return cls(fine=2, coarse=0, width=8, components=2, dequantization=noise)

    recipes: ClassVar = {
        "small": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores",
            model=Config(width=64, class_conditional=False),
            stages={"training": Optimization(steps=14_000, batch_size=64, learning_rate=1e-3, ema=0.999)},
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.shape) != 3:
            raise UserError(
                f"expected images (C, H, W), got shape {spec.shape}", "use maf or realnvp for tables"
            )
        c, h, w = spec.shape
        check_squeezable((h, w), 2 if config.coarse else 1)
        steps: list[Bijection] = [] if spec.levels is None else [Rescale(0, spec.levels), Logit(0.05)]
        steps += [Squeeze(diagonal=True), ActNorm(4 * c)]
        # Places of a block, as Squeeze orders them: 0 upper left, 1 lower right, 2 upper right, 3 lower left.
        for i in range(config.fine):
            halves = ((0, 1, 2, 3), (0, 2, 3, 1), (0, 3, 2, 1))[(i // 2) % 3]
            order = [place * c + channel for place in halves for channel in range(c)]
            steps += self._coupling(4 * c, order, second=i % 2 == 1)
        shape = (4 * c, h // 2, w // 2)
        if config.coarse:
            steps.append(Squeeze())
            shape = (16 * c, h // 4, w // 4)
            for i in range(config.coarse):
                # Upper and lower rows of a block of 2x2, then every second channel of its places.
                order = [*range(0, 16 * c, 2), *range(1, 16 * c, 2)] if (i // 2) % 2 else list(range(16 * c))
                steps += self._coupling(16 * c, order, second=i % 2 == 1)
        self.flow = Composition(*steps, Reshape(shape, (spec.dims,)))

    def _coupling(self, channels: int, order: Sequence[int], *, second: bool) -> list[Bijection]:
        """A coupling of the halves of the channels in another order, and back, then normalization."""
        config = self.config
        stays: Literal["first", "second"] = "second" if second else "first"
        kept, changed = halves(channels, stays)
        elementwise = LogisticMixtureCDF(config.components)
        network = CouplingNetwork(
            kept, elementwise.parameters * changed, width=config.width, blocks=config.blocks,
            classes=self.sample_classes, dropout=config.dropout,
        )  # fmt: skip
        coupling = Coupling(elementwise, network, stays=stays)
        back = torch.tensor(order).argsort().tolist()
        plain = list(order) == list(range(channels))
        turned = [coupling] if plain else [Permutation(order), coupling, Permutation(back)]
        return [*turned, ActNorm(channels)]
