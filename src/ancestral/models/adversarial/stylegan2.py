"""StyleGAN2 (Karras et al., Analyzing and Improving the Image Quality of StyleGAN, 2019).

https://arxiv.org/abs/1912.04958; classes and settings of small data as in StyleGAN2-ADA (Karras et al.,
2020), https://arxiv.org/abs/2006.06676.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Generator as Random
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.capabilities import Styled
from ancestral.configuration import Count, Depth, Natural, NonNegative, Share, Width
from ancestral.models.adversarial.base import ByChoice, PenaltyName, both
from ancestral.models.adversarial.growing import grown_from
from ancestral.models.adversarial.mapping import Mapping, check_noise
from ancestral.models.adversarial.progan import rectified, widths_of
from ancestral.models.adversarial.stylegan import Constant
from ancestral.nn.equalized import RECTIFIED, EqualizedConv2d, EqualizedLinear
from ancestral.nn.minibatch import MinibatchDeviation
from ancestral.nn.path_length import path_penalty
from ancestral.nn.resampling import filtered, upsampled
from ancestral.nn.styles import ModulatedConv2d
from ancestral.recipe import Optimization, Recipe, Updates
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage


def _rectified(x: Tensor) -> Tensor:
    """A leaky rectifier that keeps variances, in place of weights that are as much larger."""
    return RECTIFIED * rectified(x)


class Layer(nn.Module):
    """A modulated convolution, noise, a bias and a leaky rectifier whose gain is in what it is given."""

    def __init__(self, inputs: int, outputs: int, styles: int, *, double: bool) -> None:
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, outputs, 3, styles, double=double)
        self.noise, self.bias = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor, w: Tensor, plane: Tensor) -> Tensor:
        """Maps, vectors w ``(N, styles)`` and noise to maps."""
        x = self.convolution(x, w, RECTIFIED * self.noise * plane, gain=RECTIFIED)
        return rectified(x + RECTIFIED * self.bias.to(x.dtype))


class Generator(nn.Module):
    """A constant map, layers that follow styles, and an image to which each resolution adds its own."""

    length: Tensor

    def __init__(
        self, latents: int, styles: int, depth: int, mixing: float,
        *, widths: list[int], grid: tuple[int, int], spec: Spec, classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.grid, self.mixing, self.count = grid, mixing, 2 * len(widths)
        self.mapping = Mapping(latents, styles, depth, classes, apart=True)
        self.start = Constant(widths[0], grid, normal=True)
        self.layers = nn.ModuleList([Layer(widths[0], widths[0], styles, double=False)])
        for before, width in pairwise(widths):
            self.layers.append(Layer(before, width, styles, double=True))
            self.layers.append(Layer(width, width, styles, double=False))
        self.colors = nn.ModuleList(
            ModulatedConv2d(w, spec.shape[0], 1, styles, demodulate=False) for w in widths
        )
        self.color_bias = nn.Parameter(torch.zeros(len(widths), spec.shape[0], 1, 1))
        self.register_buffer("length", torch.zeros(()))
        for i, plane in enumerate(self.planes(1)):
            self.register_buffer(f"plane{i}", plane)

    def planes(self, n: int, generator: Random | None = None) -> list[Tensor]:
        """Noise for each layer, ``(n, 1, h, w)``."""
        levels = [0, *(i for i in range(1, self.count // 2) for _ in range(2))]
        like: dict[str, Any] = {
            "device": self.start.map.device,
            "dtype": self.start.map.dtype,
            "generator": generator,
        }
        return [torch.randn(n, 1, self.grid[0] << i, self.grid[1] << i, **like) for i in levels]

    def fixed(self) -> list[Tensor]:
        """The same noise for every image."""
        return [self.get_buffer(f"plane{i}") for i in range(self.count - 1)]

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes to images; in training by mixed styles and noise of their own."""
        if not self.training:
            w = self.mapping(z, labels).unsqueeze(1).expand(-1, self.count, -1)
            return self.paint(w, self.fixed())
        return self.paint(self.vectors(z, labels), self.planes(len(z)))

    def vectors(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """The vectors of each layer ``(N, layers, styles)``, mixed of two; the mean follows them."""
        w = self.mapping(z, labels)
        self.mapping.follow(w)
        return self.mapping.mixed(w, labels, self.count, self.mixing)

    def paint(self, w: Tensor, planes: Sequence[Tensor]) -> Tensor:
        """Vectors of each layer ``(N, layers, styles)`` and noise of each to images ``(N, C, H, W)``."""
        h = self.layers[0](self.start(len(w)), w[:, 0], planes[0])
        x: Tensor = self.colors[0](h, w[:, 1]) + self.color_bias[0]
        for level in range(1, self.count // 2):
            i = 2 * level - 1
            for j in (i, i + 1):
                h = self.layers[j](h, w[:, j], planes[j])
            with torch.autocast(x.device.type, enabled=False):  # the image is a sum, which half would round
                x = upsampled(x)
            x = x + self.colors[level](h, w[:, i + 2]) + self.color_bias[level]
        return x


class Down(nn.Module):
    """Two convolutions, filtered where the sides of the map halve; beside a shortcut if ``residual``.

    The variance stays.
    """

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        self.first, self.second = (
            EqualizedConv2d(inputs, inputs, 3, gain=1.0),
            EqualizedConv2d(inputs, outputs, 3, gain=1.0),
        )
        self.shortcut = EqualizedConv2d(inputs, outputs, 1, gain=1.0, bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, h, w)`` to ``(N, outputs, h / 2, w / 2)``."""
        h = _rectified(self.first(x))
        h = _rectified(self.second(filtered(h, 2), stride=2, padding=0))
        if self.shortcut is None:
            return h
        y: Tensor = (h + self.shortcut(filtered(x, 1), stride=2)) * math.sqrt(0.5)
        return y


class Critic(nn.Module):
    """Blocks that halve; a map of how the batch varies joins the last; classes by projection."""

    def __init__(
        self, widths: list[int], depth: int, group: int, grid: tuple[int, int],
        *, spec: Spec, classes: int, residual: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        last = widths[0]
        self.colors = EqualizedConv2d(spec.shape[0], widths[-1], 1, gain=1.0)
        self.blocks = nn.ModuleList(
            Down(b, a, residual=residual) for a, b in reversed(list(pairwise(widths)))
        )
        self.deviation = MinibatchDeviation(group)
        self.convolution = EqualizedConv2d(last + 1, last, 3, gain=1.0)
        self.hidden = EqualizedLinear(last * grid[0] * grid[1], last, gain=1.0)
        self.output = EqualizedLinear(last, last if classes else 1, gain=1.0)
        self.classes = Mapping(0, last, depth, classes, apart=True) if classes else None

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images ``(N, C, H, W)`` and classes to ``(N,)``."""
        h = _rectified(self.colors(x))
        for block in self.blocks:
            h = block(h)
        h = _rectified(self.convolution(self.deviation(h)))
        y = self.output(_rectified(self.hidden(h.flatten(1))))
        if self.classes is None:
            value: Tensor = y.squeeze(1)
        else:
            value = (y * self.classes(y[:, :0], labels)).sum(1) / math.sqrt(y.shape[1])
        return value.to(x.dtype)


def _lazy(rate: float) -> dict[str, Updates]:
    """The authors' updates: slower by what the penalties each 16th step and the path lengths each 4th add.

    Of the generator without path lengths too, as in StyleGAN2-ADA's code.
    """
    shares = {"critic": 16 / 17, "generator": 4 / 5}
    return {
        name: both(learning_rate=rate * share, betas=(0.0, 0.99**share), schedule="constant")[name]
        for name, share in shares.items()
    }


class StyleGAN2(ByChoice, Styled):
    """Styles inside the convolutions, which leave no droplets; images are sums over resolutions, not grown.

    Path length regularization keeps a step in w as long in the image wherever it begins. It and R1 come every
    so many steps (lazy regularization), with the optimizers of the phases that they belong to; the learning
    rates and betas of the authors' recipes allow for it, as their code does.

    See ``Adversarial`` for shapes.

    >>> model = StyleGAN2(StyleGAN2.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3, truncation=0.7).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ByChoice.Config):
        """Options of the StyleGAN2."""

        latents: Width = 512
        """Dimensions of z."""
        base: Width | None = None
        """The shorter side of the constant map; None for 4, or for what the sides can be halved to above."""
        penalty: PenaltyName = "r1"
        """On the critic's gradient at its input: lipschitz (its norm is to be 1 between real and generated
        examples: WGAN-GP), r1 (it is to be 0 at real ones), or r1-r2 (at generated ones too)."""
        penalty_every: Count = 16
        """Steps from one penalty to the next, which then weighs as many times more; the critic's learning
        rate and betas stay."""
        styles: Width = 512
        """Numbers of w."""
        depth: Depth = 8
        """Layers of the generator's mapping."""
        critic_depth: Depth = 8
        """Layers of the critic's, of classes."""
        mixing: Share = 0.9
        """Probability that a batch has two styles."""
        path_weight: NonNegative = 2.0
        """Weight of the path length regularization."""
        path_every: Count = 4
        """Steps from one of it to the next, which then weighs as many times more."""
        group: Count = 4
        """Examples that the critic compares."""
        residual: bool = True
        """Let the critic's blocks have shortcuts."""
        truncated: Natural = 18
        """Layers that truncation changes, the first ones."""
        channels: Width = 32768
        """Channels of a map times its sides, until most-channels."""
        most_channels: Width = 512
        """The most channels that a map has."""

        @classmethod
        def tiny(cls) -> "StyleGAN2.Config":
            """Small enough for a test."""
            return cls(
                latents=4, base=2, styles=5, depth=2, critic_depth=2, channels=16, most_channels=8,
                penalty_every=1, path_every=1,
            )  # fmt: skip

    sampling_options: ClassVar = frozenset({"truncation"})

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's networks, of fewer channels and layers, for two CPU cores",
            model=Config(
                latents=64, styles=64, depth=2, critic_depth=2, channels=1024, most_channels=64,
                penalty_weight=10.0, penalty_every=8, path_weight=0.0, mixing=0.0,
            ),
            stages={
                "training": Optimization(
                    steps=7000, batch_size=64, ema=20_000,
                    phases=both(
                        learning_rate=8e-3, betas=(0.0, 0.99), schedule="linear", decay_from=0.5,
                        decay_to=1e-5,
                    ),
                )
            },
        ),
        "ffhq": Recipe(
            source="the authors' configuration F for FFHQ at 1024x1024: batch 32, 2e-3, R1 of 10 each 16th "
            "step, path lengths each 4th, 25 million images",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=781_250, batch_size=32, ema=10_000,
                    phases=_lazy(2e-3),
                )
            },
        ),
        "cifar10": Recipe(
            source="StyleGAN2-ADA's for CIFAR-10: batch 64, 2.5e-3, R1 of .01, adaptive augmentation, no "
            "path lengths, mixing or shortcuts in the critic, averages of 500,000 images, 100 million images",
            model=Config(
                depth=2, channels=16384, mixing=0.0, path_weight=0.0, penalty_weight=0.01, group=32,
                residual=False, augmentation="adaptive",
            ),
            stages={
                "training": Optimization(
                    steps=1_562_500, batch_size=64, ema=500_000,
                    phases=_lazy(2.5e-3),
                )
            },
        ),
    }  # fmt: skip

    generator: Generator

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_noise(config.noise)
        levels, grid = grown_from(spec, config.base)
        widths, classes = widths_of(grid, levels, config.channels, config.most_channels), self.sample_classes
        self.generator = Generator(
            config.latents, config.styles, config.depth, config.mixing,
            widths=widths, grid=grid, spec=spec, classes=classes,
        )  # fmt: skip
        self.critic = Critic(
            widths,
            config.critic_depth,
            config.group,
            grid,
            spec=spec,
            classes=classes,
            residual=config.residual,
        )
        self.check_game()

    def stages(self) -> tuple[Stage, ...]:
        """See ``Adversarial.stages``; path lengths come after the generator's phase, now and then."""
        (stage,) = super().stages()
        if not self.config.path_weight:
            return (stage,)
        path = Phase(
            "path", (self.generator,), optimizer="generator", validated=False, every=self.config.path_every
        )
        return (replace(stage, phases=(*stage.phases, path), compiles=False),)

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """See ``Adversarial.loss``; of the phase ``path`` the path length regularization of half a batch."""
        if phase != "path":
            return super().loss(batch, phase, progress)
        n, labels = max(1, len(batch.x) // 2), self._labels(batch)
        z = self._latents(n)
        w = self.generator.vectors(z, None if labels is None else labels[:n].long())
        penalty, length = path_penalty(
            w, self.generator.paint(w, self.generator.planes(n)), self.generator.length
        )
        weight = self.config.path_weight * self.config.path_every
        return Loss(weight * penalty, {"penalty": penalty.detach(), "length": length})

    def vectors(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """See ``Styled``: w of each layer."""
        z, labels = self._given_latents(z, labels)
        return self.generator.mapping.spread(z, labels, self.generator.count)

    def render(self, v: Tensor, labels: Tensor | None = None, *, noise: bool = True) -> Tensor:
        """See ``Styled.render``."""
        v = self.checked(v, self.generator.count, self.config.styles)
        return self.generator.paint(v, [plane * noise for plane in self.generator.fixed()])

    def draw(
        self, n: int, labels: Tensor | None, contexts: tuple[Tensor, ...], options: Sampling, *,
        generator: Random | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Model.draw``. Raises UserError for a truncation above 1."""
        network, first = self.generator, self.config.truncated
        z = self.draw_latents(n, options, generator)
        w = network.mapping.spread(z, labels, network.count, options.truncation, first)
        return self.to_examples(network.paint(w, network.planes(n, generator)))
