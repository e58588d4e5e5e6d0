"""Improved GAN (Salimans et al., Improved Techniques for Training GANs, 2016), https://arxiv.org/abs/1606.03498."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrizations import weight_norm

from ancestral.batch import Batch
from ancestral.capabilities import Classifies
from ancestral.configuration import Depth, NonNegative, Range, Share, Width
from ancestral.errors import UserError
from ancestral.models.adversarial.base import Adversarial, Noise, both, noise, output_of, placed
from ancestral.models.adversarial.dcgan import check_images
from ancestral.nn.adversarial import smoothed
from ancestral.nn.historical import HistoricalAverage
from ancestral.nn.minibatch import MinibatchDiscrimination
from ancestral.nn.normalization import BatchNorm, gathered_rows, mean_over_processes
from ancestral.nn.virtual_norm import VirtualBatchNorm
from ancestral.nn.weight_normalization import start_from_data
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress

_FIRST = 500
"""Examples, at most, that the critic's weight normalization starts from, as in the authors' code."""


class Generator(nn.Module):
    """z to a small map, then transposed convolutions of 5x5 that double its sides.

    ``reference`` are fixed latents, if any, that pass with each batch and normalize it virtually.
    """

    reference: Tensor

    def __init__(
        self, latents: int, width: int, scales: int, reference: Tensor, spec: Spec, *, remembers: bool
    ) -> None:
        super().__init__()
        grid = [side // 2**scales for side in spec.shape[1:]]
        widths = [width * 2**i for i in reversed(range(scales))]
        self.register_buffer("reference", reference)
        units = widths[0] * grid[0] * grid[1]
        self.first, self.first_norm = nn.Linear(latents, units, bias=False), _norm(units, len(reference))
        self.map = nn.Unflatten(1, (widths[0], *grid))
        self.norms = nn.ModuleList(_norm(w, len(reference)) for w in widths[1:])
        doubling = [nn.ConvTranspose2d(a, b, 5, 2, 2, 1, bias=False) for a, b in pairwise(widths)]
        last = nn.ConvTranspose2d(widths[-1], spec.shape[0], 5, 2, 2, 1)
        layers: tuple[nn.Linear | nn.ConvTranspose2d, ...] = (self.first, *doubling, last)
        for layer in layers:
            nn.init.normal_(layer.weight, 0.0, 0.05)
        self.doubling = nn.ModuleList(doubling)
        self.last = weight_norm(last, dim=1)  # the outputs, of a transposed convolution
        self.output = output_of(spec)
        self.history = HistoricalAverage(self) if remembers else None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """``(N, latents)`` to ``(N, C, H, W)``."""
        h = self.first(torch.cat([self.reference.to(z.dtype), z]))
        h = self.map(self.first_norm(h).relu())  # unit by unit: each then varies with z
        for doubling, norm in zip(self.doubling, self.norms, strict=True):
            h = norm(doubling(h)).relu()
        x: Tensor = self.output(self.last(h[len(self.reference) :]).to(z.dtype))
        return x


def _norm(channels: int, reference: int) -> nn.Module:
    """Virtual with a reference batch; else of batches, without a gain, as in the authors' code."""
    if reference:
        return VirtualBatchNorm(channels, reference)
    norm = BatchNorm(channels)
    norm.weight.requires_grad_(False)
    return norm


class Critic(nn.Module):
    """Convolutions with weight normalization and dropout to features, then a logit for each class.

    An example is real with probability Z / (Z + 1), Z the sum of e^logit over the classes (section 5).
    ``noises`` are the deviation of the input's noise, the input's dropout and that of the maps.
    """

    def __init__(
        self, width: int, scales: int, noises: tuple[float, float, float], kernels: int, spec: Spec,
        *, remembers: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.input_noise, input_dropout, dropout = noises
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        inputs, grid = spec.shape[0], min(spec.shape[1:]) // 2**scales
        for i in range(scales):
            outputs = width * min(i + 1, 2)
            for stride, before in ((1, inputs), (1, outputs), (2, outputs)):
                layers += [_convolution(before, outputs, 3, stride), nn.LeakyReLU(0.2)]
            layers.append(nn.Dropout(dropout))
            inputs = outputs
        padding = 0 if grid >= 3 else 1
        layers += [_convolution(inputs, inputs, 3, 1, padding), nn.LeakyReLU(0.2)]
        for _ in range(2):
            layers += [_convolution(inputs, inputs, 1), nn.LeakyReLU(0.2)]
        self.trunk = nn.Sequential(*layers)
        self.minibatch = MinibatchDiscrimination(inputs, kernels) if kernels else None
        head = nn.Linear(inputs + kernels, max(1, spec.classes))
        nn.init.normal_(head.weight, 0.0, 0.05)
        self.head = weight_norm(head)
        self.history = HistoricalAverage(self) if remembers else None

    def features(self, x: Tensor) -> Tensor:
        """Means over the places of the last maps, ``(N, D)``."""
        if self.training and self.input_noise:
            x = x + self.input_noise * torch.randn_like(x)
        h: Tensor = self.trunk(x)
        return h.mean((2, 3)).to(x.dtype)

    def logits(self, features: Tensor) -> Tensor:
        """Of features, ``(N, classes)``."""
        if self.minibatch is not None:
            features = torch.cat([features, self.minibatch(features)], 1)
        found: Tensor = self.head(features)
        return found

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images ``(N, C, H, W)`` to the logits of being real, ``(N,)``: log Z."""
        return self.logits(self.features(x)).logsumexp(1)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None
) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding)
    nn.init.normal_(layer.weight, 0.0, 0.05)
    normalized = weight_norm(layer)
    # Only the last layers learn their gains, as in the authors' code: the game may not stretch the features.
    normalized.get_parameter("parametrizations.weight.original0").requires_grad_(False)
    return normalized


class ImprovedGAN(Adversarial, Classifies):
    """Techniques that make a GAN train: each is an option; and semi-supervised learning by few labels.

    With ``labeled``, the critic learns the classes of so many examples, which are drawn once and saved with
    the model, and that all others are real (section 5): it is a classifier, whose accuracy ``evaluate``
    measures. With ``feature_matching`` the generator's samples are to have the mean features of real examples
    (section 3.1: the squared distance; the authors' code for natural images takes absolute differences).
    The critic's weight normalization starts from data, the generator's last layer does not.

    See ``Adversarial`` for shapes.

    >>> model = ImprovedGAN(ImprovedGAN.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> model.sample(3).shape
    torch.Size([3, 1, 4, 4])
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Adversarial.Config):
        """Options of the improved GAN."""

        noise: Noise = "uniform-positive"
        """Distribution of each latent: normal, or uniform in [-1, 1], in [0, 1], or with variance 1."""
        width: Width = 128
        """Channels of the generator's last map, twice as many at each coarser one."""
        critic_width: Width = 96
        """Channels of the critic's first maps; later ones have twice as many."""
        scales: Depth = 3
        """Times that the sides of a map double in the generator."""
        critic_scales: Depth = 2
        """Times that they halve in the critic."""
        input_dropout: Share = 0.2
        """Dropout of the critic's input."""
        input_noise: NonNegative = 0.0
        """Deviation of normal noise added to the critic's input, as the authors do with digits."""
        dropout: Share = 0.5
        """Dropout of the critic's maps where they have halved."""
        feature_matching: bool = False
        """Let samples match the mean features of real examples, in place of the game's loss."""
        kernels: Annotated[int, Range(least=0, most=2**16)] = 100
        """Of minibatch discrimination; 0 for none."""
        reference: Annotated[int, Range(least=0, most=2**16)] = 0
        """Examples of the batch that normalizes the generator virtually; 0 for batch normalization."""
        real_target: Annotated[float, Range(above=0, most=1)] = 0.9
        """What the critic is to say of real examples (one-sided label smoothing); 1 for none."""
        historical: NonNegative = 0.0
        """Weight of historical averaging, of both networks."""
        labeled: Annotated[int, Range(least=0)] = 0
        """Labels that the critic learns, as many of each class, where the data have classes; 0 for none."""

        @classmethod
        def tiny(cls) -> "ImprovedGAN.Config":
            """Small enough for a test."""
            return cls(
                latents=4, width=4, critic_width=4, scales=1, critic_scales=1, kernels=3, reference=5,
                historical=0.1,
            )  # fmt: skip

    recipes: ClassVar = {
        "small": Recipe(
            source="minibatch discrimination and label smoothing, for two CPU cores",
            model=Config(width=32, critic_width=32, scales=2, kernels=32),
            stages={
                "training": Optimization(
                    steps=8000, batch_size=64, ema=20_000,
                    phases=both(learning_rate=3e-4, betas=(0.5, 0.999)),
                )
            },
        ),
        "semi-supervised": Recipe(
            source="feature matching with 1,000 labels, for two CPU cores",
            model=Config(
                width=32, critic_width=32, scales=2, input_dropout=0.0, input_noise=0.2, kernels=0,
                real_target=1.0, feature_matching=True, labeled=1000,
            ),
            stages={
                "training": Optimization(
                    steps=6000, batch_size=100, ema=20_000,
                    phases=both(
                        learning_rate=1e-3, betas=(0.5, 0.999), schedule="linear", decay_from=0.5
                    ),
                )
            },
        ),
        "cifar10": Recipe(
            source="the authors' code for CIFAR-10 with 4,000 labels: Adam, 3e-4, beta1 .5, batch 100, 1200 "
            "epochs, linearly to 0 in the last third",
            model=Config(
                kernels=0, real_target=1.0, feature_matching=True, labeled=4000, width=128, critic_width=96
            ),
            stages={
                "training": Optimization(
                    steps=600_000, batch_size=100, ema=0.9999,
                    phases=both(
                        learning_rate=3e-4, betas=(0.5, 0.999), schedule="linear", decay_from=2 / 3
                    ),
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_images(spec, max(config.scales, config.critic_scales))
        classes, learns = spec.classes, config.labeled > 0
        if learns and (classes < 2 or config.labeled % classes):
            problem = f"expected labels that the {classes or 'missing'} classes divide, got {config.labeled}"
            raise UserError(problem, "give data with classes, and as many labels of each")
        if learns and config.kernels:
            problem = f"expected a classifier that takes examples one by one, got {config.kernels} kernels"
            raise UserError(problem, "choose --model.kernels 0, or --model.labeled 0")
        if (learns or config.real_target < 1) and config.loss not in ("minimax", "non-saturating"):
            problem = f"expected a cross-entropy for labels and their smoothing, got the loss {config.loss}"
            raise UserError(problem, "choose non-saturating, or --model.real-target 1 and --model.labeled 0")
        remembers, latents = config.historical > 0, config.latents
        kind = torch.get_default_dtype()
        reference = noise(config.noise, config.reference, latents, device=torch.device("cpu"), dtype=kind)
        reference = placed(config.noise, reference)
        self.generator = Generator(latents, config.width, config.scales, reference, spec, remembers=remembers)
        noises = (config.input_noise, config.input_dropout, config.dropout)
        sizes = config.critic_width, config.critic_scales, noises, config.kernels
        self.critic = Critic(*sizes, spec, remembers=remembers)
        self.check_game()
        if config.labeled:
            self.critic.register_buffer(
                "examples", torch.zeros(config.labeled, *spec.shape, dtype=spec.dtype)
            )
            self.critic.register_buffer("labels", torch.zeros(config.labeled, dtype=torch.int64))

    @property
    def initial_examples(self) -> int | None:
        """Examples among which those with labels are found."""
        # Where classes are even, four times what is wanted of each, and a hundred at least.
        return max(4 * self.config.labeled, 100 * self.spec.classes) if self.config.labeled else None

    def start(self, batch: Batch) -> None:
        """Set the critic's gains, and draw the examples whose labels it learns, as many of each class."""
        critic, x = self.critic, batch.x
        assert isinstance(critic, Critic)
        everyone, place = gathered_rows(x if x.is_floating_point() else x.int())
        # As many in each process, and together those that one process has.
        share = len(everyone[:_FIRST]) * len(x) // len(everyone)
        first = self.real(everyone[place // len(x) * share :][:share])
        start_from_data(critic, lambda: critic(first), {critic.head})
        if not self.config.labeled:
            return
        assert batch.labels is not None
        labels = gathered_rows(batch.labels.int())[0]
        each = self.config.labeled // self.spec.classes
        found = [(labels == c).nonzero().flatten()[:each] for c in range(self.spec.classes)]
        if short := [c for c, rows in enumerate(found) if len(rows) < each]:
            problem = (
                f"expected {each} labeled examples of class {short[0]} among {len(everyone):,}, got fewer"
            )
            raise UserError(problem, "lower --model.labeled")
        chosen = torch.cat(found)
        self.critic.get_buffer("examples").copy_(everyone[chosen])
        self.critic.get_buffer("labels").copy_(labels[chosen])

    def critic_loss(self, r: Tensor, f: Tensor) -> Tensor:
        """See ``Adversarial.critic_loss``; with one-sided label smoothing."""
        total = (
            smoothed(r, f, self.config.real_target)
            if self.config.real_target < 1
            else super().critic_loss(r, f)
        )
        # The paper's unsupervised loss is half of a cross-entropy.
        return 0.5 * total if self.config.labeled else total

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """See ``Adversarial.loss``; of few labels the critic's cross-entropy is a term."""
        critic, config = self.critic, self.config
        assert isinstance(critic, Critic)
        if phase == "generator" and config.feature_matching:
            fake = self.generate(self._latents(len(batch.x)), None)
            with torch.no_grad():
                wanted = critic.features(self.seen(self.real(batch.x))).mean(0)
            apart = critic.features(self.seen(fake)).mean(0) - wanted
            # One process validates alone.
            apart = mean_over_processes(apart) if self.training else apart
            loss = Loss(apart.square().sum())
        else:
            loss = super().loss(batch, phase, progress)
        total, terms = loss.total, dict(loss.terms)
        if phase == "critic" and config.labeled:
            chosen = torch.randint(config.labeled, (len(batch.x),), device=self.device)
            labels = critic.get_buffer("labels")[chosen]
            logits = critic.logits(critic.features(self.real(critic.get_buffer("examples")[chosen])))
            cost = cross_entropy(logits, labels)
            total = total + cost
            terms |= {"labels": cost.detach()}
        if config.historical and phase != "penalty":
            history = (self.critic if phase == "critic" else self.generator).get_submodule("history")
            total = total + config.historical * history(progress.step)
        return Loss(total, terms)

    def class_logits(self, x: Tensor) -> Tensor:
        """See ``Classifies.class_logits``."""
        critic = self.critic
        assert isinstance(critic, Critic)
        logits: Tensor = critic.logits(critic.features(self.spec.scale(x, self.dtype)))
        return logits

    @property
    def classifies(self) -> bool:
        """Whether it has learned labels."""
        return self.config.labeled > 0
