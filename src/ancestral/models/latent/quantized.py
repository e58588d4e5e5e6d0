r"""What VQ-VAE and VQ-VAE-2 share: an autoencoder with quantized features on one or several levels.

A prior for each level makes it a generative model: :math:`p(x) = \sum_c p(x \mid c) \prod_i p(c_i \mid
c_{<i})`, codes :math:`c_i` from coarse to fine.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import mse_loss

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.configuration import Blocks, Range, Width
from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import IndependentKind, Likelihood
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model, unwatched
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.latent.quantizers import FiniteScalar, Residual, Vector
from ancestral.nn.quantize import Quantized, Quantizer
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage
from ancestral.units import bits_per_dim

Codes = Vector | Residual | FiniteScalar
"""How features may become codes."""
Prior = GatedPixelCNN.Config | PixelSNAIL.Config | Transformer.Config
"""What the model of a level's code maps may be."""

CODES = (Vector(), Residual(num_codebooks=4), FiniteScalar())
PRIORS = (
    GatedPixelCNN.Config(layers=6),
    PixelSNAIL.Config(
        width=64, blocks=2, residual_blocks=2, residual_width=64, kernel=3, heads=4, value=16, dropout=0.1,
        likelihood="categorical",
    ),
    Transformer.Config(dropout=0.1),
)  # fmt: skip
"""The choices of both, as the command line starts from them."""


class TwoStage(Tokenizer):
    r"""Base of the models whose encoder puts out codes, which priors learn.

    The bound is the one term of the sum over all codes that the encoder's own :math:`c(x)` make:
    :math:`p(x) \ge p(x \mid c(x)) \prod_i p(c_i(x) \mid c_{<i}(x))`. Stages: ``tokenizer`` learns encoder,
    codebooks and decoder; then one for each prior on the codes of the data, which are computed once.

    Codes are ``(N, M, *grid)`` of each level, coarse to fine. Likelihoods are lower bounds, in nats for each
    example.
    """

    sampling_options: ClassVar = Autoregressive.sampling_options

    @property
    @abstractmethod
    def level_names(self) -> tuple[str, ...]:
        """What the levels are called, coarse to fine: the stages of their priors."""

    @property
    @abstractmethod
    def level_quantizers(self) -> tuple[Quantizer, ...]:
        """The quantizer of each level."""

    @property
    @abstractmethod
    def level_priors(self) -> tuple[Autoregressive, ...]:
        """The prior of each level, whose contexts are the codes of all coarser ones."""

    @abstractmethod
    def encode(self, batch: Batch) -> tuple[Quantized, ...]:
        """Quantized features of each level of a batch's examples: equation 2 of the VQ-VAE paper."""

    @abstractmethod
    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """``detokenize`` without a look at the values of the codes: what ``torch.export`` takes."""

    @property
    def autoencoder(self) -> tuple[nn.Module, ...]:
        """What the first stage trains: all but the priors."""
        priors = {module for prior in self.level_priors for module in prior.modules()}
        return tuple(
            child for child in self.children() if not any(part in priors for part in child.modules())
        )

    def prior_specs(self) -> tuple[Spec, ...]:
        """The data of each prior: a level's codes, with those of the coarser ones as contexts."""
        specs = self.code_specs()
        return tuple(replace(spec, contexts=specs[:i]) for i, spec in enumerate(specs))

    def stages(self) -> tuple[Stage, ...]:
        """``tokenizer``, then the prior of each level; the priors need nothing of each other."""
        tokenizer = Stage(
            "tokenizer",
            (Phase("tokenizer", self.autoencoder),),
            initialize=self._start_codebooks,
            samples=False,
        )
        named = list(zip(self.level_names, self.level_priors, strict=True))
        priors = [
            Stage(
                name,
                (Phase(name, (prior,)),),
                prepare=self.code_batch,
                transform=None if i == len(named) - 1 else partial(_of_level, i),
                initialize=prior.stages()[0].initialize,
                samples=i == len(named) - 1,
                needs=("tokenizer",),
            )
            for i, (name, prior) in enumerate(named)
        ]
        return (tokenizer, *priors)

    def _start_codebooks(self, batch: Batch) -> None:
        """Start each codebook from the first features that come to it, a level after the coarser ones."""
        quantizers = self.level_quantizers
        handles = [q.register_forward_pre_hook(lambda q, inputs: q.start(*inputs)) for q in quantizers]
        self.encode(batch)
        for handle in handles:
            handle.remove()

    def code_batch(self, batch: Batch) -> Batch:
        """The codes of examples, of all levels: the finest as x, the coarser ones as contexts.

        So the finest prior learns them; each coarser one takes its part of them.
        """
        pairs = zip(self.encode(batch), self.code_specs(), strict=True)
        levels = [quantized.codes.to(spec.dtype) for quantized, spec in pairs]
        lengths = self.code_lengths(batch.lengths, len(levels) - 1)
        return Batch(levels[-1], batch.labels, tuple(levels[:-1]), lengths)

    @property
    def sampling_levels(self) -> int:
        """See ``Model.sampling_levels``."""
        return len(self.level_priors)

    def check_sampling(self, options: Sampling) -> None:
        """See ``Model.check_sampling``; each prior takes its own."""
        super().check_sampling(options)
        for i, (name, prior) in enumerate(zip(self.level_names, self.level_priors, strict=True)):
            try:
                prior.check_sampling(options.at_level(i))
            except UserError as error:
                where = f" for {name} codes" if self.sampling_levels > 1 else ""
                raise UserError(f"{error.problem}{where}", error.remedy) from None

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``: the priors draw the codes."""
        return max(prior.sample_classes for prior in self.level_priors)

    def rates(
        self, codes: Sequence[Tensor], labels: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """See ``Tokenizer.rates``. Without labels one class, unknown, is behind all levels of an example.

        p(c_i | c_<i) is then the mixture over the classes by how likely the coarser levels make each.
        """
        if labels is not None or not self.sample_classes:
            return tuple(-self._log_prior(i, codes, labels, lengths) for i in range(len(codes)))
        joint = self._log_joint(codes, lengths).logsumexp(1)  # of the levels up to each, over the classes
        before = torch.cat([torch.zeros_like(joint[:1]), joint[:-1]])
        return tuple(before - joint)

    def code_lengths(self, lengths: Tensor | None, i: int) -> Tensor | None:
        """How many codes of level ``i`` sounds of so many values have, ``(N,)``; None of images."""
        return None

    def _log_prior(
        self, i: int, codes: Sequence[Tensor], labels: Tensor | None, lengths: Tensor | None
    ) -> Tensor:
        """Log p of level ``i`` given the coarser ones, ``(N,)`` nats."""
        prior = self.level_priors[i]
        given = labels if prior.sample_classes else None
        batch = Batch(codes[i], given, tuple(codes[:i]), self.code_lengths(lengths, i))
        return prior.log_likelihood(batch)

    def _log_joint(self, codes: Sequence[Tensor], lengths: Tensor | None = None) -> Tensor:
        """Log p(class, levels up to each) for each class, ``(levels, classes, N)`` nats."""
        classes, levels = self.sample_classes, []
        for i, prior in enumerate(self.level_priors[: len(codes)]):
            known: list[Tensor | None] = [None]
            if prior.sample_classes:
                known = [torch.full((len(codes[0]),), c, device=codes[0].device) for c in range(classes)]
            levels.append(
                torch.stack([self._log_prior(i, codes, c, lengths) for c in known]).expand(classes, -1)
            )
        return torch.stack(levels).cumsum(0) - math.log(classes)

    def code_vectors(self, codes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See ``Tokenizer.code_vectors``."""
        pairs = zip(self.level_quantizers, codes, strict=False)
        return tuple(quantizer.decode(level.long()).to(self.dtype) for quantizer, level in pairs)

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """Log p(x|c(x)) + log p(c(x)), a bound: q(c|x) is deterministic and has no entropy; ``(N,)`` nats."""
        self.check_importance_samples(k)
        self.spec.check(batch.x)
        with torch.no_grad():
            codes = tuple(quantized.codes for quantized in self.encode(batch))
        rates = self.rates(codes, batch.labels, batch.lengths)
        return -self.distortion(batch, codes) - torch.stack(rates).sum(0)

    @torch.no_grad()
    def tokenize(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``Tokenizer.tokenize``. Raises UserError for examples of another shape or range."""
        self.spec.check(x)
        return self.to_codes(x)

    @torch.no_grad()
    def to_codes(self, x: Tensor) -> tuple[Tensor, ...]:
        """``tokenize`` without a look at the values of ``x``: what ``torch.export`` takes."""
        return tuple(quantized.codes for quantized in self.encode(Batch(x)))

    @torch.no_grad()
    def detokenize(self, codes: Sequence[Tensor]) -> Tensor:
        """The mean of p(x|c), rounded to integers. Raises UserError for codes of another shape or range."""
        self.check_codes(codes)
        return self.from_codes(codes)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """See ``Reconstructs.reconstruct``. Raises UserError for examples of another shape or range."""
        return self.from_codes(self.tokenize(x))

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
        """See ``Model.draw``: codes from the priors, then the mean of p(x|c), as the papers do.

        The options are the priors'.
        """
        codes = self._draw_codes((), n, labels, options, generator=generator, progress=progress)
        return self.from_codes(codes)

    def draw_finer(
        self, codes: tuple[Tensor, ...], labels: Tensor | None, options: Sampling, generator: Generator | None
    ) -> tuple[Tensor, ...]:
        """See ``Tokenizer.draw_finer``."""
        n = len(codes[0])
        if labels is None and self.sample_classes:
            log_p = self._log_joint(codes)[-1].T
            labels = torch.multinomial(log_p.softmax(1), 1, generator=generator)[:, 0]
        return self._draw_codes(codes, n, labels, options, generator=generator, progress=unwatched)

    def _draw_codes(
        self, codes: Sequence[Tensor], n: int, labels: Tensor | None, options: Sampling, *,
        generator: Generator | None, progress: Callable[[float], None],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """All levels, of which ``codes`` are the first."""
        levels, priors = list(codes), self.level_priors
        sizes = [prior.spec.dims for prior in priors[len(levels) :]]
        for k, dims in enumerate(sizes):
            i = len(levels)
            done, prior = sum(sizes[:k]), priors[i]

            def within(share: float, done: int = done, dims: int = dims) -> None:
                progress((done + share * dims) / sum(sizes))

            given = labels if prior.sample_classes else None
            levels.append(
                prior.draw(n, given, tuple(levels), options.at_level(i), generator=generator, progress=within)
            )
        return tuple(levels)


class QuantizedAutoencoder(TwoStage):
    """Base of the models of images: ``(N, C, H, W)`` integers.

    Codes are ``(N, M, H/stride, W/stride)``.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of encoder and decoder."""

        width: Annotated[int, Range(least=2, most=2**20)] = 128
        """Channels of encoder and decoder at the coarsest resolution."""
        blocks: Blocks = 2
        """Residual blocks of encoder and decoder."""
        residual_width: Width = 64
        """Hidden channels of a residual block."""
        fine_blocks: Blocks = 0
        """Residual blocks at each finer resolution of the decoder."""
        batch_norm: bool = True
        """Batch normalization, of the features too: faster, and they cannot drift away from their codes."""
        likelihood: Literal["mse"] | IndependentKind = "logistic-mixture"
        """Distribution of a value given the codes; mse trains on squared error and gives no likelihood."""
        components: Width = 5
        """Components of the logistic mixture."""

    decoder: nn.Module

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.shape) != 3:
            remedy = "train vqvae-sound" if spec.domain == "sound" else "give images"
            raise UserError(f"expected images (C, H, W), got shape {spec.shape}", remedy)
        self.likelihood_of = (
            None if config.likelihood == "mse" else Likelihood(config.likelihood, spec, config.components)
        )
        self.outputs = self.likelihood_of.channels if self.likelihood_of else spec.shape[0]
        """Channels that the decoder puts out."""

    @property
    @abstractmethod
    def strides(self) -> tuple[int, ...]:
        """Pixels that a code of each level covers, each way."""

    @abstractmethod
    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """The decoder's output ``(N, outputs, H, W)`` from quantized features ``(N, D, h, w)`` of each level.

        Of a ``progressive`` model, the finer ones may be missing.
        """

    def code_specs(self) -> tuple[Spec, ...]:
        """See ``Tokenizer.code_specs``."""
        _, height, width = self.spec.shape
        return tuple(
            Spec(
                shape=(quantizer.num_codebooks, height // stride, width // stride),
                levels=quantizer.codebook_size,
                classes=self.spec.classes,
                domain="codes",
            )
            for quantizer, stride in zip(self.level_quantizers, self.strides, strict=True)
        )

    def observation(self, z: Sequence[Tensor]) -> Discrete:
        """p(x|c) given quantized features of each level, batch shape ``(N, *spec.shape)``."""
        if self.likelihood_of is None:
            raise UserError(
                "expected a decoder with a likelihood, got one trained on squared error",
                "train with --model.likelihood logistic-mixture",
            )
        return self.likelihood_of(self.decode(z))

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Equation 3 of the VQ-VAE paper in bits/dim (or squared error on [-1, 1]), or a prior's loss."""
        if phase in self.level_names:
            return self.level_priors[self.level_names.index(phase)].loss(batch, phase, progress)
        levels = self.encode(batch)
        z, commitment = [q.z for q in levels], torch.stack([q.loss for q in levels]).sum()
        terms = {"commitment": commitment.detach()}
        for name, quantized in zip(self.level_names, levels, strict=True):
            terms["perplexity" if len(levels) == 1 else f"{name}_perplexity"] = quantized.perplexity
        if self.likelihood_of is None:
            error = mse_loss(self.decode(z), self.scale(batch.x))
            return Loss(error + commitment, {"mse": error.detach()} | terms)
        distortion = -self.observation(z).log_prob(batch.x).flatten(1).sum(1).mean()
        distortion = bits_per_dim(distortion, self.spec.dims)
        return Loss(distortion + commitment, {"decoder_bits_per_dim": distortion.detach()} | terms)

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``: a decoder trained on squared error gives none."""
        return "bound" if self.likelihood_of is not None else "none"

    def distortion(self, batch: Batch, codes: Sequence[Tensor]) -> Tensor:
        """See ``Tokenizer.distortion``."""
        return -self.observation(self.code_vectors(codes)).log_prob(batch.x).flatten(1).sum(1)

    @torch.no_grad()
    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """``detokenize`` without a look at the values of the codes: what ``torch.export`` takes."""
        z = self.code_vectors(codes)
        if self.likelihood_of is None:
            return self.spec.unscale(self.decode(z))
        return self.observation(z).mean.round().to(self.spec.dtype)


def names_of_levels(count: int) -> tuple[str, ...]:
    """What levels are called, coarse to fine; of one, its prior's name alone.

    >>> names_of_levels(1), names_of_levels(3)
    (('prior',), ('top', 'middle', 'bottom'))
    """
    if count == 1:
        return ("prior",)
    middle = ["middle"] if count == 3 else [f"middle{i + 1}" for i in range(count - 2)]
    return ("top", *middle, "bottom")


def _of_level(i: int, batch: Batch, progress: Progress) -> Batch:
    """Level ``i`` and what it is conditioned on, of the codes of all levels."""
    x, lengths = batch.contexts[i], batch.lengths
    lengths = None if lengths is None else lengths * x.shape[-1] // batch.x.shape[-1]
    return Batch(x, batch.labels, batch.contexts[:i], lengths)
