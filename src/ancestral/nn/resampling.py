"""Maps of twice and of half the sides, and the low-pass filter that goes with them."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate


def doubled(x: Tensor) -> Tensor:
    """Each place as 2x2 places.

    >>> doubled(torch.tensor([[[[1.0, 2.0]]]])).tolist()
    [[[[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]]]
    """
    return interpolate(x, scale_factor=2, mode="nearest")


def halved(x: Tensor) -> Tensor:
    """The means of 2x2 places."""
    return avg_pool2d(x, 2)


BINOMIAL = (1.0, 3.0, 3.0, 1.0)
"""The filter of StyleGAN2."""


def filtered(x: Tensor, padding: int, taps: tuple[float, ...] = BINOMIAL) -> Tensor:
    """Maps through a separable filter of gain 1 with so many zeros at each edge.

    One convolution with a channel's filter for each channel, which is many times faster than maps as examples
    of a convolution of one channel.
    """
    line = torch.empty(len(taps), device=x.device, dtype=x.dtype)
    for i, tap in enumerate(taps):  # made on the device, which a tensor of the host would have to wait for
        line[i] = tap / sum(taps)
    kernel = (line.view(-1, 1) * line).expand(x.shape[1], 1, -1, -1)
    return conv2d(x, kernel, padding=padding, groups=x.shape[1])


def blurred(x: Tensor) -> Tensor:
    """Maps of the same sides through the filter 1, 2, 1, zeros beyond the edges (Zhang, 2019).

    >>> blurred(torch.tensor([[[[0.0, 4.0, 0.0]]]])).flatten().tolist()
    [0.5, 1.0, 0.5]
    """
    return filtered(x, 1, (1.0, 2.0, 1.0))


def upsampled(x: Tensor) -> Tensor:
    """Maps of twice the sides, between whose places the binomial filter interpolates.

    >>> upsampled(torch.ones(1, 1, 3, 3))[0, 0, 2, 2].item()
    1.0
    """
    return blurred(doubled(x))
