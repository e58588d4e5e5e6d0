"""NICE (Dinh et al., Non-linear Independent Components Estimation, 2014), https://arxiv.org/abs/1410.8516."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ancestral.bijections import (
    Additive,
    Bijection,
    Composition,
    Coupling,
    Permutation,
    Rescale,
    Reshape,
    Scaling,
)
from ancestral.bijections.coupling import halves
from ancestral.configuration import Depth, Width
from ancestral.models.flow.base import Flow
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

_PAPER = Optimization(
    steps=375_000, batch_size=200, optimizer="rmsprop", learning_rate=1e-3, schedule="exponential",
    decay=1 / 1.0005, decay_to=1e-4, warmup=0, gradient_clip=None, keep_best=True,
)  # fmt: skip


class CouplingNetwork(nn.Sequential):
    """Rectified layers and a linear output, of weights in +-.01 at first, as in the authors' code."""

    def __init__(self, inputs: int, outputs: int, width: int, layers: int, classes: int) -> None:
        super().__init__()
        inputs += classes
        for _ in range(layers):
            self.extend([nn.Linear(inputs, width), nn.ReLU()])
            inputs = width
        self.append(nn.Linear(inputs, outputs))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.uniform_(layer.weight, -0.01, 0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(N, inputs)``, and the class one-hot, to ``(N, outputs)``."""
        output: Tensor = super().forward(x if context is None else torch.cat([x, context], 1))
        return output


class NICE(Flow):
    r"""Additive couplings of two halves, then a scale for each value.

    The halves are the even and the odd values; they take turns: :math:`z_2 = x_2 + m(x_1)` (section 3.2).
    Only the last scale :math:`e^s` changes the volume (section 3.3).

    See ``Flow`` for shapes and figures.

    >>> model = NICE(NICE.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> x = model.sample(3)
    >>> torch.equal(model.decode(model.embed(x)), x)
    True
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Flow.Config):
        """Options of NICE."""

        base: Literal["normal", "logistic"] = "logistic"
        """Distribution of each value of the noise z."""
        couplings: Depth = 4
        """Coupling layers."""
        layers: Depth = 5
        """Hidden layers of each coupling's network."""
        width: Width = 1000
        """Units of a hidden layer."""

        @classmethod
        def tiny(cls) -> "NICE.Config":
            """Small enough for a test."""
            return cls(couplings=3, layers=1, width=8)

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's network for MNIST, for two CPU cores",
            model=Config(width=512, layers=3, class_conditional=False),
            stages={"training": Optimization(steps=8000, batch_size=128, learning_rate=1e-3)},
        ),
        "mnist": Recipe(
            source="the authors' code: 4 couplings of 5 layers of 1000, RMSProp, batch 200, 1500 epochs, the "
            "rate divided by 1.0005 at each update down to 1e-4; without their momentum",
            model=Config(),
            stages={"training": _PAPER},
        ),
        "svhn": Recipe(
            source="the same: 4 couplings of 3 layers of 2000, a normal base; without their whitening",
            model=Config(base="normal", layers=3, width=2000),
            stages={"training": _PAPER},
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        d = spec.dims
        steps: list[Bijection] = [Reshape(spec.shape, (d,))]
        if spec.levels is not None:
            steps.append(Rescale(0, spec.levels))
        steps.append(Permutation([*range(0, d, 2), *range(1, d, 2)]))
        for i in range(config.couplings):
            stays: Literal["first", "second"] = "second" if i % 2 else "first"
            kept, changed = halves(d, stays)
            network = CouplingNetwork(kept, changed, config.width, config.layers, self.sample_classes)
            steps.append(Coupling(Additive(), network, stays=stays))
        steps.append(Scaling(d))
        self.flow = Composition(*steps)
