"""MAF (Papamakarios et al., Masked Autoregressive Flow, 2017), https://arxiv.org/abs/1705.07057."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from ancestral.bijections import (
    MADE,
    Affine,
    BatchNormalization,
    Bijection,
    Composition,
    Elementwise,
    Inverse,
    Logit,
    MaskedAutoregressive,
    NormalMixtureCDF,
    Rescale,
    Reshape,
    Reversal,
)
from ancestral.configuration import Blocks, Depth, Width
from ancestral.errors import UserError
from ancestral.models.flow.base import Flow
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

_PAPER = Optimization(
    steps=500_000, batch_size=100, learning_rate=1e-4, weight_decay=1e-6, schedule="constant", warmup=0,
    gradient_clip=None, keep_best=True,
)  # fmt: skip


class MAF(Flow):
    r"""Autoregressive transformations :math:`z_i = (x_i - \mu_i(x_{<i})) / \sigma_i(x_{<i})`.

    They follow one upon another, each with a MADE; between them are batch normalization and a reversal of the
    order of the values (section 3). With ``components``, a last one makes the base an autoregressive mixture
    of Gaussians (MAF MoG, section 4).

    The density of an example is one pass; sampling computes one value after another. With ``inverse`` it is
    the other way round (Kingma et al., 2016, https://arxiv.org/abs/1606.04934).

    In evaluation the batch norms have running means where the authors have the statistics of the whole
    training set; weights start as torch's layers do, and at zero in the last one.

    See ``Flow`` for shapes and figures.

    >>> model = MAF(MAF.Config.tiny(), Spec(shape=(5,), levels=None)).eval()
    >>> x = model.sample(3)
    >>> torch.allclose(model.decode(model.embed(x)), x, atol=1e-5)
    True
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Flow.Config):
        """Options of MAF."""

        transforms: Depth = 5
        """Autoregressive transformations."""
        width: Width = 256
        """Units of a hidden layer."""
        layers: Depth = 2
        """Hidden layers of each MADE."""
        activation: Literal["relu", "tanh"] = "relu"
        """Between the layers of a MADE."""
        batch_norm: bool = True
        """Batch normalization between the transformations."""
        inverse: bool = False
        """Take each transformation the other way round (IAF): one pass to sample, D passes to score, and to
        train."""
        components: Blocks = 0
        """Gaussians of each value's conditional under the base; 0 for a standard normal base."""

        @classmethod
        def tiny(cls) -> "MAF.Config":
            """Small enough for a test."""
            return cls(transforms=2, width=8, layers=1)

    recipes: ClassVar = {
        "table": Recipe(
            source="the paper's MAF (5), for two CPU cores",
            model=Config(),
            stages={"training": Optimization(steps=5000, batch_size=256, learning_rate=1e-3, keep_best=True)},
        ),
        "power": Recipe(
            source="Papamakarios et al. 2017, appendix: 2 hidden layers of 100, Adam, 1e-4, batch 100, "
            "weight decay; steps are ours",
            model=Config(width=100),
            stages={"training": _PAPER},
        ),
        "gas": Recipe(
            source="the same, with tanh", model=Config(width=100, activation="tanh"),
            stages={"training": _PAPER},
        ),
        "hepmass": Recipe(
            source="the same, 512 units: hepmass and miniboone", model=Config(width=512),
            stages={"training": _PAPER},
        ),
        "bsds300": Recipe(
            source="the same, 1024 units, 10 transformations", model=Config(width=1024, transforms=10),
            stages={"training": _PAPER},
        ),
        "mnist": Recipe(
            source="the same for images, 1 hidden layer of 1024; logit with .05, theirs of MNIST is 1e-6",
            model=Config(width=1024, layers=1, transforms=10),
            stages={"training": _PAPER},
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if config.components and config.base != "normal":
            problem = f"expected a normal base under a mixture of Gaussians, got {config.base}"
            raise UserError(problem, "leave --model.base out, or --model.components")
        d, steps = spec.dims, list[Bijection]()
        if spec.levels is not None:
            steps += [Rescale(0, spec.levels), Logit(0.05)]
        if len(spec.shape) > 1:
            steps.append(Reshape(spec.shape, (d,)))
        for i in range(config.transforms):
            if i:
                steps.append(Reversal())
            steps.append(self._transformation(Affine("exp")))
            if config.batch_norm:
                steps.append(BatchNormalization(d))
        if config.components:
            steps += [Reversal(), self._transformation(NormalMixtureCDF(config.components))]
        self.flow = Composition(*steps)

    def _transformation(self, elementwise: Elementwise) -> Bijection:
        config = self.config
        network = MADE(
            self.spec.dims, elementwise.parameters, [config.width] * config.layers,
            context=self.sample_classes, activation=torch.relu if config.activation == "relu" else torch.tanh,
        )  # fmt: skip
        transformation = MaskedAutoregressive(elementwise, network)
        return Inverse(transformation) if config.inverse else transformation
