"""VQ-VAE-2 (Razavi et al., Generating Diverse High-Fidelity Images, 2019), https://arxiv.org/abs/1906.00446."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ancestral.batch import Batch
from ancestral.configuration import Share, Width
from ancestral.errors import UserError
from ancestral.models.autoregressive.base import Autoregressive
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.latent.quantized import (
    CODES,
    PRIORS,
    Codes,
    Prior,
    QuantizedAutoencoder,
    names_of_levels,
)
from ancestral.models.latent.quantizers import Vector
from ancestral.nn.convolutional import Decoder, Encoder, check_stride
from ancestral.nn.normalization import BatchNorm
from ancestral.nn.quantize import Quantized, Quantizer
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

_PAPER = Optimization(
    steps=1, batch_size=128, learning_rate=3e-4, schedule="constant", warmup=0, gradient_clip=None
)
_PAPER_CODEBOOK: dict[str, Any] = {"kmeans_start": False, "revive_below": 0.0}
"""The codebooks follow running means from random ones on; none of their codes is moved."""


class Projection(nn.Sequential):
    """Features to what is quantized, by a 1x1 convolution; their batch statistics are those of codes then."""

    def __init__(self, inputs: int, dim: int, normalize: bool) -> None:
        super().__init__(nn.Conv2d(inputs, dim, 1))
        if normalize:
            self.append(BatchNorm(dim, affine=False))


class Upsample(nn.Sequential):
    """4x4 transposed convolutions of stride 2 from one level's resolution to the next one's."""

    def __init__(self, channels: int, ratio: int) -> None:
        doublings = ratio.bit_length() - 1
        super().__init__(
            *(nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1) for _ in range(doublings))
        )


class VQVAE2(QuantizedAutoencoder):
    r"""A hierarchy of code maps, from a coarse one on top to a fine one at the bottom.

    Encoders lead from the image to finer, then coarser features (section 3.1 and figure 2a of the paper). The
    top codes come from the coarsest ones; each finer level's from its own features and what is decoded of all
    coarser codes, so that it holds what these lack. The decoder sees the codes of all levels, the coarser
    ones upsampled. The paper has two levels (three for faces); with more, the rule of the second goes on.

    See ``QuantizedAutoencoder`` for stages and figures.

    >>> model = VQVAE2(VQVAE2.Config.tiny(), Spec(shape=(1, 4, 4), levels=17)).eval()
    >>> [tuple(level.shape) for level in model.tokenize(model.sample(3))]
    [(3, 1, 2, 2), (3, 1, 4, 4)]
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(QuantizedAutoencoder.Config):
        """Options of the VQ-VAE-2."""

        strides: tuple[Width, ...] = (4, 2)
        """Pixels that a code of each level covers, each way, from the top (coarse) to the bottom (fine)."""
        top_codes: Codes = field(default_factory=Vector)
        """How features of the top level become codes."""
        lower_codes: Codes = field(default_factory=Vector)
        """How those of each lower level do. A small codebook costs fewer bits where there are most codes."""
        level_dropout: Share = 0.0
        """Share of the training examples of which the decoder sees the coarser levels alone, so that these
        hold all they can, and decode alone."""
        top_prior: Prior = field(default_factory=GatedPixelCNN.Config)
        """The model of the top code maps."""
        lower_prior: Prior = field(default_factory=GatedPixelCNN.Config)
        """The model of each lower level's code maps given those of all coarser ones."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if len(self.strides) < 2 or any(coarse <= fine for coarse, fine in pairwise(self.strides)):
                problem = f"expected at least 2 strides, each smaller than the one before, got {self.strides}"
                raise UserError(problem, "try 8 4, or vqvae for one level")

        @classmethod
        def tiny(cls) -> "VQVAE2.Config":
            """Small enough for a test."""
            return cls(
                strides=(2, 1),
                top_codes=Vector(codebook_size=3, dim=4),
                lower_codes=Vector(codebook_size=2, dim=4),
                level_dropout=0.25,
                width=8,
                blocks=1,
                residual_width=4,
                components=2,
                top_prior=replace(GatedPixelCNN.Config.tiny(), layers=1),
                lower_prior=replace(GatedPixelCNN.Config.tiny(), layers=1),
            )

    choices: ClassVar = {
        "top_codes": CODES,
        "lower_codes": CODES,
        "top_prior": PRIORS,
        "lower_prior": PRIORS,
    }
    _SMALL: ClassVar = Config(
        level_dropout=0.1,
        top_prior=GatedPixelCNN.Config(layers=6),
        lower_prior=GatedPixelCNN.Config(layers=6),
    )
    recipes: ClassVar = {
        "small": Recipe(
            source="chosen on Fashion-MNIST for two CPU cores (docs/figures.md)",
            model=_SMALL,
            stages={
                "tokenizer": Optimization(steps=1500, batch_size=64, learning_rate=2e-3),
                "top": Optimization(steps=3000, batch_size=128, learning_rate=2e-3),
                "bottom": Optimization(steps=4000, batch_size=64, learning_rate=2e-3),
            },
        ),
        "compact": Recipe(
            source="small with few codes to choose from at the bottom, for fewer bits in all and blurrier "
            "pictures; chosen on Fashion-MNIST for two CPU cores (docs/figures.md)",
            model=replace(_SMALL, lower_codes=Vector(codebook_size=16, dim=16), fine_blocks=1),
            stages={
                "tokenizer": Optimization(steps=3000, batch_size=64, learning_rate=2e-3),
                "top": Optimization(steps=3000, batch_size=128, learning_rate=2e-3),
                "bottom": Optimization(steps=4000, batch_size=64, learning_rate=2e-3),
            },
        ),
        "color": Recipe(
            source="chosen on 64x64 color pictures for two CPU cores (docs/figures.md)",
            model=Config(
                strides=(8, 4),
                top_codes=Vector(codebook_size=256),
                lower_codes=Vector(codebook_size=256),
                level_dropout=0.1,
                top_prior=GatedPixelCNN.Config(layers=6, dropout=0.4),
                lower_prior=GatedPixelCNN.Config(layers=6, dropout=0.3),
            ),
            stages={
                "tokenizer": Optimization(steps=2500, batch_size=32, learning_rate=1e-3),
                "top": Optimization(steps=1500, batch_size=64, learning_rate=1e-3, keep_best=True),
                "bottom": Optimization(steps=2000, batch_size=64, learning_rate=1e-3, keep_best=True),
            },
        ),
        "digits": Recipe(
            source="for the embedded 8x8 digits on two CPU cores; not tuned",
            model=Config(
                top_codes=Vector(codebook_size=64, dim=16),
                lower_codes=Vector(codebook_size=32, dim=16),
                level_dropout=0.1,
                width=64,
                residual_width=32,
                top_prior=GatedPixelCNN.Config(width=32, layers=3, head=64, dropout=0.2),
                lower_prior=GatedPixelCNN.Config(width=32, layers=5, head=64, dropout=0.2),
            ),
            stages={
                "tokenizer": Optimization(steps=800, batch_size=64, learning_rate=2e-3),
                "top": Optimization(steps=300, batch_size=64, learning_rate=2e-3),
                "bottom": Optimization(steps=500, batch_size=64, learning_rate=2e-3),
            },
        ),
        "medium": Recipe(
            source="ours, for 256x256 on one machine of 24 GiB: 32x32 and 64x64 maps of 512 codes",
            model=Config(
                strides=(8, 4),
                level_dropout=0.1,
                top_prior=PixelSNAIL.Config(
                    width=256, blocks=4, residual_blocks=4, residual_width=256, kernel=3, heads=8, key=32,
                    value=32, dropout=0.1, output_blocks=4, likelihood="categorical",
                ),
                lower_prior=PixelSNAIL.Config(
                    width=192, blocks=4, residual_blocks=4, residual_width=192, kernel=3, attention_every=0,
                    dropout=0.1, context_blocks=8, condition_width=192, likelihood="categorical",
                ),
            ),
            stages={
                "tokenizer": Optimization(steps=200_000, batch_size=32, learning_rate=3e-4),
                "top": Optimization(steps=300_000, batch_size=64, accumulate=4, learning_rate=3e-4),
                "bottom": Optimization(steps=300_000, batch_size=32, accumulate=4, learning_rate=3e-4),
            },
        ),
        "imagenet256": Recipe(
            source="Razavi et al. 2019, tables of the appendix, ImageNet: 32x32 and 64x64 codes; rates, the "
            "priors' steps and where their residual units sit are ours",
            model=Config(
                strides=(8, 4),
                top_codes=Vector(**_PAPER_CODEBOOK),
                lower_codes=Vector(**_PAPER_CODEBOOK),
                batch_norm=False,
                likelihood="mse",
                top_prior=PixelSNAIL.recipes["vqvae2-top"].model,
                lower_prior=PixelSNAIL.recipes["vqvae2-bottom"].model,
            ),
            stages={
                "tokenizer": replace(_PAPER, steps=2_207_444),
                "top": PixelSNAIL.recipes["vqvae2-top"].stages["training"],
                "bottom": PixelSNAIL.recipes["vqvae2-bottom"].stages["training"],
            },
        ),
        "ffhq1024": Recipe(
            source="Razavi et al. 2019, tables of the appendix, FFHQ: 32x32, 64x64 and 128x128 codes; rates, "
            "and the priors, which are those of imagenet256, are ours",
            model=Config(
                strides=(32, 16, 8),
                top_codes=Vector(**_PAPER_CODEBOOK),
                lower_codes=Vector(**_PAPER_CODEBOOK),
                batch_norm=False,
                likelihood="mse",
                top_prior=PixelSNAIL.recipes["vqvae2-top"].model,
                lower_prior=PixelSNAIL.recipes["vqvae2-bottom"].model,
            ),
            stages={
                "tokenizer": replace(_PAPER, steps=304_741),
                "top": PixelSNAIL.recipes["vqvae2-top"].stages["training"],
                "middle": PixelSNAIL.recipes["vqvae2-bottom"].stages["training"],
                "bottom": PixelSNAIL.recipes["vqvae2-bottom"].stages["training"],
            },
        ),
    }  # fmt: skip

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        for stride in config.strides:
            check_stride(stride, spec.shape[1:])
        width, ratios = config.width, [coarse // fine for coarse, fine in pairwise(config.strides)]
        codes = (config.top_codes, *[config.lower_codes] * len(ratios))
        self.quantizers = nn.ModuleList(choice.build() for choice in codes)
        dims = [quantizer.dim for quantizer in self.level_quantizers]
        sizes: dict[str, Any] = {
            "width": width,
            "blocks": config.blocks,
            "residual_width": config.residual_width,
            "normalize": config.batch_norm,
        }
        stacked = [sum(dims[: i + 1]) for i in range(len(dims))]
        # Each list is in the order of the levels, from the top on.
        self.encoders = nn.ModuleList(
            nn.Sequential(nn.ReLU(), Encoder(width, width, stride=ratio, **sizes)) for ratio in ratios
        )
        self.encoders.append(Encoder(spec.shape[0], width, stride=config.strides[-1], **sizes))
        self.projections = nn.ModuleList(
            Projection(width if i == 0 else 2 * width, dim, config.batch_norm) for i, dim in enumerate(dims)
        )
        lower = list(zip(stacked, ratios, strict=False))
        self.level_decoders = nn.ModuleList(Decoder(n, width, stride=ratio, **sizes) for n, ratio in lower)
        self.upsamples = nn.ModuleList(Upsample(n, ratio) for n, ratio in lower)
        self.decoder = Decoder(
            stacked[-1], self.outputs, stride=config.strides[-1], fine_blocks=config.fine_blocks, **sizes
        )
        if self.likelihood_of:
            self.likelihood_of.initialize(self.decoder.output)
        priors = (config.top_prior, *[config.lower_prior] * len(ratios))
        self.priors = nn.ModuleList(
            choice.build(of) for choice, of in zip(priors, self.prior_specs(), strict=True)
        )

    @classmethod
    def options_of(cls, stage: str) -> tuple[str, ...]:
        """See ``Model.options_of``: each prior's, which those of the lower levels share."""
        return {"tokenizer": (), "top": ("top_prior",)}.get(stage, ("lower_prior",))

    @property
    def level_names(self) -> tuple[str, ...]:
        """``top``, ``middle`` (several: ``middle1``, …) and ``bottom``."""
        return names_of_levels(len(self.strides))

    @property
    def strides(self) -> tuple[int, ...]:
        """See ``QuantizedAutoencoder.strides``."""
        return tuple(self.config.strides)

    @property
    def level_quantizers(self) -> tuple[Quantizer, ...]:
        """See ``TwoStage.level_quantizers``."""
        return tuple(self.quantizers)  # type: ignore[arg-type]

    @property
    def level_priors(self) -> tuple[Autoregressive, ...]:
        """See ``TwoStage.level_priors``."""
        return tuple(self.priors)  # type: ignore[arg-type]

    @property
    def progressive(self) -> bool:
        """See ``Tokenizer.progressive``: the decoder knows missing levels from level dropout."""
        return self.config.level_dropout > 0

    def encode(self, batch: Batch) -> tuple[Quantized, ...]:
        """See ``TwoStage.encode``: features fine to coarse, then codes coarse to fine."""
        features = [self.encoders[-1](self.scale(batch.x))]
        for encoder in reversed(self.encoders[:-1]):
            features.insert(0, encoder(features[0]))
        levels: list[Quantized] = [self.quantizers[0](self.projections[0](features[0]))]
        stack = levels[0].z
        for i in range(1, len(features)):
            if i > 1:
                stack = self._stacked(i - 1, stack, levels[i - 1].z)
            both = torch.cat([self.level_decoders[i - 1](stack), features[i]], 1)
            levels.append(self.quantizers[i](self.projections[i](both)))
        return tuple(levels)

    def decode(self, z: Sequence[Tensor]) -> Tensor:
        """See ``QuantizedAutoencoder.decode``. Levels that are missing, or dropped in training, are zeros."""
        z = self._dropped(z) if self.training and self.config.level_dropout > 0 else z
        stack = z[0]
        for i in range(1, len(self.strides)):
            stack = self._stacked(i, stack, z[i] if i < len(z) else None)
        decoded: Tensor = self.decoder(stack)
        return decoded

    def _stacked(self, i: int, coarser: Tensor, z: Tensor | None) -> Tensor:
        """The features of all levels up to ``i`` at its resolution, ``(N, sum of D, h, w)``."""
        stack = self.upsamples[i - 1](coarser)
        if z is None:
            z = stack.new_zeros(stack.shape[0], self.level_quantizers[i].dim, *stack.shape[2:])
        return torch.cat([stack, z], 1)

    def _dropped(self, z: Sequence[Tensor]) -> list[Tensor]:
        """Features of which some examples keep the first levels alone, as many as chance decides."""
        n, finer = len(z[0]), len(z) - 1
        kept = torch.randint(finer, (n,), device=z[0].device)
        kept = kept.where(torch.rand(n, device=z[0].device) < self.config.level_dropout, finer)
        return [part * (kept >= i).to(part.dtype).view(-1, 1, 1, 1) for i, part in enumerate(z)]
