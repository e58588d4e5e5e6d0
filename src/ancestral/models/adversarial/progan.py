"""ProGAN (Karras et al., Progressive Growing of GANs, 2017), https://arxiv.org/abs/1710.10196."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ancestral.configuration import NonNegative, Width
from ancestral.models.adversarial.base import PenaltyName, both, with_classes
from ancestral.models.adversarial.growing import Growing
from ancestral.nn.adversarial import GameName
from ancestral.nn.equalized import EqualizedConv2d, EqualizedLinear, pixel_normalized
from ancestral.nn.minibatch import MinibatchDeviation
from ancestral.nn.resampling import blurred, doubled, halved
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


def rectified(x: Tensor) -> Tensor:
    """A leaky rectifier with a slope of .2 below 0."""
    return leaky_relu(x, 0.2)


class First(nn.Module):
    """Numbers to the smallest map, with a bias for each channel."""

    def __init__(self, inputs: int, outputs: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.dense = EqualizedLinear(inputs, outputs * math.prod(grid), gain=2**0.5 / 4, bias=None)
        self.bias, self.shape = nn.Parameter(torch.zeros(outputs, 1, 1)), (outputs, *grid)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, outputs, h, w)``."""
        h = self.dense(x).unflatten(1, self.shape)
        return h + self.bias.to(h.dtype)


class Block(nn.Module):
    """Two convolutions, each with a leaky rectifier and each place normalized."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = EqualizedConv2d(inputs, outputs, 3), EqualizedConv2d(outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` to ``(N, outputs, h, w)``."""
        for convolution in (self.first, self.second):
            x = pixel_normalized(rectified(convolution(x)))
        return x


class Generator(nn.Module):
    """z, of a mean square of 1, to a small map, which blocks double; 1x1 convolutions paint it."""

    def __init__(
        self, latents: int, widths: list[int], grid: tuple[int, int], spec: Spec, classes: int
    ) -> None:
        super().__init__()
        self.classes = classes
        self.first = First(latents + classes, widths[0], grid)
        self.convolution = EqualizedConv2d(widths[0], widths[0], 3)
        self.blocks = nn.ModuleList(Block(a, b) for a, b in pairwise(widths))
        self.colors = nn.ModuleList(EqualizedConv2d(w, spec.shape[0], 1, gain=1.0) for w in widths)

    def layers(self, level: int) -> tuple[nn.Module, ...]:
        """What the stage of a level trains."""
        shown = self.colors[max(0, level - 1) : level + 1]
        return (self.first, self.convolution, *self.blocks[:level], *shown)

    def forward(self, z: Tensor, labels: Tensor | None, level: int, alpha: Tensor) -> Tensor:
        """``(N, latents)``, classes and alpha to images of a level."""
        given = z if not self.classes else with_classes(z, labels, self.classes)
        h = pixel_normalized(rectified(self.first(pixel_normalized(given))))
        h = pixel_normalized(rectified(self.convolution(h)))
        for block in self.blocks[: max(0, level - 1)]:
            h = block(doubled(h))
        if not level:
            x: Tensor = self.colors[0](h)
            return x
        own = self.colors[level](self.blocks[level - 1](doubled(h)))
        return torch.lerp(doubled(self.colors[level - 1](h)), own, alpha.to(own.dtype))


class Halving(nn.Module):
    """Two convolutions, each with a leaky rectifier, to means of 2x2 places.

    With ``blur``, as in StyleGAN, maps are filtered before the second one, and the means taken before the
    rectifier.
    """

    def __init__(self, inputs: int, outputs: int, *, blur: bool) -> None:
        super().__init__()
        self.first, self.second = EqualizedConv2d(inputs, inputs, 3), EqualizedConv2d(inputs, outputs, 3)
        self.blur = blur

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` to ``(N, outputs, h / 2, w / 2)``."""
        h = rectified(self.first(x))
        if self.blur:
            return rectified(halved(self.second(blurred(h))))
        return halved(rectified(self.second(h)))


class Critic(nn.Module):
    """The generator's mirror image, without normalization; a map of how the batch varies joins the last.

    With classes, each has an output of its own. With ``blur``, maps are filtered before their sides halve.
    """

    def __init__(
        self, widths: list[int], grid: tuple[int, int], spec: Spec, classes: int, *, blur: bool = False
    ) -> None:
        super().__init__()
        self.colors = nn.ModuleList(EqualizedConv2d(spec.shape[0], w, 1) for w in widths)
        self.blocks = nn.ModuleList(Halving(b, a, blur=blur) for a, b in pairwise(widths))
        last = widths[0]
        self.deviation, self.convolution = MinibatchDeviation(), EqualizedConv2d(last + 1, last, 3)
        self.hidden = EqualizedLinear(last * grid[0] * grid[1], last)
        self.output = EqualizedLinear(last, max(1, classes), gain=1.0)

    def layers(self, level: int) -> tuple[nn.Module, ...]:
        """What the stage of a level trains."""
        ends = (self.deviation, self.convolution, self.hidden, self.output)
        return (*self.colors[max(0, level - 1) : level + 1], *self.blocks[:level], *ends)

    def forward(self, x: Tensor, labels: Tensor | None, level: int, alpha: Tensor) -> Tensor:
        """Images of a level, classes and alpha to ``(N,)``."""
        h = rectified(self.colors[level](x))
        for i in reversed(range(level)):
            h = self.blocks[i](h)
            if i == level - 1:
                h = torch.lerp(rectified(self.colors[i](halved(x))), h, alpha.to(h.dtype))
        h = rectified(self.convolution(self.deviation(h)))
        values = self.output(rectified(self.hidden(h.flatten(1))))
        own = values if labels is None or values.shape[1] == 1 else values.gather(1, labels.unsqueeze(1))
        value: Tensor = own.squeeze(1).to(x.dtype)
        return value


def widths_of(grid: tuple[int, int], levels: int, channels: int, most: int) -> list[int]:
    """Channels of the maps of each level: so many over their sides, and at most so many.

    >>> widths_of((4, 4), 6, 16384, 512)
    [512, 512, 512, 512, 256, 128]
    """
    return [min(most, max(1, channels // (min(grid) << level))) for level in range(levels)]


def _stage(steps: int, batch_size: int, rate: float = 1e-3) -> Optimization:
    updates = both(learning_rate=rate, betas=(0.0, 0.99), schedule="constant")
    return Optimization(steps=steps, batch_size=batch_size, ema=0.999, phases=updates)


def small(steps: int, batch_size: int) -> Optimization:
    """A stage of the small recipes of growing models.

    Weights of equalized layers are about 1, so that four times the authors' rate moves them as far in the few
    steps that there are.
    """
    updates = both(learning_rate=8e-3, betas=(0.0, 0.99), schedule="linear", decay_from=0.5, decay_to=1e-3)
    return Optimization(steps=steps, batch_size=batch_size, ema=20_000, phases=updates)


class ProGAN(Growing):
    """Networks that grow with the images, normalized by places, with equalized learning rates.

    A stage is a resolution; its optimizers are new, as in the authors' code, which makes them new when a fade
    ends, too. Classes, which that code gives an auxiliary classifier, have outputs of the critic.

    See ``Growing`` for shapes.

    >>> model = ProGAN(ProGAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Growing.Config):
        """Options of the ProGAN."""

        latents: Width = 512
        """Dimensions of z."""
        loss: GameName = "wasserstein"
        """The game: what critic and generator minimize."""
        penalty: PenaltyName = "lipschitz"
        """On the critic's gradient at its input: lipschitz (its norm is to be 1 between real and generated
        examples: WGAN-GP), r1 (it is to be 0 at real ones), or r1-r2 (at generated ones too)."""
        drift: NonNegative = 1e-3
        """Weight of the critic's squared values of real examples, which keeps values near 0 where only
        differences count."""
        channels: Width = 16384
        """Channels of a map times its sides, until most-channels."""
        most_channels: Width = 512
        """The most channels that a map has."""

        @classmethod
        def tiny(cls) -> "ProGAN.Config":
            """Small enough for a test."""
            return cls(latents=4, base=2, start=2, channels=16, most_channels=8)

    sampling_options: ClassVar = frozenset()  # z is normalized, whatever its temperature

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's networks, of fewer channels, with StyleGAN's loss and penalty, whose steps "
            "cost half as much, for two CPU cores",
            model=Config(
                latents=64,
                channels=1024,
                most_channels=64,
                loss="non-saturating",
                penalty="r1",
                penalty_weight=4.0,
                penalty_every=4,
                drift=0.0,
                fade=60_000,
            ),
            stages={
                "level1": small(1000, 64),
                "level2": small(1500, 64),
                "level3": small(3000, 64),
                "level4": small(6000, 64),
                "level5": small(3000, 32),
            },
        ),
        "celebahq": Recipe(
            source="the authors' code for CelebA-HQ at 1024x1024: 600,000 images to fade and as many to "
            "settle at each resolution, 12 million in all; Adam, 1e-3, (0, .99), 1.5e-3 at the last",
            model=Config(),
            stages={
                "level1": _stage(4_688, 128),
                "level2": _stage(9_375, 128),
                "level3": _stage(9_375, 128),
                "level4": _stage(18_750, 64),
                "level5": _stage(37_500, 32),
                "level6": _stage(75_000, 16),
                "level7": _stage(150_000, 8),
                "level8": _stage(300_000, 4),
                "level9": _stage(750_000, 4, 1.5e-3),
            },
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        widths = widths_of(self.grid, self.levels, config.channels, config.most_channels)
        classes = self.sample_classes
        self.generator = Generator(config.latents, widths, self.grid, spec, classes)
        self.critic = Critic(widths, self.grid, spec, classes)
        self.check_game()
