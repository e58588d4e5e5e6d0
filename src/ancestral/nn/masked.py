"""Convolutions that see only the past of the raster order, channel by channel."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad


def channel_groups(width: int, groups: int) -> Tensor:
    """The group of each of ``width`` channels, ``(width,)``: as even as can be, in order, also where ``groups`` does not divide."""
    return torch.arange(width) * groups // width


class VerticalConv2d(nn.Conv2d):
    """Sees its own row and the k//2 rows above, k//2 columns to each side: ``(N, C, H, W)`` to ``(N, out, H, W)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, (kernel // 2 + 1, kernel))
        self.reach = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, padding the top and the sides with zeros."""
        return super().forward(pad(x, (self.reach, self.reach, self.reach, 0)))


class HorizontalConv2d(nn.Conv2d):
    """Sees its own position and the ``reach`` positions to the left, with the channels in an order: ``(N, C, H, W)`` to ``(N, out, H, W)``.

    At its own position, an output channel of group g sees input channels of groups < g (mask A) or <= g (mask B)
    (van den Oord et al., 2016, https://arxiv.org/abs/1601.06759, section 3.4).

    Args:
        in_groups: group of each input channel, ``(in_channels,)``.
        out_groups: group of each output channel, ``(out_channels,)``.
        reach: positions to the left; 0 for a 1x1 convolution.
        mask: ``A`` or ``B``.
    """

    mask: Tensor

    def __init__(self, in_groups: Tensor, out_groups: Tensor, reach: int, mask: str = "B") -> None:
        super().__init__(len(in_groups), len(out_groups), (1, reach + 1))
        self.reach = reach
        visible = out_groups[:, None] > in_groups[None, :] if mask == "A" else out_groups[:, None] >= in_groups[None, :]
        full = torch.ones_like(self.weight)
        full[:, :, 0, -1] = visible.to(full.dtype)
        self.register_buffer("mask", full, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the masked weight, padding the left with zeros."""
        return conv2d(pad(x, (self.reach, 0, 0, 0)), self.weight * self.mask, self.bias)
