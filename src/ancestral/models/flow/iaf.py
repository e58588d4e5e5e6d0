"""IAF (Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016).

https://arxiv.org/abs/1606.04934
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import elu, interpolate
from torch.nn.utils.parametrizations import weight_norm

from ancestral.batch import Batch
from ancestral.bijections.base import log_normal
from ancestral.bijections.shape import check_squeezable
from ancestral.capabilities import Reconstructs
from ancestral.configuration import Depth, NonNegative, Width
from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import IndependentKind, Likelihood
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model
from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.nn.convolutional import OutputConv2d
from ancestral.nn.normalization import mean_over_processes
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import Sampling, single
from ancestral.spec import Spec
from ancestral.stages import Loss, Progress
from ancestral.units import bits_per_dim


def _log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density of each value, in nats."""
    return log_normal((z - mean) * (-log_std).exp()) - log_std


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return weight_norm(nn.Conv2d(inputs, outputs, 3, padding=1))


class InverseAutoregressive(nn.Module):
    r"""One step of the flow: :math:`z' = (z - m(z, h)) / \sigma(z, h)`, m and sigma of the values before.

    Equations 10 and 11 turned round, as in the authors' code: raster order, maps in order within a position;
    two hidden layers of masked convolutions, of which the first is given the context h; m and log sigma are
    scaled by .1, so that the step begins near the identity.
    """

    def __init__(self, latents: int, width: int) -> None:
        super().__init__()
        own, hidden = torch.arange(latents), channel_groups(width, latents)
        self.first = RasterConv2d(own, hidden, up=1, left=1, right=1, mask="A")
        self.second = RasterConv2d(hidden, hidden, up=1, left=1, right=1)
        self.last = RasterConv2d(hidden, own.repeat(2), up=1, left=1, right=1)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The new z and log sigma, by which its log density grows, ``(N, latents, h, w)`` both."""
        h = elu(self.first(z) + context)
        mean, log_std = self.last(elu(self.second(h))).chunk(2, 1)
        log_std = 0.1 * log_std.to(z.dtype)
        return (z - 0.1 * mean.to(z.dtype)) * (-log_std).exp(), log_std


@dataclass(frozen=True)
class Inferred:
    """What the way up says of a layer's latents."""

    mean: Tensor
    log_std: Tensor
    context: Tensor


class Layer(nn.Module):
    """A layer of latent maps, in both directions (figure 3 of the paper, and its appendix).

    The way up is deterministic. On the way down the layer's prior comes from what is above, and its posterior
    from both. With ``coarser``, the layer above has half the resolution.
    """

    def __init__(self, width: int, latents: int, *, coarser: bool, top: bool) -> None:
        super().__init__()
        self.width, self.latents, self.coarser = width, latents, coarser
        self.up = _convolution(width, 2 * latents + (1 if top else 2) * width)
        out = nn.Conv2d(width, width, 3, padding=1, stride=2 if coarser else 1)
        self.up_out = None if top else weight_norm(out)
        self.down = _convolution(width, 4 * latents + 2 * width)
        self.down_out = _convolution(width + latents, width)
        self.flow = InverseAutoregressive(latents, width)

    def infer(self, h: Tensor) -> tuple[Tensor, Inferred]:
        """Features for the layer above, and what this layer will be told on the way down."""
        z, w = self.latents, self.width
        mean, log_std, context, *hidden = self.up(elu(h)).split(
            [z, z, w] + [w] * (self.up_out is not None), 1
        )
        inferred = Inferred(mean, log_std, context)
        if self.up_out is None:
            return h, inferred
        skip = h[:, :, ::2, ::2] if self.coarser else h
        return skip + 0.1 * self.up_out(elu(hidden[0])), inferred

    def generate(
        self, h: Tensor, inferred: Inferred | None, noise: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Features for the layer below, and of latents from the posterior log q - log p, ``(N, latents)``."""
        if self.coarser:
            h = interpolate(h, scale_factor=2, mode="nearest")
        z, w = self.latents, self.width
        p_mean, p_log_std, r_mean, r_log_std, context, hidden = self.down(elu(h)).split([z, z, z, z, w, w], 1)
        cost = None
        p_mean, p_log_std = p_mean.to(h.dtype), p_log_std.to(h.dtype).clamp(-7, 7)
        if inferred is None:
            values = p_mean + p_log_std.exp() * noise(p_mean)
        else:
            mean = (r_mean + inferred.mean).to(h.dtype)
            log_std = (r_log_std + inferred.log_std).to(h.dtype).clamp(-7, 7)
            first = mean + log_std.exp() * noise(mean)
            values, log_scale = self.flow(first, context + inferred.context)
            log_q = _log_normal(first, mean, log_std) + log_scale
            cost = (log_q - _log_normal(values, p_mean, p_log_std)).flatten(2).sum(2)
        return h + 0.1 * self.down_out(elu(torch.cat([values, hidden], 1))), cost


class IAF(Reconstructs):
    r"""A deep hierarchical VAE whose posteriors are inverse autoregressive flows.

    The ResNet VAE of section 4: :math:`p(x) = \int p(x \mid z) \prod_l p(z_l \mid z_{>l}) \, dz`. Layers
    stand in ``scales``: the first has half the image's resolution, each further one half of that. Inference
    is bidirectional: a posterior knows the image from the way up and the latents above from the way down.
    Log-scales are kept within 7 of 0, the masked convolutions have no weight normalization, and weights do
    not start from data. As a flow by itself, an IAF is a MAF the other way round: ``maf`` with ``inverse``.

    Shapes: x ``(N, C, H, W)`` integers. Likelihoods are lower bounds, in nats for each example.

    >>> model = IAF(IAF.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> x = model.sample(3, temperature=0.8)
    >>> x.shape, model.log_likelihood(Batch(x), k=5).shape
    (torch.Size([3, 1, 4, 4]), torch.Size([3]))
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of the ResNet VAE with IAF posteriors."""

        scales: Depth = 2
        """Resolutions of the latent maps, each half of the one before, from half the image's on."""
        layers: Depth = 2
        """Layers at each resolution."""
        width: Width = 160
        """Channels of the features."""
        latents: Width = 32
        """Latent maps of a layer."""
        likelihood: IndependentKind = "logistic-mixture"
        """Distribution of a value given the latents."""
        components: Width = 5
        """Components of the logistic mixture."""
        free_bits: NonNegative = 0.25
        """Nats of each latent map, averaged over the batch, that the loss does not charge for (appendix)."""

        @classmethod
        def tiny(cls) -> "IAF.Config":
            """Small enough for a test."""
            return cls(scales=1, layers=2, width=8, latents=2, components=2)

    recipes: ClassVar = {
        "small": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores",
            model=Config(width=64, latents=16, free_bits=0.1),
            stages={"training": Optimization(steps=10_000, batch_size=64, learning_rate=2e-3, ema=0.999)},
        ),
        "cifar10": Recipe(
            source="the authors' code: 20 layers of 16x16 maps, 160 channels, 32 latent maps, free bits .1, "
            "Adamax, 2e-3, EMA .999; steps are ours",
            model=Config(scales=1, layers=20, free_bits=0.1),
            stages={
                "training": Optimization(
                    steps=500_000, batch_size=32, optimizer="adamax", learning_rate=2e-3,
                    schedule="constant", warmup=0, ema=0.999,
                )
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.shape) != 3:
            problem = f"expected images (C, H, W), got shape {spec.shape}"
            raise UserError(problem, "for tables use maf, whose option inverse makes it an IAF")
        check_squeezable(spec.shape[1:], config.scales)
        self.likelihood_of = Likelihood(config.likelihood, spec, config.components)
        width = config.width
        self.first = weight_norm(nn.Conv2d(spec.shape[0], width, 5, stride=2, padding=2))
        layers = []
        for i in range(config.scales * config.layers):
            last_of_scale, top = (i + 1) % config.layers == 0, i + 1 == config.scales * config.layers
            layers.append(Layer(width, config.latents, coarser=last_of_scale and not top, top=top))
        self.layers = nn.ModuleList(layers)  # from fine to coarse
        self.top = nn.Parameter(torch.zeros(width))
        self.last = nn.Sequential(
            nn.ELU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.ELU(),
            OutputConv2d(width, self.likelihood_of.channels, 1),
        )
        output = self.last[-1]
        assert isinstance(output, nn.Module)
        self.likelihood_of.initialize(output)

    def infer(self, x: Tensor) -> list[Inferred]:
        """The way up: what is said of each layer's latents, from fine to coarse."""
        h, found = self.first(self.scale(x)), []
        for layer in self.layers:
            assert isinstance(layer, Layer)
            h, inferred = layer.infer(h)
            found.append(inferred)
        return found

    def generate(
        self, n: int, inferred: list[Inferred] | None, noise: Callable[[Tensor], Tensor] = torch.randn_like
    ) -> tuple[Discrete, list[Tensor]]:
        """The way down: p(x|z), and of each layer log q - log p of its maps, ``(n, latents)``.

        Without what was inferred, latents are the prior's.
        """
        size = 2**self.config.scales
        grid = [side // size for side in self.spec.shape[1:]]
        h = self.top.view(1, -1, 1, 1).expand(n, -1, *grid)
        costs = []
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            assert isinstance(layer, Layer)
            h, cost = layer.generate(h, inferred[i] if inferred else None, noise)
            if cost is not None:
                costs.append(cost)
        return self.likelihood_of(self.last(h)), costs

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Negative ELBO, relieved of free bits: of each map at least those are charged (appendix C.8)."""
        observation, costs = self.generate(len(batch.x), self.infer(batch.x))
        distortion = -observation.log_prob(batch.x).flatten(1).sum(1).mean()
        rates = mean_over_processes(torch.cat(costs, 1).mean(0))  # which free bits are no linear function of
        rate = rates.sum()
        bound = bits_per_dim((distortion + rate).detach(), self.spec.dims)
        terms = {"bits_per_dim": bound, "distortion": distortion.detach(), "rate": rate.detach()}
        charged = rates.clamp(min=self.config.free_bits).sum() if self.training else rate
        return Loss(bits_per_dim(distortion + charged, self.spec.dims), terms)

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``."""
        return "bound"

    @property
    def importance_weighted(self) -> bool:
        """See ``Model.importance_weighted``."""
        return True

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """Log 1/k sum_i p(x, z_i) / q(z_i|x), ``(N,)`` nats; the ELBO for k = 1.

        Burda et al., 2015, https://arxiv.org/abs/1509.00519, equation 8.
        """
        self.check_importance_samples(k)
        inferred, log_weights = self.infer(batch.x), []
        for _ in range(k):
            observation, costs = self.generate(len(batch.x), inferred)
            log_weights.append(observation.log_prob(batch.x).flatten(1).sum(1) - torch.cat(costs, 1).sum(1))
        return torch.stack(log_weights).logsumexp(0) - math.log(k)

    def draw(
        self, n: int, labels: Tensor | None, contexts: tuple[Tensor, ...], options: Sampling, *,
        generator: Generator | None, progress: Callable[[float], None],
    ) -> Tensor:  # fmt: skip
        """See ``Model.draw``: latents from the priors, then the mean of p(x|z).

        The temperature scales the standard deviation of all latents.
        """

        def noise(like: Tensor) -> Tensor:
            drawn = torch.randn(like.shape, device=like.device, dtype=like.dtype, generator=generator)
            return drawn * single(options.temperature)

        return self._image(self.generate(n, None, noise)[0])

    def _image(self, observation: Discrete) -> Tensor:
        return observation.mean.round().to(self.spec.dtype)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x|z), z from the posterior without noise. Raises UserError for other examples."""
        self.spec.check(x)
        return self._image(self.generate(len(x), self.infer(x), torch.zeros_like)[0])
