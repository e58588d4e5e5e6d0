"""VQ-VAE (van den Oord et al., Neural Discrete Representation Learning, 2017), https://arxiv.org/abs/1711.00937."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import mse_loss

from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import Likelihood, LikelihoodKind
from ancestral.errors import UserError, check_at_least
from ancestral.model import Batch, DrawsInOrder, Loss, LowerBound, Model, Phase, Stage, Tokenizer
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.nn.convolutional import Decoder, Encoder, check_stride
from ancestral.nn.normalization import BatchNorm
from ancestral.nn.quantize import (
    FiniteScalarQuantizer,
    Quantized,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
)
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec
from ancestral.units import bits_per_dim

Prior = GatedPixelCNN.Config | PixelSNAIL.Config | Transformer.Config
"""What the model of the code maps may be."""

_PAPER = Optimization(
    steps=250_000, batch_size=128, learning_rate=2e-4, schedule="constant", warmup=0, gradient_clip=None
)
"""Section 4.1 of the paper: Adam with learning rate 2e-4, batches of 128, 250,000 steps."""


class VQVAE(Model, LowerBound, Tokenizer, DrawsInOrder):
    r"""Discrete latent model :math:`p(x) = \sum_c p(x \mid c)\, p(c)` with codes from a quantized encoder.

    Its bound is the one term of the sum that the encoder's code :math:`c(x)` makes: :math:`p(x) \ge p(x \mid c(x))\, p(c(x))`.
    Two stages: ``tokenizer`` learns encoder, codebook and decoder; ``prior`` learns p(c) on the codes of the data.

    Shapes: x ``(N, C, H, W)`` integers, codes ``(N, M, H/stride, W/stride)``. Likelihood figures are lower bounds, in nats for each
    example.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of the VQ-VAE."""

        codebook_size: int = 512
        """K, the number of codes (vector and residual quantizers)."""
        num_codebooks: int = 1
        """M, codebooks at each position: parts of the vector, or steps of the residual quantizer."""
        code_dim: int = 64
        """D, features of a position that are quantized."""
        quantizer: Literal["vector", "residual", "finite-scalar"] = "vector"
        """Nearest code, a sum of M nearest codes, or rounding without a codebook."""
        scalar_levels: tuple[int, ...] = (8, 8, 8)
        """Levels of each feature (finite-scalar); their product is the number of codes."""
        codebook_update: Literal["ema", "gradient"] = "ema"
        """Codes follow running means (appendix A.1) or the codebook loss (equation 3)."""
        commitment_weight: float = 0.25
        """beta of equation 3."""
        codebook_decay: float = 0.99
        """gamma of the running means."""
        kmeans_start: bool = True
        """Start the codebook at the k-means centers of the first batch."""
        revive_below: float = 0.05
        """Codes used less than this share of an even use are moved; 0 never does."""
        cosine: bool = False
        """Compare directions instead of distances."""
        stride: int = 4
        """Pixels that one code covers, each way."""
        width: int = 128
        """Channels of encoder and decoder at the coarsest resolution."""
        blocks: int = 2
        """Residual blocks of encoder and decoder."""
        residual_width: int = 64
        """Hidden channels of a residual block."""
        fine_blocks: int = 0
        """Residual blocks at each finer resolution of the decoder."""
        batch_norm: bool = True
        """Batch normalization in encoder and decoder and of the features: faster, and the features cannot drift away from their codes."""
        likelihood: Literal["mse"] | LikelihoodKind = "logistic-mixture"
        """Distribution of a value given the codes; mse trains on squared error and gives no likelihood."""
        components: int = 5
        """Components of the logistic mixture."""
        prior: Prior = field(default_factory=GatedPixelCNN.Config)
        """The model of the code maps."""

        def __post_init__(self) -> None:
            check_at_least(1, code_dim=self.code_dim, residual_width=self.residual_width)
            check_at_least(2, width=self.width)
            check_at_least(0, blocks=self.blocks, fine_blocks=self.fine_blocks)

        @classmethod
        def tiny(cls) -> "VQVAE.Config":
            """Small enough for a test."""
            return cls(
                codebook_size=4,
                code_dim=4,
                stride=2,
                width=8,
                blocks=1,
                residual_width=4,
                components=2,
                prior=GatedPixelCNN.Config.tiny(),
            )

    parts: ClassVar = {
        "prior": {
            "gated-pixelcnn": GatedPixelCNN.Config(layers=6),
            "pixelsnail": PixelSNAIL.Config(
                width=64,
                blocks=2,
                residual_blocks=2,
                residual_width=64,
                kernel=3,
                heads=4,
                value=16,
                dropout=0.1,
                likelihood="categorical",
            ),
            "transformer": Transformer.Config(dropout=0.1),
        }
    }
    recipes: ClassVar = {
        "small": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores (docs/figures.md)",
            model=Config(prior=GatedPixelCNN.Config(layers=6)),
            stages={
                "tokenizer": Optimization(steps=2000, batch_size=128, learning_rate=2e-3),
                "prior": Optimization(steps=3000, batch_size=128, learning_rate=2e-3),
            },
        ),
        "digits": Recipe(
            source="a minute or two on two CPU cores, for the embedded 8x8 digits (docs/figures.md)",
            model=Config(
                codebook_size=64,
                code_dim=16,
                stride=2,
                width=64,
                residual_width=32,
                prior=GatedPixelCNN.Config(width=32, layers=5, head=64, dropout=0.2),
            ),
            stages={
                "tokenizer": Optimization(steps=1500, batch_size=64, learning_rate=2e-3),
                "prior": Optimization(steps=500, batch_size=64, learning_rate=2e-3),
            },
        ),
        "cifar10": Recipe(
            source="van den Oord et al. 2017, section 4.1 (here widths double up to 256), 8x8x10 latents, a 256-way softmax",
            model=Config(
                num_codebooks=10,
                code_dim=640,
                codebook_update="gradient",
                kmeans_start=False,
                revive_below=0.0,
                width=256,
                residual_width=256,
                batch_norm=False,
                likelihood="categorical",
                prior=GatedPixelCNN.Config(width=160, layers=12),
            ),
            stages={"tokenizer": _PAPER, "prior": _PAPER},
        ),
        "imagenet128": Recipe(
            source="van den Oord et al. 2017, section 4.2: 128x128 to 32x32x1 codes, K=512, squared error",
            model=Config(
                codebook_update="gradient",
                kmeans_start=False,
                revive_below=0.0,
                width=256,
                residual_width=256,
                batch_norm=False,
                likelihood="mse",
                prior=GatedPixelCNN.Config(width=384, layers=20, kernel=5, head=1024),
            ),
            stages={"tokenizer": _PAPER, "prior": _PAPER},
        ),
    }

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.shape) != 3:
            raise UserError(f"expected images (C, H, W), got shape {spec.shape}", "give images")
        check_stride(config.stride, spec.shape[1:])
        self.likelihood_of = (
            None if config.likelihood == "mse" else Likelihood(config.likelihood, spec, config.components)
        )
        self.quantizer = _build_quantizer(config)
        sizes: dict[str, Any] = {
            "width": config.width, "stride": config.stride, "blocks": config.blocks, "residual_width": config.residual_width,
            "normalize": config.batch_norm,
        }  # fmt: skip
        self.encoder = nn.Sequential(Encoder(spec.shape[0], self.quantizer.dim, **sizes))
        if config.batch_norm:
            self.encoder.append(BatchNorm(self.quantizer.dim, affine=False))
        outputs = self.likelihood_of.channels if self.likelihood_of else spec.shape[0]
        self.decoder = Decoder(self.quantizer.dim, outputs, fine_blocks=config.fine_blocks, **sizes)
        if self.likelihood_of:
            self.likelihood_of.initialize(self.decoder.output)
        self.prior = _build_prior(config.prior, self.code_specs()[0])

    def code_specs(self) -> tuple[Spec, ...]:
        """See ``Tokenizer.code_specs``."""
        _, height, width = self.spec.shape
        stride = self.config.stride
        shape = (self.quantizer.num_codebooks, height // stride, width // stride)
        return (
            Spec(shape=shape, levels=self.quantizer.codebook_size, classes=self.spec.classes, ordered=False),
        )

    def stages(self) -> tuple[Stage, ...]:
        """``tokenizer``, then ``prior`` on the codes."""
        tokenizer = [*self.encoder.parameters(), *self.quantizer.parameters(), *self.decoder.parameters()]
        return (
            Stage("tokenizer", (Phase("tokenizer", tuple(tokenizer)),), samples=False),
            Stage("prior", (Phase("prior", tuple(self.prior.parameters())),), prepare=self._to_codes),
        )

    def _to_codes(self, batch: Batch) -> Batch:
        return Batch(self.tokenize(batch.x)[0].to(self.prior.spec.dtype), batch.labels)

    def encode(self, x: Tensor) -> Quantized:
        """Quantized features of ``x``: equation 2."""
        return self.quantizer(self.encoder(self.scale(x)))

    def likelihood(self, z: Tensor) -> Discrete:
        """p(x|c) given quantized features ``(N, D, h, w)``, batch shape ``(N, *spec.shape)``."""
        if self.likelihood_of is None:
            raise UserError(
                "expected a decoder with a likelihood, got one trained on squared error",
                "train with --model.likelihood logistic-mixture",
            )
        return self.likelihood_of(self.decoder(z))

    def loss(self, batch: Batch, phase: str) -> Loss:
        """Equation 3 in bits/dim (or in squared error on the scale of [-1, 1]), or the prior's loss."""
        if phase == "prior":
            return self.prior.loss(batch, phase)
        quantized = self.encode(batch.x)
        terms = {"commitment": quantized.loss.detach(), "perplexity": quantized.perplexity}
        if self.likelihood_of is None:
            error = mse_loss(self.decoder(quantized.z), self.scale(batch.x))
            return Loss(error + quantized.loss, {"mse": error.detach()} | terms)
        distortion = -self.likelihood(quantized.z).log_prob(batch.x).flatten(1).sum(1).mean()
        distortion = bits_per_dim(distortion, self.spec.dims)
        return Loss(distortion + quantized.loss, {"decoder_bits_per_dim": distortion.detach()} | terms)

    @property
    def has_likelihood(self) -> bool:
        """See ``LowerBound.has_likelihood``."""
        return self.likelihood_of is not None

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``: the prior draws the codes."""
        return self.prior.sample_classes

    def rates(self, codes: Sequence[Tensor], labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """See ``Tokenizer.rates``."""
        return (-self.prior.log_prob(Batch(codes[0], labels)),)

    def distortion(self, x: Tensor, codes: Sequence[Tensor]) -> Tensor:
        """See ``Tokenizer.distortion``."""
        return -self.likelihood(self.quantizer.decode(codes[0]).to(self.dtype)).log_prob(x).flatten(1).sum(1)

    def code_vectors(self, codes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See ``Tokenizer.code_vectors``."""
        return (self.quantizer.decode(codes[0]).to(self.dtype),)

    def elbo(self, batch: Batch) -> Tensor:
        """Log p(x|c(x)) + log p(c(x)), a bound as q(c|x) is deterministic and has no entropy; ``(N,)`` nats."""
        codes = self.tokenize(batch.x)
        return -self.distortion(batch.x, codes) - self.rates(codes, batch.labels)[0]

    def importance_bound(self, batch: Batch, k: int) -> Tensor:
        """The ELBO: with a deterministic q(c|x), all k samples are the same code."""
        return self.elbo(batch)

    @torch.no_grad()
    def tokenize(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``Tokenizer.tokenize``. Raises UserError for examples of another shape or range."""
        self.spec.check(x)
        return (self.quantizer.encode(self.encoder(self.scale(x))),)

    @torch.no_grad()
    def detokenize(self, codes: Sequence[Tensor]) -> Tensor:
        """The mean of p(x|c), rounded to integers. Raises UserError for codes of another shape or range."""
        self.check_codes(codes)
        return self._decode(codes[0])

    def _decode(self, codes: Tensor) -> Tensor:
        z = self.quantizer.decode(codes.long()).to(self.dtype)
        if self.likelihood_of is None:
            return self.spec.unscale(self.decoder(z))
        return self.likelihood(z).mean.round().to(self.spec.dtype)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """See ``Reconstructs.reconstruct``. Raises UserError for examples of another shape or range."""
        return self._decode(self.tokenize(x)[0])

    @torch.no_grad()
    def sample(
        self, n: int, labels: Tensor | None = None, *, temperature: float = 1.0, generator: Generator | None = None,
        top_k: int | None = None, top_p: float | None = None, progress: Callable[[float], None] | None = None,
    ) -> Tensor:  # fmt: skip
        """See ``Model.sample``: codes from the prior, then the mean of p(x|c), as the paper does; the options are the prior's."""
        codes = self.prior.sample(
            n,
            labels,
            temperature=temperature,
            generator=generator,
            top_k=top_k,
            top_p=top_p,
            progress=progress,
        )
        return self._decode(codes)


def _build_prior(config: Prior, spec: Spec) -> Autoregressive:
    if isinstance(config, GatedPixelCNN.Config):
        return GatedPixelCNN(config, spec)
    return PixelSNAIL(config, spec) if isinstance(config, PixelSNAIL.Config) else Transformer(config, spec)


def _build_quantizer(config: VQVAE.Config) -> Quantizer:
    if config.quantizer == "finite-scalar":
        return FiniteScalarQuantizer(config.scalar_levels)
    options: dict[str, Any] = dict(
        num_codebooks=config.num_codebooks, update=config.codebook_update, commitment_weight=config.commitment_weight,
        decay=config.codebook_decay, kmeans_start=config.kmeans_start, revive_below=config.revive_below, cosine=config.cosine,
    )  # fmt: skip
    kind = VectorQuantizer if config.quantizer == "vector" else ResidualQuantizer
    return kind(config.code_dim, config.codebook_size, **options)
