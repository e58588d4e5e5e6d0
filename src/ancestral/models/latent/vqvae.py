"""VQ-VAE (van den Oord et al., Neural Discrete Representation Learning, 2017), https://arxiv.org/abs/1711.00937."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.configuration import Width
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.latent.quantized import CODES, PRIORS, Codes, Prior, QuantizedAutoencoder
from ancestral.models.latent.quantizers import Vector
from ancestral.nn.convolutional import Decoder, Encoder, check_stride
from ancestral.nn.normalization import BatchNorm
from ancestral.nn.quantize import Quantized, Quantizer
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

_PAPER = Optimization(steps=250_000, learning_rate=2e-4, schedule="constant", warmup=0, gradient_clip=None)
"""Section 4.1 of the paper: Adam with learning rate 2e-4, batches of 128, 250,000 steps."""
_PAPER_CODES: dict[str, Any] = {"update": "gradient", "kmeans_start": False, "revive_below": 0.0}
"""The codebook of the paper's experiments learns from equation 3 alone."""


class VQVAE(QuantizedAutoencoder):
    """Discrete latent model with one level of codes. See ``QuantizedAutoencoder`` for stages and figures.

    >>> model = VQVAE(VQVAE.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> codes = model.tokenize(model.sample(3))
    >>> codes[0].shape, model.detokenize(codes).shape
    (torch.Size([3, 1, 2, 2]), torch.Size([3, 1, 4, 4]))
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(QuantizedAutoencoder.Config):
        """Options of the VQ-VAE."""

        quantizer: Codes = field(default_factory=Vector)
        """How features become codes."""
        stride: Width = 4
        """Pixels that one code covers, each way."""
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

    choices: ClassVar = {"quantizer": CODES, "prior": PRIORS}
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
        check_stride(config.stride, spec.shape[1:])
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
        self.decoder = Decoder(self.quantizer.dim, self.outputs, fine_blocks=config.fine_blocks, **sizes)
        if self.likelihood_of:
            self.likelihood_of.initialize(self.decoder.output)
        self.prior: Autoregressive = config.prior.build(self.prior_specs()[0])

    @property
    def level_names(self) -> tuple[str, ...]:
        """See ``TwoStage.level_names``."""
        return ("prior",)

    @property
    def strides(self) -> tuple[int, ...]:
        """See ``QuantizedAutoencoder.strides``."""
        return (self.config.stride,)

    @property
    def level_quantizers(self) -> tuple[Quantizer, ...]:
        """See ``TwoStage.level_quantizers``."""
        return (self.quantizer,)

    @property
    def level_priors(self) -> tuple[Autoregressive, ...]:
        """See ``TwoStage.level_priors``."""
        return (self.prior,)

    def encode(self, batch: Batch) -> tuple[Quantized, ...]:
        """See ``TwoStage.encode``."""
        return (self.quantizer(self.encoder(self.scale(batch.x))),)

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """See ``QuantizedAutoencoder.decode``."""
        (features,) = z
        decoded: Tensor = self.decoder(features)
        return decoded
