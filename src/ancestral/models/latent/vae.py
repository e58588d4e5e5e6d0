"""Variational autoencoder (Kingma & Welling, Auto-Encoding Variational Bayes, 2013), https://arxiv.org/abs/1312.6114."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from ancestral.batch import Batch
from ancestral.capabilities import ContinuousLatents, Reconstructs
from ancestral.configuration import Blocks, Configuration, Natural, NonNegative, Range, Width
from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import IndependentKind, Likelihood
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model
from ancestral.nn.convolutional import Decoder, Encoder, check_stride
from ancestral.nn.normalization import BatchNorm
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import PLAIN, Sampling, single
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress
from ancestral.units import bits_per_dim


@dataclass(frozen=True, kw_only=True)
class MLP(Configuration):
    """One hidden layer each way, as in the paper."""

    kind: ClassVar = "mlp"

    hidden: Width = 512
    """Hidden units of each network."""

    def build(self, spec: Spec, latents: int, likelihood: Likelihood) -> tuple[nn.Module, nn.Module]:
        """Encoder to the parameters of q(z|x), decoder to those of p(x|z)."""
        grid = spec.shape[1:]
        encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(spec.dims, self.hidden), nn.Tanh(), nn.Linear(self.hidden, 2 * latents)
        )
        output = nn.Linear(self.hidden, likelihood.channels * math.prod(grid))
        unflatten = nn.Unflatten(1, (likelihood.channels, *grid))
        return encoder, nn.Sequential(nn.Linear(latents, self.hidden), nn.Tanh(), output, unflatten)


@dataclass(frozen=True, kw_only=True)
class Convolutional(Configuration):
    """Strided convolutions with residual blocks."""

    kind: ClassVar = "convolutional"

    width: Annotated[int, Range(least=2, most=2**20)] = 96
    """Channels at the coarsest resolution."""
    stride: Width = 4
    """Pixels that one position of the coarsest resolution covers, each way."""
    blocks: Blocks = 1
    """Residual blocks at the coarsest resolution of each network."""
    fine_blocks: Blocks = 0
    """Residual blocks at each finer resolution of the decoder."""
    batch_norm: bool = True
    """Batch normalization in both networks: several times fewer steps to the same bound."""

    def build(self, spec: Spec, latents: int, likelihood: Likelihood) -> tuple[nn.Module, nn.Module]:
        """Encoder to the parameters of q(z|x), decoder to those of p(x|z)."""
        if len(spec.shape) != 3:
            problem = f"expected images (C, H, W) for the convolutional architecture, got {spec.shape}"
            raise UserError(problem, "choose --model.architecture mlp")
        check_stride(self.stride, spec.shape[1:])
        grid, width = [size // self.stride for size in spec.shape[1:]], self.width
        sizes: dict[str, Any] = {
            "width": width,
            "stride": self.stride,
            "blocks": self.blocks,
            "residual_width": width // 2,
            "normalize": self.batch_norm,
        }
        norm = [BatchNorm(width)] if self.batch_norm else []
        features = [Encoder(spec.shape[0], width, **sizes), *norm, nn.ReLU(), nn.Flatten()]
        encoder = nn.Sequential(*features, nn.Linear(width * math.prod(grid), 2 * latents))
        decoder = Decoder(width, likelihood.channels, fine_blocks=self.fine_blocks, **sizes)
        likelihood.initialize(decoder.output)
        norm = [BatchNorm(width)] if self.batch_norm else []
        first = [
            nn.Linear(latents, width * math.prod(grid)),
            nn.Unflatten(1, (width, *grid)),
            *norm,
            nn.ReLU(),
        ]
        return encoder, nn.Sequential(*first, decoder)


class VAE(ContinuousLatents, Reconstructs):
    r"""Latent variable model with a Gaussian encoder.

    :math:`p(x) = \int p(x \mid z)\, N(z; 0, I)\, dz`, and the encoder is :math:`q(z \mid x)`.

    Shapes: x ``(N, *spec.shape)`` integers, z ``(N, latents)``. Likelihoods are lower bounds, in nats for
    each example.

    >>> model = VAE(VAE.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> x = model.sample(3, temperature=0.8)
    >>> x.shape, model.embed(x).shape, model.log_likelihood(Batch(x), k=5).shape
    (torch.Size([3, 1, 4, 4]), torch.Size([3, 2]), torch.Size([3]))
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of the variational autoencoder."""

        architecture: MLP | Convolutional = field(default_factory=Convolutional)
        """Encoder and decoder."""
        latents: Width = 64
        """Dimensions of z."""
        likelihood: IndependentKind = "logistic-mixture"
        """Distribution of a value given z."""
        components: Width = 5
        """Components of the logistic mixture."""
        beta: NonNegative = 1.0
        """Weight of the rate in the loss; figures of likelihood never use it."""
        rate_warmup: Natural = 0
        """Steps over which the weight of the rate grows from 0 to beta, lest latents be given up early."""
        free_bits: NonNegative = 0.0
        """Nats of each latent dimension, averaged over the batch, that the loss does not charge for."""

        @classmethod
        def tiny(cls) -> "VAE.Config":
            """Small enough for a test."""
            return cls(architecture=Convolutional(width=8, stride=2), latents=2, components=2)

    choices: ClassVar = {"architecture": (Convolutional(), MLP())}
    recipes: ClassVar = {
        "small": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores (docs/figures.md)",
            model=Config(rate_warmup=8700),
            stages={"training": Optimization(steps=14_500, batch_size=32, learning_rate=2e-3)},
        ),
        "mnist": Recipe(
            source="Kingma & Welling 2013, section 5: hidden 500, minibatch 100, Adagrad; "
            "binarize with --images.levels 2",
            model=Config(architecture=MLP(hidden=500), latents=20, likelihood="bernoulli"),
            stages={
                "training": Optimization(
                    steps=100_000,
                    batch_size=100,
                    optimizer="adagrad",
                    learning_rate=0.01,
                    schedule="constant",
                    warmup=0,
                    gradient_clip=None,
                )
            },
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        self.likelihood_of = Likelihood(config.likelihood, spec, config.components)
        self.encoder, self.decoder = config.architecture.build(spec, config.latents, self.likelihood_of)

    @property
    def prior(self) -> Independent[Normal]:
        """p(z), a standard normal of event shape ``(latents,)``."""
        zeros = torch.zeros(self.config.latents, device=self.device, dtype=self.dtype)
        return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)

    def posterior(self, x: Tensor) -> Independent[Normal]:
        """q(z|x), a diagonal normal of batch shape ``(N,)``."""
        mean, log_std = self.encoder(self.scale(x)).to(self.dtype).chunk(2, dim=1)
        # exp(-7) is far below any posterior width that pays; the bounds keep an early step from overflowing.
        return Independent(
            Normal(mean, log_std.clamp(-7, 7).exp(), validate_args=False), 1, validate_args=False
        )

    def observation(self, z: Tensor) -> Discrete:
        """p(x|z) over integers, batch shape ``(N, *spec.shape)``."""
        return self.likelihood_of(self.decoder(z))

    def distortion(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x|z), ``(N,)`` nats."""
        return -self.observation(z).log_prob(x).flatten(1).sum(1)

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Negative ELBO (equations 3 and 10 of the paper).

        The rate is weighted by beta, warmed up, and relieved of free bits.

        The warm-up is that of Sønderby et al., 2016 (https://arxiv.org/abs/1602.02282), section 2.2.
        Validation has none.
        """
        q = self.posterior(batch.x)
        distortion = self.distortion(batch.x, q.rsample()).mean()
        rates = kl_divergence(q.base_dist, self.prior.base_dist).mean(0)  # (latents,), analytic
        rate = rates.sum()
        charged = rates.clamp(min=self.config.free_bits).sum() if self.config.free_bits else rate
        bound = bits_per_dim((distortion + rate).detach(), self.spec.dims)
        terms = {"bits_per_dim": bound, "distortion": distortion.detach(), "rate": rate.detach()}
        # In bits/dim the loss, and with it a good learning rate and clip, is of one scale for all shapes.
        weight: float | Tensor = self.config.beta
        if self.training and self.config.rate_warmup:
            weight = weight * progress.ramp(self.config.rate_warmup)
        return Loss(bits_per_dim(distortion + weight * charged, self.spec.dims), terms)

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``."""
        return "bound"

    @property
    def importance_weighted(self) -> bool:
        """See ``Model.importance_weighted``."""
        return True

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """For k = 1 the ELBO, E_q log p(x|z) - KL(q(z|x) || p(z)), with one z and the analytic KL, ``(N,)``.

        For k > 1, log 1/k sum_i p(x, z_i) / q(z_i|x) (Burda et al., 2015, https://arxiv.org/abs/1509.00519,
        equation 8).
        """
        self.check_importance_samples(k)
        q = self.posterior(batch.x)
        if k == 1:
            return -self.distortion(batch.x, q.rsample()) - kl_divergence(q, self.prior)
        log_weights = []
        for _ in range(k):
            z = q.rsample()
            log_weights.append(self.prior.log_prob(z) - q.log_prob(z) - self.distortion(batch.x, z))
        return torch.stack(log_weights).logsumexp(0) - math.log(k)

    def draw(
        self,
        n: int,
        labels: Tensor | None,
        contexts: tuple[Tensor, ...],
        options: Sampling,
        *,
        generator: Generator | None,
        progress: Callable[[float], None],
    ) -> Tensor:
        """See ``Model.draw``: z from the prior, then the mean of p(x|z).

        The temperature scales the standard deviation of z.
        """
        return self.decode(self.draw_latents(n, options, generator))

    def draw_latents(self, n: int, options: Sampling = PLAIN, generator: Generator | None = None) -> Tensor:
        """See ``Decodes.draw_latents``."""
        z = torch.randn(n, self.config.latents, device=self.device, dtype=self.dtype, generator=generator)
        return z * single(options.temperature)

    @torch.no_grad()
    def embed(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean of q(z|x), ``(N, latents)``. Raises UserError for examples of another shape or range."""
        self.spec.check(x)
        return self.posterior(x).mean

    @torch.no_grad()
    def decode(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """The mean of p(x|z), rounded to integers. Raises UserError for z of another shape."""
        if z.dim() != 2 or z.shape[1] != self.config.latents:
            raise UserError(
                f"expected latents (N, {self.config.latents}), got {tuple(z.shape)}", "give what embed gives"
            )
        return self.observation(z).mean.round().to(self.spec.dtype)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x|z) at the mean of q(z|x), rounded to integers."""
        return self.decode(self.embed(x))
