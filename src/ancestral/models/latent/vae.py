"""Variational autoencoder (Kingma & Welling, Auto-Encoding Variational Bayes, 2013), https://arxiv.org/abs/1312.6114."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import Likelihood, LikelihoodKind
from ancestral.errors import UserError, check_at_least
from ancestral.model import Batch, ContinuousLatents, Loss, LowerBound, Model
from ancestral.nn.convolutional import Decoder, Encoder, check_stride
from ancestral.nn.normalization import BatchNorm
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec
from ancestral.units import bits_per_dim


class VAE(Model, LowerBound, ContinuousLatents):
    r"""Latent variable model :math:`p(x) = \int p(x \mid z)\, N(z; 0, I)\, dz` with a Gaussian encoder :math:`q(z \mid x)`.

    Shapes: x ``(N, C, H, W)`` integers, z ``(N, latents)``. Likelihood figures are lower bounds, in nats for each example.
    """

    steps: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of the variational autoencoder."""

        architecture: Literal["mlp", "convolutional"] = "convolutional"
        """One hidden layer each way as in the paper, or strided convolutions."""
        latents: int = 64
        """Dimensions of z."""
        hidden: int = 512
        """Hidden units of each network (mlp)."""
        width: int = 96
        """Channels at the coarsest resolution (convolutional)."""
        stride: int = 4
        """Pixels that one position of the coarsest resolution covers, each way (convolutional)."""
        blocks: int = 1
        """Residual blocks at the coarsest resolution of each network (convolutional)."""
        fine_blocks: int = 0
        """Residual blocks at each finer resolution of the decoder (convolutional)."""
        batch_norm: bool = True
        """Batch normalization in both networks (convolutional): several times fewer steps to the same bound."""
        likelihood: LikelihoodKind = "logistic-mixture"
        """Distribution of a value given z."""
        components: int = 5
        """Components of the logistic mixture."""
        beta: float = 1.0
        """Weight of the rate in the loss; figures of likelihood never use it."""
        rate_warmup: int = 0
        """Steps over which the weight of the rate grows from 0 to beta, so that latents are not given up before they are of use."""
        free_bits: float = 0.0
        """Nats of each latent dimension, averaged over the batch, that the loss does not charge for."""

        def __post_init__(self) -> None:
            check_at_least(1, latents=self.latents, hidden=self.hidden)
            check_at_least(2, width=self.width)
            check_at_least(0, blocks=self.blocks, fine_blocks=self.fine_blocks, rate_warmup=self.rate_warmup)

        @classmethod
        def tiny(cls) -> "VAE.Config":
            """Small enough for a test."""
            return cls(latents=2, width=8, stride=2, blocks=1, components=2)

    recipes: ClassVar = {
        "small": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores (docs/figures.md)",
            model=Config(rate_warmup=8700),
            stages={"training": Optimization(steps=14_500, batch_size=32, learning_rate=2e-3)},
        ),
        "mnist": Recipe(
            source="Kingma & Welling 2013, section 5: hidden 500, minibatch 100, Adagrad; binarize with --images.levels 2",
            model=Config(architecture="mlp", latents=20, hidden=500, likelihood="bernoulli"),
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
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.likelihood_of = Likelihood(config.likelihood, spec, config.components)
        if config.architecture == "mlp":
            self._build_mlp(config, spec)
        else:
            self._build_convolutional(config, spec)

    def _build_mlp(self, config: Config, spec: Spec) -> None:
        grid = spec.shape[1:]
        self.encoder: nn.Module = nn.Sequential(
            nn.Flatten(),
            nn.Linear(spec.dims, config.hidden),
            nn.Tanh(),
            nn.Linear(config.hidden, 2 * config.latents),
        )
        output = nn.Linear(config.hidden, self.likelihood_of.channels * math.prod(grid))
        self.decoder: nn.Module = nn.Sequential(
            nn.Linear(config.latents, config.hidden),
            nn.Tanh(),
            output,
            nn.Unflatten(1, (self.likelihood_of.channels, *grid)),
        )

    def _build_convolutional(self, config: Config, spec: Spec) -> None:
        if len(spec.shape) != 3:
            raise UserError(
                f"expected images (C, H, W) for the convolutional architecture, got {spec.shape}",
                "choose --model.architecture mlp",
            )
        check_stride(config.stride, spec.shape[1:])
        grid = [size // config.stride for size in spec.shape[1:]]
        width = config.width
        sizes: dict[str, Any] = {
            "width": width, "stride": config.stride, "blocks": config.blocks, "residual_width": width // 2, "normalize": config.batch_norm,
        }  # fmt: skip
        norm = [BatchNorm(width)] if config.batch_norm else []
        self.encoder = nn.Sequential(
            Encoder(spec.shape[0], width, **sizes),
            *norm,
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(width * math.prod(grid), 2 * config.latents),
        )
        decoder = Decoder(width, self.likelihood_of.channels, fine_blocks=config.fine_blocks, **sizes)
        self.likelihood_of.initialize(decoder.output)
        norm = [BatchNorm(width)] if config.batch_norm else []
        self.decoder = nn.Sequential(
            nn.Linear(config.latents, width * math.prod(grid)),
            nn.Unflatten(1, (width, *grid)),
            *norm,
            nn.ReLU(),
            decoder,
        )

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

    def likelihood(self, z: Tensor) -> Discrete:
        """p(x|z) over integers, batch shape ``(N, *spec.shape)``."""
        return self.likelihood_of(self.decoder(z))

    def distortion(self, x: Tensor, z: Tensor) -> Tensor:
        """-log p(x|z), ``(N,)`` nats."""
        return -self.likelihood(z).log_prob(x).flatten(1).sum(1)

    def loss(self, batch: Batch, phase: str) -> Loss:
        """Negative ELBO (equations 3 and 10 of the paper) with the rate weighted by beta, warmed up, and relieved of free bits.

        The warm-up is that of Sønderby et al., 2016 (https://arxiv.org/abs/1602.02282), section 2.2.
        """
        q = self.posterior(batch.x)
        distortion = self.distortion(batch.x, q.rsample()).mean()
        rates = kl_divergence(q.base_dist, self.prior.base_dist).mean(0)  # (latents,), analytic
        rate = rates.sum()
        charged = rates.clamp(min=self.config.free_bits).sum() if self.config.free_bits else rate
        bound = bits_per_dim((distortion + rate).detach(), self.spec.dims)
        terms = {"bits_per_dim": bound, "distortion": distortion.detach(), "rate": rate.detach()}
        # In bits/dim the scale of the loss, and with it a good learning rate and clip, is the same for every shape.
        weight: float | Tensor = self.config.beta
        if self.training and self.config.rate_warmup:
            weight = weight * (self.steps / self.config.rate_warmup).clamp(max=1)
            self.steps += 1
        return Loss(bits_per_dim(distortion + weight * charged, self.spec.dims), terms)

    def elbo(self, batch: Batch) -> Tensor:
        """Log p(x) >= E_q log p(x|z) - KL(q(z|x) || p(z)), with one z and the analytic KL; ``(N,)`` nats."""
        q = self.posterior(batch.x)
        return -self.distortion(batch.x, q.rsample()) - kl_divergence(q, self.prior)

    def importance_bound(self, batch: Batch, k: int) -> Tensor:
        """Log 1/k sum_i p(x, z_i) / q(z_i|x) (Burda et al., 2015, https://arxiv.org/abs/1509.00519, equation 8); ``(N,)`` nats."""
        if k < 1:
            raise UserError(f"expected at least 1 importance sample, got {k}", "try 50")
        q = self.posterior(batch.x)
        log_weights = []
        for _ in range(k):
            z = q.rsample()
            log_weights.append(self.prior.log_prob(z) - q.log_prob(z) - self.distortion(batch.x, z))
        return torch.stack(log_weights).logsumexp(0) - math.log(k)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        labels: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """See ``Model.sample``: z from the prior, its standard deviation scaled by the temperature, then the mean of p(x|z)."""
        check_at_least(1, n=n)
        if labels is not None:
            self.check_labels(labels, n)
        if not 0 <= temperature < math.inf:
            raise UserError(
                f"expected a temperature of 0 or more, got {temperature}",
                "1 samples the model, 0 decodes the mean of p(z)",
            )
        return self.decode(
            torch.randn(n, self.config.latents, device=self.device, dtype=self.dtype, generator=generator)
            * temperature
        )

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """The mean of q(z|x), ``(N, latents)``. Raises UserError for examples of another shape or range."""
        self.spec.check(x)
        return self.posterior(x).mean

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z), rounded to integers. Raises UserError for z of another shape."""
        if z.dim() != 2 or z.shape[1] != self.config.latents:
            raise UserError(
                f"expected latents (N, {self.config.latents}), got {tuple(z.shape)}", "give what embed gives"
            )
        return self.likelihood(z).mean.round().to(self.spec.dtype)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x|z) at the mean of q(z|x), rounded to integers."""
        return self.decode(self.embed(x))
