"""Amplitudes of sound and the levels that stand for them: linear, or companded by mu-law (ITU-T G.711)."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ancestral.spec import Spec


def to_levels(amplitudes: NDArray[np.floating], spec: Spec) -> NDArray[np.integer]:
    r"""Amplitudes in [-1, 1] as levels of ``spec``, in its dtype; what lies beyond is cut off.

    Of L levels, mu-law takes :math:`\lfloor (f + 1) / 2 \cdot (L - 1) + 1/2 \rfloor` with
    :math:`f = \mathrm{sgn}(y) \ln(1 + (L - 1) |y|) / \ln L`, the continuous law of ITU-T G.711; linear takes
    :math:`\lfloor (y + 1) / 2 \cdot L \rfloor`, which of 2^16 levels are the 16-bit samples of a file, plus
    2^15. Silence is level ``L // 2`` of both.

    >>> spec = Spec(shape=(1, 5), rate=8000, encoding="mu-law")
    >>> to_levels(np.array([-1, -0.01, 0, 0.01, 1]), spec).tolist()
    [0, 98, 128, 157, 255]
    """
    y, levels = np.clip(amplitudes.astype(np.float64), -1, 1), spec.discrete_levels
    if spec.encoding == "mu-law":
        y = np.sign(y) * np.log1p(np.abs(y) * (levels - 1)) / math.log(levels)
        places = (y + 1) / 2 * (levels - 1) + 0.5
    else:
        places = (y + 1) / 2 * levels
    dtype = {1: np.uint8, 2: np.int16, 4: np.int32}[spec.dtype.itemsize]
    return np.minimum(np.floor(places), levels - 1).astype(dtype)


def to_amplitudes(levels: NDArray[np.integer], spec: Spec) -> NDArray[np.float64]:
    """The amplitudes in [-1, 1] that levels of ``spec`` stand for; ``to_levels`` takes them back.

    >>> spec = Spec(shape=(1, 3), levels=3, rate=8000, encoding="linear")
    >>> to_amplitudes(np.arange(3), spec).tolist()
    [-1.0, 0.0, 1.0]
    """
    most = spec.discrete_levels - 1
    scaled = levels.astype(np.float64) * (2.0 / most) - 1.0
    if spec.encoding != "mu-law":
        return scaled
    return np.sign(scaled) * np.expm1(np.abs(scaled) * math.log1p(most)) / most


def expanded(x: Tensor, spec: Spec) -> Tensor:
    """``to_amplitudes`` of a tensor, where it is, as floats."""
    scaled = spec.scale(x, torch.float32)
    if spec.encoding != "mu-law":
        return scaled
    most = spec.discrete_levels - 1
    return scaled.sign() * (scaled.abs() * math.log1p(most)).expm1() / most


def compressed(y: Tensor, spec: Spec) -> Tensor:
    """``to_levels`` of a tensor of amplitudes, where it is.

    >>> spec = Spec(shape=(1, 3), rate=8000, encoding="mu-law")
    >>> bool((compressed(expanded(torch.arange(256), spec), spec) == torch.arange(256)).all())
    True
    """
    y, levels = y.float().clamp(-1, 1), spec.discrete_levels
    if spec.encoding == "mu-law":
        y = y.sign() * (y.abs() * (levels - 1)).log1p() / math.log(levels)
        places = (y + 1) / 2 * (levels - 1) + 0.5
    else:
        places = (y + 1) / 2 * levels
    return places.floor().clamp(0, levels - 1).to(spec.dtype)
