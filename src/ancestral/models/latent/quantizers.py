"""The quantizers of VQ-VAE and VQ-VAE-2 as options: a class for each kind, with that kind's options alone."""

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal

from ancestral.configuration import Configuration, Depth, NonNegative, Range, Share, Width
from ancestral.nn.quantize import FiniteScalarQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer


@dataclass(frozen=True, kw_only=True)
class _Learned(Configuration):
    """Options of quantizers with a codebook."""

    layer: ClassVar[type[VectorQuantizer | ResidualQuantizer]]

    codebook_size: Annotated[int, Range(least=2, most=2**20)] = 512
    """K, the number of codes."""
    num_codebooks: Depth = 1
    """M, codebooks at each position: of parts of the vector, or of steps of the residual quantizer."""
    dim: Width = 64
    """D, features of a position that are quantized."""
    update: Literal["ema", "gradient"] = "ema"
    """Codes follow running means (appendix A.1) or the codebook loss (equation 3)."""
    commitment_weight: NonNegative = 0.25
    """beta of equation 3."""
    decay: Share = 0.99
    """gamma of the running means."""
    kmeans_start: bool = True
    """Start the codebook at the k-means centers of the first batch."""
    revive_below: Share = 0.05
    """Codes used less than this share of an even use are moved; 0 never does."""

    def build(self) -> Quantizer:
        """The layer."""
        options = {
            f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("dim", "codebook_size")
        }
        return self.layer(self.dim, self.codebook_size, **options)


@dataclass(frozen=True, kw_only=True)
class Vector(_Learned):
    """The nearest code."""

    kind: ClassVar = "vector"
    layer: ClassVar = VectorQuantizer

    cosine: bool = False
    """Compare directions instead of distances."""


@dataclass(frozen=True, kw_only=True)
class Residual(_Learned):
    """A sum of M nearest codes, each of what the ones before left over."""

    kind: ClassVar = "residual"
    layer: ClassVar = ResidualQuantizer


@dataclass(frozen=True, kw_only=True)
class FiniteScalar(Configuration):
    """Rounding without a codebook.

    >>> FiniteScalar(levels=(8, 6, 5)).build().codebook_size
    240
    """

    kind: ClassVar = "finite-scalar"

    levels: tuple[Annotated[int, Range(least=2, most=2**20)], ...] = (8, 8, 8)
    """Levels of each feature; their product is the number of codes."""

    def build(self) -> Quantizer:
        """The layer."""
        return FiniteScalarQuantizer(self.levels)
