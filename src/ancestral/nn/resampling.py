"""Maps of twice and of half the sides, and the low-pass filter that goes with them."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad


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
