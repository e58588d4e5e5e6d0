"""StyleGAN (Karras et al., A Style-Based Generator Architecture, 2018), https://arxiv.org/abs/1812.04948."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Generator as Random
from torch import Tensor, nn

from ancestral.capabilities import Styled
from ancestral.configuration import Depth, Natural, Share, Width
from ancestral.models.adversarial.base import PenaltyName, both
from ancestral.models.adversarial.growing import Growing
from ancestral.models.adversarial.mapping import Mapping, check_noise
from ancestral.models.adversarial.progan import Critic, rectified, small, widths_of
from ancestral.nn.equalized import EqualizedConv2d
from ancestral.nn.resampling import blurred, doubled
from ancestral.nn.styles import AdaptiveInstanceNorm, Noise
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import Sampling
from ancestral.spec import Spec


class Layer(nn.Module):
    """A convolution, noise, a bias, a leaky rectifier, and the style.

    With ``double`` the sides of the map double before, and it is filtered after the convolution. The first
    layer of all has no convolution.
    """

    def __init__(self, inputs: int, outputs: int, styles: int, *, double: bool, first: bool = False) -> None:
        super().__init__()
        self.convolution = None if first else EqualizedConv2d(inputs, outputs, 3, bias=False)
        self.noise, self.bias = Noise(outputs), nn.Parameter(torch.zeros(outputs, 1, 1))
        self.style, self.doubles = AdaptiveInstanceNorm(outputs, styles), double

    def forward(self, x: Tensor, w: Tensor, plane: Tensor) -> Tensor:
        """Maps, vectors w ``(N, styles)`` and noise to maps."""
        if self.doubles:
            x = doubled(x)
        if self.convolution is not None:
            x = self.convolution(x)
        if self.doubles:
            x = blurred(x)
        y: Tensor = self.style(rectified(self.noise(x, plane) + self.bias.to(x.dtype)), w)
        return y


class Constant(nn.Module):
    """A map that is learned, the same for every image; ones at first, or normal numbers."""

    def __init__(self, width: int, grid: tuple[int, int], *, normal: bool = False) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.randn(width, *grid) if normal else torch.ones(width, *grid))

    def forward(self, n: int) -> Tensor:
        """``(n, width, h, w)``."""
        return self.map.expand(n, -1, -1, -1)


class Generator(nn.Module):
    """A constant map, which layers that follow styles, two for each resolution, make into an image."""

    def __init__(
        self, latents: int, styles: int, depth: int, mixing: float,
        *, widths: list[int], grid: tuple[int, int], spec: Spec, classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.grid, self.mixing = grid, mixing
        self.mapping = Mapping(latents, styles, depth, classes)
        self.start = Constant(widths[0], grid)
        self.rows = nn.ModuleList([Layer(widths[0], widths[0], styles, double=False, first=True)])
        self.rows.append(Layer(widths[0], widths[0], styles, double=False))
        for before, width in pairwise(widths):
            self.rows.append(Layer(before, width, styles, double=True))
            self.rows.append(Layer(width, width, styles, double=False))
        self.colors = nn.ModuleList(EqualizedConv2d(w, spec.shape[0], 1, gain=1.0) for w in widths)
        for i, plane in enumerate(self.planes(1, len(widths) - 1)):
            self.register_buffer(f"plane{i}", plane)

    def layers(self, level: int) -> tuple[nn.Module, ...]:
        """What the stage of a level trains."""
        return (
            self.mapping,
            self.start,
            *self.rows[: 2 * level + 2],
            *self.colors[max(0, level - 1) : level + 1],
        )

    def planes(self, n: int, level: int, generator: Random | None = None) -> list[Tensor]:
        """Noise for each layer, ``(n, 1, h, w)``."""
        sides = [(self.grid[0] << i, self.grid[1] << i) for i in range(level + 1) for _ in range(2)]
        like: dict[str, Any] = {
            "device": self.start.map.device,
            "dtype": self.start.map.dtype,
            "generator": generator,
        }
        return [torch.randn(n, 1, *side, **like) for side in sides]

    def fixed(self, level: int) -> list[Tensor]:
        """The same noise for every image."""
        return [self.get_buffer(f"plane{i}") for i in range(2 * level + 2)]

    def forward(self, z: Tensor, labels: Tensor | None, level: int, alpha: Tensor) -> Tensor:
        """``(N, latents)``, classes and alpha to images of a level; in training by mixed styles and noise."""
        w, layers = self.mapping(z, labels), 2 * level + 2
        if not self.mapping.training:  # a stage trains some of the layers, not the whole
            return self.paint(w.unsqueeze(1).expand(-1, layers, -1), self.fixed(level), level, alpha)
        self.mapping.follow(w)
        styles = self.mapping.mixed(w, labels, layers, self.mixing)
        return self.paint(styles, self.planes(len(z), level), level, alpha)

    def paint(self, w: Tensor, planes: Sequence[Tensor], level: int, alpha: Tensor) -> Tensor:
        """Vectors of each layer ``(N, layers, styles)`` and noise of each to images of a level."""
        h = former = self.start(len(w))
        for i, layer in enumerate(self.rows[: 2 * level + 2]):
            former = former if i < 2 * level or i % 2 else h
            h = layer(h, w[:, i], planes[i])
        own: Tensor = self.colors[level](h)
        if not level:
            return own
        return torch.lerp(doubled(self.colors[level - 1](former)), own, alpha.to(own.dtype))


def _stage(steps: int, batch_size: int, rate: float = 1e-3) -> Optimization:
    updates = both(learning_rate=rate, betas=(0.0, 0.99), schedule="constant")
    return Optimization(steps=steps, batch_size=batch_size, ema=10_000, phases=updates)


class StyleGAN(Growing, Styled):
    """A generator whose layers follow styles, vectors w of a learned mapping of z, and noise of their own.

    In training, the layers after a random one follow another w (style mixing). Samples have noise of their
    own; ``decode`` has the same for every z. ``truncation`` is psi: w is so much of its way from the mean of
    all, in the first layers. Classes are joined with z, and have outputs of the critic of their own.

    See ``Growing`` for shapes.

    >>> model = StyleGAN(StyleGAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3, truncation=0.7).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Growing.Config):
        """Options of the StyleGAN."""

        latents: Width = 512
        """Dimensions of z."""
        start: Width = 8
        """The shorter side of the images of the first stage."""
        penalty: PenaltyName = "r1"
        """On the critic's gradient at its input: lipschitz (its norm is to be 1 between real and generated
        examples: WGAN-GP), r1 (it is to be 0 at real ones), or r1-r2 (at generated ones too)."""
        styles: Width = 512
        """Numbers of w."""
        depth: Depth = 8
        """Layers of the mapping."""
        mixing: Share = 0.9
        """Probability that a batch has two styles."""
        truncated: Natural = 8
        """Layers that truncation changes, the first ones."""
        channels: Width = 16384
        """Channels of a map times its sides, until most-channels."""
        most_channels: Width = 512
        """The most channels that a map has."""

        @classmethod
        def tiny(cls) -> "StyleGAN.Config":
            """Small enough for a test."""
            return cls(latents=4, base=2, start=2, styles=5, depth=2, channels=16, most_channels=8)

    sampling_options: ClassVar = frozenset({"truncation"})

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's networks, of fewer channels and layers, with lazy regularization, for two "
            "CPU cores",
            model=Config(
                latents=64,
                styles=64,
                depth=4,
                channels=1024,
                most_channels=64,
                penalty_weight=4.0,
                penalty_every=4,
                fade=60_000,
            ),
            stages={
                "level1": small(1000, 64),
                "level2": small(2000, 64),
                "level3": small(6000, 64),
                "level4": small(3000, 32),
            },
        ),
        "ffhq": Recipe(
            source="the authors' code for FFHQ at 1024x1024: from 8x8, 600,000 images to fade and as many to "
            "settle at each resolution, 25 million in all; Adam, (0, .99), 1e-3 to 3e-3",
            model=Config(),
            stages={
                "level1": _stage(2_344, 256),
                "level2": _stage(9_375, 128),
                "level3": _stage(18_750, 64),
                "level4": _stage(37_500, 32),
                "level5": _stage(37_500, 32, 1.5e-3),
                "level6": _stage(37_500, 32, 2e-3),
                "level7": _stage(37_500, 32, 3e-3),
                "level8": _stage(537_500, 32, 3e-3),
            },
        ),
    }

    generator: Generator

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_noise(config.noise)
        widths = widths_of(self.grid, self.levels, config.channels, config.most_channels)
        classes = self.sample_classes
        self.generator = Generator(
            config.latents, config.styles, config.depth, config.mixing,
            widths=widths, grid=self.grid, spec=spec, classes=classes,
        )  # fmt: skip
        self.critic = Critic(widths, self.grid, spec, classes, blur=True)
        self.check_game()

    def vectors(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See ``Styled``: w of each layer that is grown."""
        z, labels = self._given_latents(z, labels)
        level, _ = self._now
        return self.generator.mapping.spread(z, labels, 2 * level + 2)

    def render(self, v: Tensor, labels: Tensor | None = None, *, noise: bool = True) -> Tensor:
        """See ``Styled.render``."""
        level, alpha = self._now
        v = self.checked(v, 2 * level + 2, self.config.styles)
        planes = [plane * noise for plane in self.generator.fixed(level)]
        return self.as_large(self.generator.paint(v, planes, level, alpha))

    def draw(
        self, n: int, labels: Tensor | None, contexts: tuple[Tensor, ...], options: Sampling, *,
        generator: Random | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Model.draw``. Raises UserError for a truncation above 1."""
        (level, alpha), generator_of = self._now, self.generator
        z = self.draw_latents(n, options, generator)
        layers, first = 2 * level + 2, self.config.truncated
        w = generator_of.mapping.spread(z, labels, layers, options.truncation, first)
        return self.to_examples(generator_of.paint(w, generator_of.planes(n, level, generator), level, alpha))
