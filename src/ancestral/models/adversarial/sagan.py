"""SAGAN (Zhang et al., Self-Attention Generative Adversarial Networks, 2018), https://arxiv.org/abs/1805.08318."""

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from ancestral.configuration import Depth, Natural, Width
from ancestral.models.adversarial.base import ByChoice, apart, output_of
from ancestral.models.adversarial.dcgan import check_images
from ancestral.models.adversarial.residual import Down, Up, check_attention
from ancestral.nn.adversarial import GameName
from ancestral.nn.normalization import BatchNorm, ConditionalBatchNorm
from ancestral.nn.projection import ProjectionHead
from ancestral.nn.self_attention import SelfAttention
from ancestral.nn.spectral import spectral_norm
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return spectral_norm(layer)


def _linear(inputs: int, outputs: int) -> nn.Module:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return spectral_norm(layer)


class Generator(nn.Module):
    """Blocks that double, of half the channels each, one of whose maps sees all of itself.

    It is ``attention`` doublings from the image.
    """

    def __init__(
        self, latents: int, width: int, scales: int, attention: int, *, spec: Spec, classes: int
    ) -> None:
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        widths = [width * 2**i for i in reversed(range(scales))]
        norm = partial(ConditionalBatchNorm, classes=classes)
        self.first = _linear(latents, widths[0] * math.prod(grid))
        self.map = nn.Unflatten(1, (widths[0], *grid))
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleDict()
        for i, (inputs, outputs) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            self.blocks.append(Up(inputs, outputs, norm, _convolution))
            if attention and scales - 1 - i == attention:
                self.attention[str(i)] = SelfAttention(outputs, spectral_norm)
        self.norm = BatchNorm(widths[-1])
        self.last, self.output = _convolution(widths[-1], spec.shape[0], 3), output_of(spec)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes to ``(N, C, H, W)``."""
        h = self.map(self.first(z))
        for i, block in enumerate(self.blocks):
            h = block(h, labels)
            if str(i) in self.attention:
                h = self.attention[str(i)](h)
        x: Tensor = self.output(self.last(self.norm(h).relu()).to(z.dtype))
        return x


class Critic(nn.Module):
    """Blocks that halve, one that does not, the sum over places, and the class by projection."""

    def __init__(self, width: int, scales: int, attention: int, spec: Spec, classes: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(scales)]
        blocks, inputs = [], spec.shape[0]
        for i, outputs in enumerate(widths):
            blocks.append(Down(inputs, outputs, _convolution, halve=True, first=i == 0))
            inputs = outputs
            if i + 1 == attention:
                blocks.append(SelfAttention(outputs, spectral_norm))  # type: ignore[arg-type]
        blocks.append(Down(inputs, inputs, _convolution, halve=False))
        self.blocks, self.head = nn.Sequential(*blocks), ProjectionHead(inputs, classes)
        nn.init.zeros_(self.head.output.bias)
        for part in self.head.children():
            nn.init.xavier_uniform_(part.get_parameter("weight"))
            spectral_norm(part)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, C, H, W)`` and classes to ``(N,)``."""
        h = self.blocks(x).relu().sum((2, 3))
        value: Tensor = self.head(h, labels)
        return value.to(x.dtype)


class SAGAN(ByChoice):
    """Residual networks in which a map sees all of itself, spectral norm on both sides, a hinge loss.

    The critic learns four times as fast as the generator, in place of more often (Heusel et al., 2017).

    See ``Adversarial`` for shapes.

    >>> model = SAGAN(SAGAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ByChoice.Config):
        """Options of the SAGAN."""

        latents: Width = 128
        """Dimensions of z."""
        loss: GameName = "hinge"
        """The game: what critic and generator minimize."""
        width: Width = 64
        """Channels of the generator's last map, twice as many at each coarser one."""
        critic_width: Width = 64
        """Channels of the critic's first map, twice as many at each coarser one."""
        scales: Depth = 5
        """Times that the sides of a map double in the generator, and halve in the critic."""
        attention: Natural = 2
        """Where maps attend to themselves: 1 at half the image's sides, 2 at a quarter; 0 nowhere."""

        @classmethod
        def tiny(cls) -> "SAGAN.Config":
            """Small enough for a test."""
            return cls(latents=4, width=8, critic_width=8, scales=1, attention=0)

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's networks, narrower and of fewer scales, for two CPU cores",
            model=Config(latents=64, width=32, critic_width=32, scales=2, attention=1),
            stages={
                "training": Optimization(
                    steps=8000, batch_size=64, ema=20_000,
                    phases=apart(
                        8e-4, 2e-4, betas=(0.0, 0.99), schedule="linear", decay_from=0.5, decay_to=1e-5
                    ),
                )
            },
        ),
        "imagenet128": Recipe(
            source="the authors' code for ImageNet at 128x128: Adam, 4e-4 for the critic and 1e-4 for the "
            "generator, (0, .999) where the paper has (0, .9), batch 256, a million steps; the average of "
            "weights is ours",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=1_000_000, batch_size=256, ema=0.999,
                    phases=apart(4e-4, 1e-4, betas=(0.0, 0.999), schedule="constant"),
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_images(spec, config.scales)
        check_attention(config.attention, config.scales)
        places, classes = (config.scales, config.attention), self.sample_classes
        self.generator = Generator(config.latents, config.width, *places, spec=spec, classes=classes)
        self.critic = Critic(config.critic_width, *places, spec, classes)
        self.check_game()
