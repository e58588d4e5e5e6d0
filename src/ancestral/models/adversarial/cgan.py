"""Conditional GAN (Mirza & Osindero, Conditional Generative Adversarial Nets, 2014), https://arxiv.org/abs/1411.1784."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ancestral.batch import Batch
from ancestral.configuration import Configuration, Depth, Share, Width
from ancestral.models.adversarial.base import Adversarial, Noise, both, given_classes, output_of, with_classes
from ancestral.models.adversarial.dcgan import check_images
from ancestral.models.adversarial.gan import MAXOUT, MEANT, RECTIFIED, Output, uniform
from ancestral.nn.maxout import Maxout
from ancestral.nn.normalization import BatchNorm
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec


class DenseGenerator(nn.Module):
    """z and the class each pass a rectified layer of their own, then a joint one, with dropout between."""

    def __init__(self, latents: int, widths: tuple[int, int, int], dropout: float, spec: Spec) -> None:
        super().__init__()
        z, y, joint = widths
        self.classes = spec.classes
        self.z, self.y = nn.Linear(latents, z), nn.Linear(spec.classes, y)
        self.dropout, self.joint = nn.Dropout(dropout), nn.Linear(z + y, joint)
        self.output = Output(joint, spec)
        uniform(self, RECTIFIED)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes ``(N,)`` to ``(N, *shape)``."""
        given = given_classes(labels, self.classes, z)
        h = torch.cat([self.z(z), self.y(given)], 1).relu()
        x: Tensor = self.output(self.dropout(self.joint(self.dropout(h)).relu()))
        return x


class DenseCritic(nn.Module):
    """Example and class each pass a maxout layer of their own, then a joint one."""

    def __init__(self, sizes: tuple[tuple[int, int], ...], dropout: float, spec: Spec) -> None:
        super().__init__()
        (x, x_pieces), (y, y_pieces), (joint, pieces) = sizes
        self.classes = spec.classes
        self.x, self.y = Maxout(spec.dims, x, x_pieces), Maxout(spec.classes, y, y_pieces)
        self.joint = nn.Sequential(
            nn.Dropout(dropout), Maxout(x + y, joint, pieces), nn.Dropout(dropout), nn.Linear(joint, 1)
        )
        uniform(self, MAXOUT)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, *shape)`` and classes ``(N,)`` to logits ``(N,)``."""
        given = given_classes(labels, self.classes, x)
        logits: Tensor = self.joint(torch.cat([self.x(x.flatten(1)), self.y(given)], 1))
        return logits.squeeze(1)


class ConvolutionalGenerator(nn.Module):
    """A dense layer, then maps that double, each given the class as further channels."""

    def __init__(self, latents: int, width: int, scales: int, spec: Spec) -> None:
        super().__init__()
        c, classes = spec.shape[0], spec.classes
        grid = [side // 2**scales for side in spec.shape[1:]]
        self.classes = classes
        self.first = nn.Linear(latents + classes, 8 * width, bias=False)
        self.first_norm = BatchNorm(8 * width)
        self.second = nn.Linear(8 * width + classes, width * math.prod(grid), bias=False)
        self.map = nn.Unflatten(1, (width, *grid))
        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(scales))
        self.doubling = nn.ModuleList(
            nn.ConvTranspose2d(width + classes, width if i + 1 < scales else c, 4, stride=2, padding=1)
            for i in range(scales)
        )
        self.output = output_of(spec)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` and classes ``(N,)`` to ``(N, C, H, W)``."""
        h = self.first_norm(self.first(with_classes(z, labels, self.classes))).relu()
        h = self.map(self.second(with_classes(h, labels, self.classes)))
        for norm, doubling in zip(self.norms, self.doubling, strict=True):
            h = doubling(with_classes(norm(h).relu(), labels, self.classes))
        x: Tensor = self.output(h.to(z.dtype))
        return x


class ConvolutionalCritic(nn.Module):
    """Maps that halve, then a dense layer, each given the class as further channels."""

    def __init__(self, width: int, scales: int, spec: Spec) -> None:
        super().__init__()
        c, classes = spec.shape[0], spec.classes
        grid = [side // 2**scales for side in spec.shape[1:]]
        self.classes = classes
        self.halving = nn.ModuleList(
            nn.Conv2d((width if i else c) + classes, width, 4, stride=2, padding=1, bias=not i)
            for i in range(scales)
        )
        self.norms = nn.ModuleList(BatchNorm(width) if i else nn.Identity() for i in range(scales))
        self.dense = nn.Linear(width * math.prod(grid) + classes, 8 * width, bias=False)
        self.dense_norm = BatchNorm(8 * width)
        self.output = nn.Linear(8 * width + classes, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, C, H, W)`` and classes ``(N,)`` to logits ``(N,)``."""
        h = x
        for halving, norm in zip(self.halving, self.norms, strict=True):
            h = leaky_relu(norm(halving(with_classes(h, labels, self.classes))), 0.2)
        h = leaky_relu(self.dense_norm(self.dense(with_classes(h.flatten(1), labels, self.classes))), 0.2)
        logits: Tensor = self.output(with_classes(h, labels, self.classes))
        return logits.squeeze(1).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Dense(Configuration):
    """The paper's networks for MNIST: rectified units, and a critic of maxout units with dropout."""

    kind: ClassVar = "dense"

    widths: tuple[Width, Width, Width] = (200, 1000, 1200)
    """Units of the generator's layers: of z, of the class, of both."""
    critic: tuple[tuple[Width, Width], tuple[Width, Width], tuple[Width, Width]] = (
        (240, 5),
        (50, 5),
        (240, 4),
    )
    """Maxout units and their pieces in the critic's layers: of the example, of the class, of both."""
    dropout: Share = 0.5
    """Dropout of the critic."""
    generator_dropout: Share = 0.5
    """Dropout of the generator. In training it varies samples, and z need not: without it, as models sample,
    those of a class may then look the same."""

    def build(self, latents: int, spec: Spec) -> tuple[nn.Module, nn.Module]:
        """Generator and critic."""
        generator = DenseGenerator(latents, self.widths, self.generator_dropout, spec)
        return generator, DenseCritic(self.critic, self.dropout, spec)


@dataclass(frozen=True, kw_only=True)
class Convolutional(Configuration):
    """The convolutional form of the DCGAN authors' code for MNIST: the class at every layer."""

    kind: ClassVar = "convolutional"

    width: Width = 64
    """Channels of each map; an eighth of the units of the dense layers."""
    scales: Depth = 2
    """Times that the sides of a map double in the generator, and halve in the critic."""

    def build(self, latents: int, spec: Spec) -> tuple[nn.Module, nn.Module]:
        """Generator and critic."""
        check_images(spec, self.scales)
        generator = ConvolutionalGenerator(latents, self.width, self.scales, spec)
        return generator, ConvolutionalCritic(self.width, self.scales, spec)


class ConditionalGAN(Adversarial):
    """Generator and critic are both given the class: p(x | y), and D(x | y) (equation 2).

    See ``Adversarial`` for shapes.

    >>> model = ConditionalGAN(ConditionalGAN.Config.tiny(), Spec(shape=(1, 4, 4), classes=3)).eval()
    >>> model.sample(2, torch.tensor([0, 2])).shape
    torch.Size([2, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Adversarial.Config):
        """Options of the conditional GAN."""

        noise: Noise = "uniform-positive"
        """Distribution of each latent: normal, or uniform in [-1, 1], in [0, 1], or with variance 1."""
        architecture: Dense | Convolutional = field(default_factory=Dense)
        """Generator and critic."""

        @classmethod
        def tiny(cls) -> "ConditionalGAN.Config":
            """Small enough for a test."""
            return cls(latents=4, architecture=Dense(widths=(8, 8, 16), critic=((8, 2), (4, 2), (8, 2))))

    needs_classes: ClassVar[bool] = True
    choices: ClassVar = {"architecture": (Dense(), Convolutional())}

    recipes: ClassVar = {
        "small": Recipe(
            source="the convolutional form, for two CPU cores",
            model=Config(architecture=Convolutional()),
            stages={
                "training": Optimization(
                    steps=10_000, batch_size=64, ema=20_000,
                    phases=both(learning_rate=2e-4, betas=(0.5, 0.999)),
                )
            },
        ),
        "dense": Recipe(
            source="the paper's networks, without the generator's dropout and with latents of variance 1; "
            "Adam in place of its momentum, for two CPU cores",
            model=Config(noise="uniform-of-variance-1", architecture=Dense(generator_dropout=0.0)),
            stages={
                "training": Optimization(
                    steps=20_000, batch_size=100, ema=20_000,
                    phases=both(
                        learning_rate=5e-4, betas=(0.5, 0.999), schedule="linear", decay_from=0.5
                    ),
                )
            },
        ),
        "mnist": Recipe(
            source="Mirza & Osindero 2014, section 4.1: SGD, .1, divided by 1.00004 at each step down to "
            "1e-6; a constant momentum of .5, which they raise to .7; steps are ours",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=300_000, batch_size=100,
                    phases=both(
                        optimizer="sgd", learning_rate=0.1, momentum=0.5, schedule="exponential",
                        decay=1 / 1.00004, decay_to=1e-6,
                    ),
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.generator, self.critic = config.architecture.build(config.latents, spec)
        self.check_game()

    @property
    def initial_examples(self) -> int | None:
        """See ``Adversarial.initial_examples``."""
        return MEANT if isinstance(self.generator, DenseGenerator) else None

    def start(self, batch: Batch) -> None:
        """See ``Adversarial.start``: dense networks begin as those of ``GAN``."""
        if isinstance(self.generator, DenseGenerator):
            self.generator.output.start(self.real(batch.x))

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``."""
        return self.spec.classes
