"""Invertible layers with log-determinants: a small algebra, usable alone.

>>> import torch
>>> from ancestral.bijections import MADE, Affine, Composition, MaskedAutoregressive, Reversal
>>> steps = [MaskedAutoregressive(Affine("exp"), MADE(3, 2, (16, 16))), Reversal()]
>>> flow = Composition(*steps)
>>> x = torch.randn(5, 3)
>>> z, log_det = flow(x)
>>> torch.allclose(flow.inverse(z)[0], x, atol=1e-5)
True
"""

from ancestral.bijections.autoregressive import MADE, MaskedAutoregressive
from ancestral.bijections.base import Bijection, Composition, Inverse
from ancestral.bijections.coupling import Coupling, MaskedCoupling, checkerboard
from ancestral.bijections.dequantization import Dequantization, Uniform, Variational
from ancestral.bijections.elementwise import (
    Additive,
    Affine,
    Elementwise,
    LogisticMixtureCDF,
    NormalMixtureCDF,
)
from ancestral.bijections.linear import Invertible1x1, Scaling
from ancestral.bijections.normalization import ActNorm, BatchNormalization
from ancestral.bijections.preprocessing import Logit, Rescale
from ancestral.bijections.reversible import Reversible
from ancestral.bijections.shape import MultiScale, Permutation, Reshape, Reversal, Squeeze

__all__ = [
    "MADE",
    "ActNorm",
    "Additive",
    "Affine",
    "BatchNormalization",
    "Bijection",
    "Composition",
    "Coupling",
    "Dequantization",
    "Elementwise",
    "Inverse",
    "Invertible1x1",
    "LogisticMixtureCDF",
    "Logit",
    "MaskedAutoregressive",
    "MaskedCoupling",
    "MultiScale",
    "NormalMixtureCDF",
    "Permutation",
    "Rescale",
    "Reshape",
    "Reversal",
    "Reversible",
    "Scaling",
    "Squeeze",
    "Uniform",
    "Variational",
    "checkerboard",
]
