"""The noise that makes integers real numbers, as options: a class for each kind, with its own alone."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ancestral.bijections import (
    ActNorm,
    Bijection,
    Composition,
    Coupling,
    Dequantization,
    Inverse,
    LogisticMixtureCDF,
    Squeeze,
    Uniform,
    Variational,
)
from ancestral.bijections.shape import check_squeezable
from ancestral.configuration import Blocks, Configuration, Depth, Width
from ancestral.errors import UserError
from ancestral.nn.convolutional import ResidualBlock
from ancestral.spec import Spec


@dataclass(frozen=True, kw_only=True)
class UniformNoise(Configuration):
    """The same for all integers."""

    kind: ClassVar = "uniform"

    def build(self, spec: Spec) -> Dequantization:
        """The distribution."""
        return Uniform()


@dataclass(frozen=True, kw_only=True)
class VariationalNoise(Configuration):
    """Learned, by a flow given the image (Ho et al., Flow++, 2019, section 3.1)."""

    kind: ClassVar = "variational"

    couplings: Depth = 2
    """Coupling layers of the noise's flow."""
    width: Width = 48
    """Channels of its networks."""
    blocks: Blocks = 1
    """Residual blocks of each coupling's network."""
    components: Width = 4
    """Logistics of a value's transformation."""

    def build(self, spec: Spec) -> Dequantization:
        """The distribution. Raises UserError unless ``spec`` is of images that can be squeezed."""
        if len(spec.shape) != 3:
            raise UserError(f"expected images for variational noise, got shape {spec.shape}", "take uniform")
        check_squeezable(spec.shape[1:], 1)
        channels, elementwise = 4 * spec.shape[0], LogisticMixtureCDF(self.components)
        half = channels // 2
        steps: list[Bijection] = [Squeeze(diagonal=True)]
        for i in range(self.couplings):
            network = GivenFeatures(half, elementwise.parameters * half, self.width, self.blocks, self.width)
            steps.append(Coupling(elementwise, network, stays="second" if i % 2 else "first"))
            steps.append(ActNorm(channels))
        features = nn.Sequential(
            nn.Conv2d(spec.shape[0], self.width, 4, stride=2, padding=1),
            ResidualBlock(self.width, self.width),
            nn.ReLU(),
        )
        return Variational(spec, Composition(*steps, Inverse(Squeeze(diagonal=True))), features)


class GivenFeatures(nn.Module):
    """What stays and a map of features to the parameters of what changes, which are zeros at first."""

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs + features, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, width) for _ in range(blocks)), nn.ReLU())
        self.last = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` and ``(N, features, h, w)`` to ``(N, outputs, h, w)``."""
        output: Tensor = self.last(self.blocks(self.first(torch.cat([x, features], 1))))
        return output


NOISES = (UniformNoise(), VariationalNoise())
"""The choices, as the command line starts from them."""
