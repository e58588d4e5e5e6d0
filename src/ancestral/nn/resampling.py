"""Maps of twice and of half the sides, and the low-pass filter that goes with them."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, pad


def doubled(x: Tensor) -> Tensor:
    """Each place as 2x2 places.

    >>> doubled(torch.tensor([[[[1.0, 2.0]]]])).tolist()
    [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """
    return interpolate(x, scale_factor=2, mode="nearest")


def halved(x: Tensor) -> Tensor:
    """The means of 2x2 places."""
    return avg_pool2d(x, 2)


def blurred(x: Tensor, taps: tuple[float, ...] = (1.0, 2.0, 1.0)) -> Tensor:
    """Maps ``(N, C, H, W)`` through a separable filter of gain 1, zeros beyond the edges (Zhang, 2019).

    An even number of taps has its middle half a place to the left and above.

    >>> blurred(torch.tensor([[[[0.0, 4.0, 0.0]]]]), (1.0, 2.0, 1.0)).flatten().tolist()
    [0.5, 1.0, 0.5]
    """
    filter = torch.tensor(taps, device=x.device, dtype=x.dtype)
    filter = filter / filter.sum()
    before, after = len(taps) // 2, (len(taps) - 1) // 2
    y = pad(x, (before, after, before, after)).flatten(0, 1).unsqueeze(1)
    y = conv2d(conv2d(y, filter.view(1, 1, 1, -1)), filter.view(1, 1, -1, 1))
    return y.view(x.shape)


BINOMIAL = (1.0, 3.0, 3.0, 1.0)
"""The filter of StyleGAN2."""


def _kernel(x: Tensor, taps: tuple[float, ...], gain: float) -> Tensor:
    filter = torch.tensor(taps, device=x.device, dtype=x.dtype)
    filter = filter / filter.sum()
    return (gain * filter.view(-1, 1) * filter).view(1, 1, len(taps), len(taps))


def upsampled(x: Tensor) -> Tensor:
    """Maps of twice the sides, between whose places the binomial filter interpolates.

    >>> upsampled(torch.ones(1, 1, 3, 3))[0, 0, 2, 2].item()
    1.0
    """
    n, channels, height, width = x.shape
    y = conv_transpose2d(x.reshape(-1, 1, height, width), _kernel(x, BINOMIAL, 4.0), stride=2, padding=1)
    return y.view(n, channels, 2 * height, 2 * width)


def filtered(x: Tensor, padding: int) -> Tensor:
    """Maps through the binomial filter with so many zeros at each edge: sides grow by ``2 padding - 3``."""
    n, channels, height, width = x.shape
    y = conv2d(x.reshape(-1, 1, height, width), _kernel(x, BINOMIAL, 1.0), padding=padding)
    return y.view(n, channels, *y.shape[2:])
