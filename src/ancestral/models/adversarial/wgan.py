"""WGAN (Arjovsky et al., Wasserstein GAN, 2017), https://arxiv.org/abs/1701.07875, and its gradient penalty.

Gulrajani et al., Improved Training of Wasserstein GANs, 2017, https://arxiv.org/abs/1704.00028.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.configuration import Configuration, Count, Depth, Range, Width
from ancestral.errors import UserError
from ancestral.models.adversarial.base import ByChoice, PenaltyName, both, output_of
from ancestral.models.adversarial.dcgan import Critic, CriticNorm, Generator, check_images
from ancestral.models.adversarial.residual import Down, Up
from ancestral.nn.adversarial import GameName
from ancestral.nn.normalization import ConditionalBatchNorm
from ancestral.nn.projection import ProjectionHead
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress


def _uniform(layer: nn.Conv2d | nn.Linear, variance: float) -> None:
    """Weights that are uniform, with this variance times 2 / (fan in + fan out); biases 0."""
    fans = (layer.weight.shape[0] + layer.weight.shape[1]) * layer.weight[0, 0].numel()
    end = math.sqrt(3 * variance * 2 / fans)
    nn.init.uniform_(layer.weight, -end, end)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    _uniform(layer, 2.0 if kernel == 3 else 1.0)  # followed by a rectifier, or a shortcut
    return layer


class ResidualGenerator(nn.Module):
    """Residual blocks that double, of one width (Gulrajani et al., appendix F)."""

    def __init__(self, latents: int, width: int, scales: int, spec: Spec, classes: int) -> None:
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        norm = partial(ConditionalBatchNorm, classes=classes)
        self.first = nn.Linear(latents, width * math.prod(grid))
        _uniform(self.first, 1.0)
        self.map = nn.Unflatten(1, (width, *grid))
        self.blocks = nn.ModuleList(Up(width, width, norm, _convolution) for _ in range(scales))
        self.norm = norm(width)
        self.last, self.output = _convolution(width, spec.shape[0], 3), output_of(spec)
        _uniform(self.last, 1.0)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes to ``(N, C, H, W)``."""
        h = self.map(self.first(z))
        for block in self.blocks:
            h = block(h, labels)
        x: Tensor = self.output(self.last(self.norm(h, labels).relu()).to(z.dtype))
        return x


class ResidualCritic(nn.Module):
    """Residual blocks of one width, of which the first ones halve, then the mean over places."""

    def __init__(self, width: int, scales: int, blocks: int, spec: Spec, classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                Down(width if i else spec.shape[0], width, _convolution, halve=i < scales, first=i == 0)
                for i in range(scales + blocks)
            )
        )
        self.head = ProjectionHead(width, classes)
        _uniform(self.head.output, 1.0)
        if self.head.classes is not None:
            nn.init.normal_(self.head.classes.weight, 0.0, 0.02)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, C, H, W)`` and classes to ``(N,)``."""
        h = self.blocks(x).relu().mean((2, 3))
        value: Tensor = self.head(h, labels)
        return value.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Convolutional(Configuration):
    """The networks of DCGAN."""

    kind: ClassVar = "convolutional"

    width: Width = 64
    """Channels of the generator's last map, twice as many at each coarser one."""
    critic_width: Width = 64
    """Channels of the critic's first map, twice as many at each coarser one."""
    scales: Depth = 4
    """Times that the sides of a map double in the generator, and halve in the critic."""
    critic_norm: CriticNorm = "batch"
    """Normalization of the critic: of batches (not with a penalty), spectral, or none."""
    refined: bool = False
    """Add convolutions of 3x3, as DCGAN's option does."""

    def build(self, latents: int, spec: Spec, classes: int) -> tuple[nn.Module, nn.Module]:
        """Generator and critic."""
        check_images(spec, self.scales)
        places = spec, classes
        generator = Generator(latents, self.width, self.scales, *places, refined=self.refined)
        sizes = self.critic_width, self.scales, self.critic_norm
        return generator, Critic(*sizes, *places, refined=self.refined)


@dataclass(frozen=True, kw_only=True)
class Residual(Configuration):
    """Residual networks of one width, as the gradient penalty's paper has them for CIFAR-10."""

    kind: ClassVar = "residual"

    width: Width = 128
    """Channels of both networks."""
    scales: Depth = 3
    """Times that the sides of a map double in the generator."""
    critic_scales: Depth = 2
    """Times that they halve in the critic."""
    blocks: Depth = 2
    """Blocks after these in the critic."""

    def build(self, latents: int, spec: Spec, classes: int) -> tuple[nn.Module, nn.Module]:
        """Generator and critic."""
        check_images(spec, max(self.scales, self.critic_scales))
        generator = ResidualGenerator(latents, self.width, self.scales, spec, classes)
        return generator, ResidualCritic(self.width, self.critic_scales, self.blocks, spec, classes)


class WGAN(ByChoice):
    r"""A critic that estimates :math:`\max_{\lVert D \rVert_L \le 1} E D(x) - E D(g(z))`, a distance.

    It is kept from being steep by clipping its weights (algorithm 1) or by a penalty on its gradient
    (Gulrajani et al., algorithm 1). The authors give the critic 100 updates in the first 25 steps and at
    every 500th; here it has the same number in each. Convolutional networks start as DCGAN's do.

    See ``Adversarial`` for shapes.

    >>> model = WGAN(WGAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ByChoice.Config):
        """Options of the WGAN."""

        loss: GameName = "wasserstein"
        """The game: what critic and generator minimize."""
        penalty: PenaltyName = "lipschitz"
        """On the critic's gradient at its input: lipschitz (its norm is to be 1 between real and generated
        examples: WGAN-GP), r1 (it is to be 0 at real ones), or r1-r2 (at generated ones too)."""
        critic_updates: Count = 5
        """Updates of the critic, each with a batch of its own, before one of the generator."""
        clip: Annotated[float | None, Range(above=0)] = None
        """Before each update all weights of the critic are brought into [-clip, clip]."""
        architecture: Convolutional | Residual = field(
            default_factory=lambda: Convolutional(critic_norm="none")
        )
        """Generator and critic."""
        class_conditional: bool = False
        """Whether both networks are given the class, where the data have classes: conditional batch
        normalization, and a projection head of the critic."""

        @classmethod
        def tiny(cls) -> "WGAN.Config":
            """Small enough for a test."""
            networks = Convolutional(width=4, critic_width=4, scales=1, critic_norm="none")
            return cls(latents=4, architecture=networks)

    choices: ClassVar = {"architecture": (Convolutional(critic_norm="none"), Residual())}

    recipes: ClassVar = {
        "small": Recipe(
            source="the gradient penalty, for two CPU cores",
            model=Config(
                latents=64, dequantize=True,
                architecture=Convolutional(
                    width=32, critic_width=32, scales=2, critic_norm="none", refined=True
                ),
            ),
            stages={
                "training": Optimization(
                    steps=5000, batch_size=64, ema=20_000,
                    phases=both(
                        learning_rate=5e-4, betas=(0.0, 0.9), schedule="linear", decay_from=0.5,
                        decay_to=2.5e-5,
                    ),
                )
            },
        ),
        "clip": Recipe(
            source="Arjovsky et al. 2017, algorithm 1, and the authors' code at 64x64: RMSProp, 5e-5, batch "
            "64, clipped at .01, 5 updates of the critic; steps are ours",
            model=Config(penalty="none", clip=0.01, architecture=Convolutional()),
            stages={
                "training": Optimization(
                    steps=100_000, batch_size=64,
                    phases=both(optimizer="rmsprop", learning_rate=5e-5, schedule="constant"),
                )
            },
        ),
        "cifar10": Recipe(
            source="Gulrajani et al. 2017, the authors' DCGAN for CIFAR-10: Adam, 1e-4, (.5, .9), batch 64, "
            "weight 10, 200,000 steps; kernels of 4x4",
            model=Config(
                latents=128, dequantize=True,
                architecture=Convolutional(width=128, critic_width=128, scales=3, critic_norm="none"),
            ),
            stages={
                "training": Optimization(
                    steps=200_000, batch_size=64,
                    phases=both(learning_rate=1e-4, betas=(0.5, 0.9), schedule="constant"),
                )
            },
        ),
        "cifar10-residual": Recipe(
            source="the same, appendix F: residual networks of 128, Adam, 2e-4, (0, .9), linearly to 0 "
            "over 100,000 steps; the generator's batch is 64 too; classes by projection, where they have an "
            "auxiliary classifier",
            model=Config(latents=128, dequantize=True, architecture=Residual()),
            stages={
                "training": Optimization(
                    steps=100_000, batch_size=64,
                    phases=both(learning_rate=2e-4, betas=(0.0, 0.9), schedule="linear"),
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if config.clip is not None and config.penalty != "none":
            problem = (
                f"expected a critic that is clipped or penalized, got clip {config.clip} and {config.penalty}"
            )
            raise UserError(problem, "choose --model.penalty none, or leave --model.clip out")
        self.generator, self.critic = config.architecture.build(config.latents, spec, self.sample_classes)
        self.check_game()

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """See ``Adversarial.loss``; weights are clipped before each update of the critic."""
        if phase == "critic" and self.config.clip is not None and self.training:
            with torch.no_grad():
                for parameter in self.critic.parameters():
                    parameter.clamp_(-self.config.clip, self.config.clip)
        return super().loss(batch, phase, progress)
