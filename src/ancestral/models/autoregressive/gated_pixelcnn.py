"""Gated PixelCNN (van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016), https://arxiv.org/abs/1606.05328."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import pad

from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import Likelihood
from ancestral.errors import UserError, check_at_least
from ancestral.model import Batch, ExactLikelihood, Loss, Model
from ancestral.nn.masked import HorizontalConv2d, VerticalConv2d, channel_groups
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec
from ancestral.units import bits_per_dim


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2): :math:`y = \\tanh(W_f * x + V_f h) \\odot \\sigma(W_g * x + V_g h)` (equation 4).

    The vertical stack sees the rows above, the horizontal one the row so far and, through a 1x1 convolution, the vertical one. So the
    receptive field has no blind spot.
    """

    def __init__(self, width: int, kernel: int, groups: int, classes: int, dropout: float) -> None:
        super().__init__()
        group = channel_groups(width, groups)
        gates = torch.cat([group, group])
        self.vertical = VerticalConv2d(width, 2 * width, kernel)
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = HorizontalConv2d(group, gates, kernel // 2)
        self.residual = HorizontalConv2d(group, group, 0)
        self.condition = nn.Embedding(classes, 4 * width) if classes else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, v: Tensor, h: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of the vertical and the horizontal stack, ``(N, width, H, W)`` each, to the next ones."""
        v = self.vertical(v)
        h_gates = self.horizontal(self.dropout(h)) + self.link(v)
        if self.condition is not None:
            v_class, h_class = self.condition(labels)[:, :, None, None].chunk(2, dim=1)
            v, h_gates = v + v_class, h_gates + h_class
        return _gate(v), h + self.residual(_gate(h_gates))


def _gate(x: Tensor) -> Tensor:
    features, gates = x.chunk(2, dim=1)
    return features.tanh() * gates.sigmoid()


class GatedPixelCNN(Model, ExactLikelihood):
    r"""Factorised model :math:`p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)` in raster order, channels in order within a position.

    Shapes: x ``(N, C, H, W)`` integers, of images or of maps of codes. Likelihood figures are exact, in nats for each example. A
    class-conditional model without labels is the even mixture of its classes.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of the Gated PixelCNN."""

        width: int = 64
        """Channels of each stack."""
        layers: int = 8
        """Gated layers."""
        kernel: int = 3
        """Size of the (masked) kernel, odd."""
        head: int = 128
        """Channels of the 1x1 convolution before the output."""
        likelihood: Literal["categorical", "logistic-mixture"] = "categorical"
        """Distribution of a value given the past; code maps take categorical."""
        components: int = 10
        """Components of the logistic mixture."""
        class_conditional: bool = True
        """Condition on the class where the data have classes."""
        dropout: float = 0.0
        """Share of the horizontal stack's features dropped in training."""

        def __post_init__(self) -> None:
            check_at_least(1, width=self.width, layers=self.layers, head=self.head)
            if not 0 <= self.dropout < 1:
                raise UserError(f"expected a dropout in [0, 1), got {self.dropout}", "try 0.1")

        @classmethod
        def tiny(cls) -> "GatedPixelCNN.Config":
            """Small enough for a test."""
            return cls(width=8, layers=2, head=8)

    recipes: ClassVar = {
        "small": Recipe(
            source="small enough for two CPU cores; not tuned yet",
            model=Config(width=32, layers=6, head=64, likelihood="logistic-mixture"),
            stages={"training": Optimization(steps=5000, batch_size=32, learning_rate=1e-3)},
        ),
        "imagenet32": Recipe(
            source="van den Oord et al. 2016, section 3.2: 20 layers, 384 units, 5x5 kernels, batch 128",
            model=Config(width=384, layers=20, kernel=5, head=1024),
            stages={"training": Optimization(steps=200_000, batch_size=128, optimizer="rmsprop", learning_rate=1e-4, schedule="constant")},
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.shape) != 3:
            raise UserError(f"expected images or code maps (C, H, W), got shape {spec.shape}", "use wavenet for sequences")
        if config.kernel % 2 == 0 or config.kernel < 3:
            raise UserError(f"expected an odd kernel of at least 3, got {config.kernel}", "try 3 or 5")
        channels = spec.shape[0]
        if config.width < channels:
            raise UserError(f"expected a width of at least the {channels} channels of the data, got {config.width}", "raise the width")
        self.likelihood_of = Likelihood(config.likelihood, spec, config.components)
        classes = spec.classes if config.class_conditional else 0

        group = channel_groups(config.width, channels)
        if spec.ordered:
            self.embedding = None
            features = torch.arange(channels)
        else:  # codes have no scale: each gets a vector of its own
            self.embedding = nn.Embedding(channels * spec.discrete_levels, config.width // channels)
            features = torch.arange(channels).repeat_interleave(config.width // channels)
        self.first_vertical = VerticalConv2d(len(features), config.width, config.kernel)
        self.first_horizontal = HorizontalConv2d(features, group, config.kernel // 2, mask="A")
        self.layers = nn.ModuleList(
            GatedLayer(config.width, config.kernel, channels, classes, config.dropout) for _ in range(config.layers)
        )
        head = channel_groups(max(config.head, channels), channels)
        per_channel = self.likelihood_of.channels // channels
        output = HorizontalConv2d(head, torch.arange(channels).repeat_interleave(per_channel), 0)
        self.likelihood_of.initialize(output)
        self.head = nn.Sequential(nn.ReLU(), HorizontalConv2d(group, head, 0), nn.ReLU(), output)

    def conditionals(self, x: Tensor, labels: Tensor | None = None) -> Discrete:
        """p(x_i | x_<i, c) at every position at once, batch shape ``(N, C, H, W)``."""
        features = self._features(x)
        # The vertical stack starts one row up, so that it never sees its own row.
        v = self.first_vertical(pad(features, (0, 0, 1, 0))[:, :, :-1])
        h = self.first_horizontal(features)
        for layer in self.layers:
            v, h = layer(v, h, labels)
        return self.likelihood_of(self.head(h))

    def _features(self, x: Tensor) -> Tensor:
        if self.embedding is None:
            return self.scale(x)
        channel = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1)
        vectors = self.embedding(x.long() + channel * self.spec.discrete_levels)  # (N, C, H, W, E)
        return vectors.movedim(-1, 2).flatten(1, 2)

    @property
    def _classes(self) -> int:
        return self.spec.classes if self.config.class_conditional else 0

    def log_prob(self, batch: Batch) -> Tensor:
        """Log p(x|c), or without labels log of the mean of p(x|c) over the classes; ``(N,)`` nats."""
        if self._classes and batch.labels is None:
            by_class = [self.log_prob(Batch(batch.x, torch.full((len(batch),), c, device=batch.x.device))) for c in range(self._classes)]
            return torch.stack(by_class).logsumexp(0) - math.log(self._classes)
        return self.conditionals(batch.x, batch.labels).log_prob(batch.x).flatten(1).sum(1)

    def loss(self, batch: Batch, phase: str) -> Loss:
        """Negative log-likelihood, in bits/dim."""
        nats = -self.log_prob(batch).mean()
        loss = bits_per_dim(nats, self.spec.dims)
        return Loss(loss, {"bits_per_dim": loss.detach()})

    @torch.no_grad()
    def sample(self, n: int, labels: Tensor | None = None, *, temperature: float = 1.0, generator: Generator | None = None) -> Tensor:
        """See ``Model.sample``. One pass of the rows so far for each value."""
        if self._classes and labels is None:
            labels = torch.randint(self._classes, (n,), device=self.device, generator=generator)
        channels, height, width = self.spec.shape
        x = torch.zeros(n, *self.spec.shape, dtype=torch.int64, device=self.device)
        uniforms = torch.rand(x.shape, device=self.device, generator=generator)
        for row in range(height):
            for column in range(width):
                for channel in range(channels):
                    position = (slice(None), slice(channel, channel + 1), slice(row, row + 1), slice(column, column + 1))
                    conditional = self.conditionals(x[:, :, : row + 1], labels)[position]
                    x[position] = conditional.quantile(uniforms[position], temperature)
        return x.to(self.spec.dtype)
