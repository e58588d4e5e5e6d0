"""Layers with an equalized learning rate (Karras et al., 2017, section 4.1).

https://arxiv.org/abs/1710.10196. Weights are drawn from N(0, 1) and multiplied by He's constant each time
they are used, in place of once at the start: an optimizer that divides by gradients, as Adam does, then moves
all weights at one relative speed.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

RECTIFIED = math.sqrt(2.0)
"""The gain of a layer before a rectifier."""


class EqualizedLinear(nn.Module):
    """``y = x (c W)^T + r b`` with ``c = gain r / sqrt(inputs)``.

    Args:
        inputs: numbers that come in.
        outputs: numbers that come out.
        gain: standard deviation of the outputs for inputs of variance 1.
        rate: r, the learning rate of this layer beside that of others; what comes out at first is the same.
        bias: where biases start; None for none.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        gain: float = RECTIFIED,
        rate: float = 1.0,
        bias: float | None = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """``(*, inputs)`` to ``(*, outputs)``."""
        bias = self.bias if self.bias is None or self.rate == 1 else self.bias * self.rate
        return linear(x, self.weight * self.scale, bias)


class EqualizedConv2d(nn.Module):
    """A convolution, which keeps the sides of a map, with ``c = gain / sqrt(inputs kernel^2)``.

    Args:
        inputs: channels that come in.
        outputs: channels that come out.
        kernel: odd sides of the kernel.
        gain: standard deviation of the outputs for inputs of variance 1.
        bias: whether there are biases, which start at 0.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, gain: float = RECTIFIED, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.padding = gain / (kernel * math.sqrt(inputs)), kernel // 2

    def forward(self, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H, W)``, or fewer places with another stride or padding."""
        around = self.padding if padding is None else padding
        return conv2d(x, self.weight * self.scale, self.bias, stride, around)


def pixel_normalized(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Features ``(N, C, *grid)`` with a mean square of 1 over the channels of each place (section 4.2).

    >>> pixel_normalized(torch.tensor([[3.0, 4.0]])).square().mean().item()
    1.0
    """
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    return (wide * (wide.square().mean(1, keepdim=True) + eps).rsqrt()).to(x.dtype)
