"""GAN (Goodfellow et al., Generative Adversarial Nets, 2014), https://arxiv.org/abs/1406.2661."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.configuration import Share, Width
from ancestral.models.adversarial.base import Adversarial, Noise, both
from ancestral.nn.maxout import Maxout
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

RECTIFIED, MAXOUT = 0.05, 0.005
"""Ends of the uniform distribution of the first weights, of generator and critic."""
MEANT = 4096
"""Examples whose mean is that of all, nearly."""


def uniform(module: nn.Module, end: float) -> None:
    """Weights of linear layers in [-end, end] and biases of 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.uniform_(layer.weight, -end, end)
            nn.init.zeros_(layer.bias)


class Output(nn.Module):
    """The last layer of a dense generator: images are sigmoids, here of twice the range."""

    def __init__(self, width: int, spec: Spec) -> None:
        super().__init__()
        self.discrete = spec.levels is not None
        self.linear, self.shape = nn.Linear(width, spec.dims), nn.Unflatten(1, spec.shape)

    def forward(self, h: Tensor) -> Tensor:
        """``(N, width)`` to ``(N, *shape)``."""
        y = self.linear(h)
        x: Tensor = self.shape(2 * y.sigmoid() - 1 if self.discrete else y)
        return x

    @torch.no_grad()
    def start(self, real: Tensor) -> None:
        """Let images begin around the mean of real ones, as in the authors' code."""
        mean = real.flatten(1).mean(0)
        share = (0.5 * (mean + 1)).clamp(1e-2, 1 - 1e-2)
        self.linear.bias.copy_(share.logit() if self.discrete else mean)


class Generator(nn.Module):
    """Two layers of rectified units."""

    def __init__(self, latents: int, width: int, spec: Spec) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.output = Output(width, spec)
        uniform(self, RECTIFIED)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` to ``(N, *shape)``."""
        x: Tensor = self.output(self.hidden(z))
        return x


class Critic(nn.Module):
    """Two layers of maxout units, with dropout before each layer."""

    def __init__(self, width: int, pieces: int, input_dropout: float, dropout: float, spec: Spec) -> None:
        super().__init__()
        self.discrete = spec.levels is not None
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(input_dropout), Maxout(spec.dims, width, pieces),
            nn.Dropout(dropout), Maxout(width, width, pieces),
            nn.Dropout(dropout), nn.Linear(width, 1),
        )  # fmt: skip
        uniform(self, MAXOUT)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Examples ``(N, *shape)`` to logits ``(N,)``."""
        x = 0.5 * (x + 1) if self.discrete else x
        logits: Tensor = self.layers(x)
        return logits.squeeze(1)


class GAN(Adversarial):
    """Dense networks: a generator of rectified units, a critic of maxout units with dropout.

    The networks are those of the authors' code for MNIST (section 5). There both sides are updated at the
    same weights, and the critic's loss is halved; here the generator meets the critic after its update.

    See ``Adversarial`` for shapes.

    >>> model = GAN(GAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Adversarial.Config):
        """Options of the GAN."""

        noise: Noise = "uniform-of-variance-1"
        """Distribution of each latent: normal, or uniform in [-1, 1], in [0, 1], or with variance 1."""
        width: Width = 1200
        """Units of the generator's layers."""
        critic_width: Width = 240
        """Maxout units of the critic's layers."""
        pieces: Width = 5
        """Affine functions of each maxout unit."""
        input_dropout: Share = 0.2
        """Dropout of the critic's input."""
        dropout: Share = 0.5
        """Dropout of the critic's layers."""

        @classmethod
        def tiny(cls) -> "GAN.Config":
            """Small enough for a test."""
            return cls(latents=4, width=16, critic_width=8, pieces=2)

    recipes: ClassVar = {
        "small": Recipe(
            source="the paper's networks; Adam in place of its momentum, for two CPU cores",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=15_000, batch_size=100, ema=20_000,
                    phases=both(learning_rate=5e-4, betas=(0.5, 0.999), schedule="constant"),
                )
            },
        ),
        "mnist": Recipe(
            source="the authors' code: SGD, .1, divided by 1.000004 at each step down to 1e-6; a constant "
            "momentum of .5, which they raise to .7; steps are ours",
            model=Config(),
            stages={
                "training": Optimization(
                    steps=300_000, batch_size=100,
                    phases=both(
                        optimizer="sgd", learning_rate=0.1, momentum=0.5, schedule="exponential",
                        decay=1 / 1.000004, decay_to=1e-6,
                    ),
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.generator = Generator(config.latents, config.width, spec)
        dropouts = config.input_dropout, config.dropout
        self.critic = Critic(config.critic_width, config.pieces, *dropouts, spec)
        self.check_game()

    @property
    def initial_examples(self) -> int:
        """See ``Adversarial.initial_examples``."""
        return MEANT

    def start(self, batch: Batch) -> None:
        """See ``Adversarial.start``."""
        assert isinstance(self.generator, Generator)
        self.generator.output.start(self.real(batch.x))
