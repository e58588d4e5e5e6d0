"""VQ-VAE (van den Oord et al., Neural Discrete Representation Learning, 2017), https://arxiv.org/abs/1711.00937."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import mse_loss

from ancestral.batch import Batch
from ancestral.capabilities import Tokenizer
from ancestral.configuration import Blocks, Range, Width
from ancestral.distributions.discrete import Discrete
from ancestral.distributions.likelihood import IndependentKind, Likelihood
from ancestral.errors import UserError
from ancestral.model import LikelihoodKind, Model
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.latent.quantizers import FiniteScalar, Residual, Vector
from ancestral.nn.convolutional import Decoder, Encoder, check_stride
from ancestral.nn.normalization import BatchNorm
from ancestral.nn.quantize import Quantized
from ancestral.recipe import Optimization, Recipe
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage
from ancestral.units import bits_per_dim

Prior = GatedPixelCNN.Config | PixelSNAIL.Config | Transformer.Config
"""What the model of the code maps may be."""

_PAPER = Optimization(steps=250_000, learning_rate=2e-4, schedule="constant", warmup=0, gradient_clip=None)
"""Section 4.1 of the paper: Adam with learning rate 2e-4, batches of 128, 250,000 steps."""
_PAPER_CODES: dict[str, Any] = {"update": "gradient", "kmeans_start": False, "revive_below": 0.0}
"""The codebook of the paper's experiments learns from equation 3 alone."""


class VQVAE(Tokenizer):
    r"""Discrete latent model :math:`p(x) = \sum_c p(x \mid c)\, p(c)` with codes from a quantized encoder.

    Its bound is the one term of the sum that the encoder's code :math:`c(x)` makes:
    :math:`p(x) \ge p(x \mid c(x))\, p(c(x))`. Two stages: ``tokenizer`` learns encoder, codebook and decoder;
    ``prior`` learns p(c) on the codes of the data.

    Shapes: x ``(N, C, H, W)`` integers, codes ``(N, M, H/stride, W/stride)``. Likelihoods are lower bounds,
    in nats for each example.

    >>> model = VQVAE(VQVAE.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> codes = model.tokenize(model.sample(3))
    >>> codes[0].shape, model.detokenize(codes).shape
    (torch.Size([3, 1, 2, 2]), torch.Size([3, 1, 4, 4]))
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options of the VQ-VAE."""

        quantizer: Vector | Residual | FiniteScalar = field(default_factory=Vector)
        """How features become codes."""
        stride: Width = 4
        """Pixels that one code covers, each way."""
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
        prior: Prior = field(default_factory=GatedPixelCNN.Config)
        """The model of the code maps."""

        @classmethod
        def tiny(cls) -> "VQVAE.Config":
            """Small enough for a test."""
            return cls(
                quantizer=Vector(codebook_size=4, dim=4),
                stride=2,
                width=8,
                blocks=1,
                residual_width=4,
                components=2,
                prior=GatedPixelCNN.Config.tiny(),
            )

    choices: ClassVar = {
        "quantizer": (Vector(), Residual(num_codebooks=4), FiniteScalar()),
        "prior": (
            GatedPixelCNN.Config(layers=6),
            PixelSNAIL.Config(
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
            Transformer.Config(dropout=0.1),
        ),
    }
    sampling_options: ClassVar = Autoregressive.sampling_options
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
                quantizer=Vector(codebook_size=64, dim=16),
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
        "color": Recipe(
            source="a start for color pictures of 32x32 to 64x64, a few thousand of them, on two CPU cores; "
            "not tuned",
            model=Config(
                width=96,
                residual_width=48,
                prior=GatedPixelCNN.Config(layers=6, dropout=0.2),
            ),
            stages={
                "tokenizer": Optimization(steps=2000, batch_size=64, learning_rate=1e-3),
                "prior": Optimization(steps=3000, batch_size=64, learning_rate=1e-3),
            },
        ),
        "cifar10": Recipe(
            source="van den Oord et al. 2017, section 4.1 (here widths double up to 256), 8x8x10 latents, "
            "a 256-way softmax",
            model=Config(
                quantizer=Vector(num_codebooks=10, dim=640, **_PAPER_CODES),
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
                quantizer=Vector(**_PAPER_CODES),
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
        self.quantizer = config.quantizer.build()
        sizes: dict[str, Any] = {
            "width": config.width,
            "stride": config.stride,
            "blocks": config.blocks,
            "residual_width": config.residual_width,
            "normalize": config.batch_norm,
        }
        self.encoder = nn.Sequential(Encoder(spec.shape[0], self.quantizer.dim, **sizes))
        if config.batch_norm:
            self.encoder.append(BatchNorm(self.quantizer.dim, affine=False))
        outputs = self.likelihood_of.channels if self.likelihood_of else spec.shape[0]
        self.decoder = Decoder(self.quantizer.dim, outputs, fine_blocks=config.fine_blocks, **sizes)
        if self.likelihood_of:
            self.likelihood_of.initialize(self.decoder.output)
        self.prior: Autoregressive = config.prior.build(self.code_specs()[0])

    def code_specs(self) -> tuple[Spec, ...]:
        """See ``Tokenizer.code_specs``."""
        _, height, width = self.spec.shape
        stride = self.config.stride
        shape = (self.quantizer.num_codebooks, height // stride, width // stride)
        return (
            Spec(shape=shape, levels=self.quantizer.codebook_size, classes=self.spec.classes, domain="codes"),
        )

    def stages(self) -> tuple[Stage, ...]:
        """``tokenizer``, then ``prior`` on the codes."""
        tokenizer, prior = (self.encoder, self.quantizer, self.decoder), (self.prior,)
        (learning,) = self.prior.stages()
        return (
            Stage(
                "tokenizer", (Phase("tokenizer", tokenizer),), initialize=self._start_codebook, samples=False
            ),
            Stage("prior", (Phase("prior", prior),), prepare=self._prepare, initialize=learning.initialize),
        )

    def _start_codebook(self, batch: Batch) -> None:
        self.quantizer.start(self.encoder(self.scale(batch.x)))

    def _prepare(self, batch: Batch) -> Batch:
        return Batch(self.tokenize(batch.x)[0].to(self.prior.spec.dtype), batch.labels)

    def encode(self, x: Tensor) -> Quantized:
        """Quantized features of ``x``: equation 2."""
        return self.quantizer(self.encoder(self.scale(x)))

    def observation(self, z: Tensor) -> Discrete:
        """p(x|c) given quantized features ``(N, D, h, w)``, batch shape ``(N, *spec.shape)``."""
        if self.likelihood_of is None:
            raise UserError(
                "expected a decoder with a likelihood, got one trained on squared error",
                "train with --model.likelihood logistic-mixture",
            )
        return self.likelihood_of(self.decoder(z))

    def loss(self, batch: Batch, phase: str, progress: Progress) -> Loss:
        """Equation 3 in bits/dim (or in squared error on the scale of [-1, 1]), or the prior's loss."""
        if phase == "prior":
            return self.prior.loss(batch, phase, progress)
        quantized = self.encode(batch.x)
        terms = {"commitment": quantized.loss.detach(), "perplexity": quantized.perplexity}
        if self.likelihood_of is None:
            error = mse_loss(self.decoder(quantized.z), self.scale(batch.x))
            return Loss(error + quantized.loss, {"mse": error.detach()} | terms)
        distortion = -self.observation(quantized.z).log_prob(batch.x).flatten(1).sum(1).mean()
        distortion = bits_per_dim(distortion, self.spec.dims)
        return Loss(distortion + quantized.loss, {"decoder_bits_per_dim": distortion.detach()} | terms)

    @property
    def likelihood(self) -> LikelihoodKind:
        """See ``Model.likelihood``: a decoder trained on squared error gives none."""
        return "bound" if self.likelihood_of is not None else "none"

    @property
    def sample_classes(self) -> int:
        """See ``Model.sample_classes``: the prior draws the codes."""
        return self.prior.sample_classes

    def rates(self, codes: Sequence[Tensor], labels: Tensor | None = None) -> tuple[Tensor, ...]:
        """See ``Tokenizer.rates``."""
        return (-self.prior.log_likelihood(Batch(codes[0], labels)),)

    def distortion(self, x: Tensor, codes: Sequence[Tensor]) -> Tensor:
        """See ``Tokenizer.distortion``."""
        return -self.observation(self.quantizer.decode(codes[0]).to(self.dtype)).log_prob(x).flatten(1).sum(1)

    def code_vectors(self, codes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See ``Tokenizer.code_vectors``."""
        return (self.quantizer.decode(codes[0]).to(self.dtype),)

    def log_likelihood(self, batch: Batch, k: int = 1) -> Tensor:
        """Log p(x|c(x)) + log p(c(x)), a bound: q(c|x) is deterministic and has no entropy; ``(N,)`` nats."""
        self.check_importance_samples(k)
        codes = self.tokenize(batch.x)
        return -self.distortion(batch.x, codes) - self.rates(codes, batch.labels)[0]

    @torch.no_grad()
    def tokenize(self, x: Tensor) -> tuple[Tensor, ...]:
        """See ``Tokenizer.tokenize``. Raises UserError for examples of another shape or range."""
        self.spec.check(x)
        return self.to_codes(x)

    @torch.no_grad()
    def to_codes(self, x: Tensor) -> tuple[Tensor, ...]:
        """``tokenize`` without a look at the values of ``x``: what ``torch.export`` takes."""
        return (self.quantizer.encode(self.encoder(self.scale(x))),)

    @torch.no_grad()
    def detokenize(self, codes: Sequence[Tensor]) -> Tensor:
        """The mean of p(x|c), rounded to integers. Raises UserError for codes of another shape or range."""
        self.check_codes(codes)
        return self.from_codes(codes)

    @torch.no_grad()
    def from_codes(self, codes: Sequence[Tensor]) -> Tensor:
        """``detokenize`` without a look at the values of the codes: what ``torch.export`` takes."""
        z = self.quantizer.decode(codes[0].long()).to(self.dtype)
        if self.likelihood_of is None:
            return self.spec.unscale(self.decoder(z))
        return self.observation(z).mean.round().to(self.spec.dtype)

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
        """See ``Model.draw``: codes from the prior, then the mean of p(x|c), as the paper does.

        The options are the prior's.
        """
        codes = self.prior.draw(n, labels, contexts, options, generator=generator, progress=progress)
        return self.from_codes((codes,))
