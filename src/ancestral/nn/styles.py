"""Styles: vectors that scale the channels of a map, by normalization or inside a convolution.

Karras et al., 2018 (https://arxiv.org/abs/1812.04948) and 2019 (https://arxiv.org/abs/1912.04958).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from ancestral.nn.equalized import EqualizedLinear
from ancestral.nn.resampling import filtered


class AdaptiveInstanceNorm(nn.Module):
    """Each map of each example normalized by itself, then scaled by 1 + s and moved by t, the style's.

    Args:
        channels: of the maps.
        styles: numbers of the vector w that s and t are affine functions of.
        eps: added to variances.
    """

    def __init__(self, channels: int, styles: int, eps: float = 1e-8) -> None:
        super().__init__()
        self.style, self.eps = EqualizedLinear(styles, 2 * channels, gain=1.0), eps

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps ``(N, channels, H, W)`` and vectors ``(N, styles)`` to such maps."""
        scale, shift = self.style(w).view(len(x), -1, 1, 1).chunk(2, 1)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        centered = wide - wide.mean((2, 3), keepdim=True)
        normal = centered * (centered.square().mean((2, 3), keepdim=True) + self.eps).rsqrt()
        return (normal * (1 + scale) + shift).to(x.dtype)


class ModulatedConv2d(nn.Module):
    r"""A convolution whose inputs the style scales, and whose outputs have the variance that this took away.

    Weights :math:`w'_{oik} = s_i w_{oik}`, over :math:`\sqrt{\sum_{ik} w'^2_{oik} + 10^{-8}}` if
    ``demodulate`` (2019, equations 1 and 3). Computed on the inputs and the outputs in place of the weights,
    which is the same and leaves one convolution for all examples.

    Args:
        inputs: channels that come in.
        outputs: channels that come out.
        kernel: odd sides of the kernel.
        styles: numbers of the vector w; s is an affine function of it, 1 at first.
        demodulate: whether outputs are scaled.
        double: whether the sides of the map double: places are set apart by zeros before, and filtered after.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, styles: int, *, demodulate: bool = True,
        double: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.style = EqualizedLinear(styles, inputs, gain=1.0, bias=1.0)
        self.scale, self.demodulate, self.doubles = 1 / (kernel * math.sqrt(inputs)), demodulate, double

    def forward(self, x: Tensor, w: Tensor, added: Tensor | None = None, gain: float = 1.0) -> Tensor:
        """Maps ``(N, inputs, H, W)`` and ``(N, styles)`` to ``(N, outputs, H, W)``, or twice the sides.

        Demodulated ones are multiplied by ``gain``, and ``added`` joins them, in one pass over the maps.
        """
        s, weight = self.style(w), self.weight * self.scale
        x = x * s.view(len(x), -1, 1, 1).to(x.dtype)
        if self.doubles:  # three of four places are zeros, which the filter makes up for by 4
            y = filtered(conv_transpose2d(x, (4 * weight).transpose(0, 1), stride=2), padding=1)
        else:
            y = conv2d(x, weight, padding=weight.shape[-1] // 2)
        if not self.demodulate:
            return y
        energy = s.square() @ weight.square().sum((2, 3)).t()
        scale = (gain * (energy + 1e-8).rsqrt()).view(len(y), -1, 1, 1).to(y.dtype)
        return y * scale if added is None else torch.addcmul(added.to(y.dtype), y, scale)


class Noise(nn.Module):
    """One plane of noise for each example, with a weight of each channel that is learned, 0 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, plane: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` and a plane ``(N, 1, H, W)`` to such maps."""
        y: Tensor = x + (self.weight * plane).to(x.dtype)
        return y
