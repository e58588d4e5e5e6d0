"""Strided convolutional encoder and its mirror image, with the residual blocks of the VQ-VAE paper."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from ancestral.errors import UserError
from ancestral.nn.normalization import BatchNorm


class ResidualBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, added to the input (van den Oord et al., 2017, 4.1).

    With ``normalize``, batch normalization follows the 3x3 convolution.
    """

    def __init__(self, width: int, hidden: int, normalize: bool = False) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, hidden, 3, padding=1),
            *_norm(hidden, normalize),
            nn.ReLU(),
            nn.Conv2d(hidden, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, width, H, W)`` to the same shape."""
        return x + self.branch(x)


class OutputConv2d(nn.Conv2d):
    """The last convolution of a decoder, which autocast leaves alone.

    Half precision would round a level's location by half a level of 256.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See ``torch.nn.Conv2d``."""
        device = x.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(x)
        with torch.autocast(device, enabled=False):
            return super().forward(x.to(self.weight.dtype))


def _norm(width: int, normalize: bool) -> list[nn.Module]:
    return [BatchNorm(width)] if normalize else []


def check_stride(stride: int, grid: tuple[int, ...], other: str = "another stride") -> None:
    """Raise UserError unless ``stride`` is a power of two that divides each size of ``grid``.

    ``other`` says what may be chosen in place of resized images.
    """
    if stride < 1 or stride & (stride - 1):
        raise UserError(f"expected a stride that is a power of 2, got {stride}", "choose 2, 4 or 8")
    if any(size % stride for size in grid):
        sizes = "x".join(map(str, grid))
        fitting = "x".join(str(max(1, round(size / stride)) * stride) for size in grid)
        raise UserError(
            f"expected an image that stride {stride} divides, got {sizes}",
            f"resize the images to {fitting} or choose {other}",
        )


def _widths(width: int, stride: int) -> list[int]:
    """Channels at each resolution, from the finest to the coarsest: they double, up to ``width``."""
    levels = int(math.log2(stride))
    return [max(width >> (levels - i), min(width, 32)) for i in range(levels + 1)]


class Encoder(nn.Sequential):
    """``(N, in_channels, H, W)`` to ``(N, out_channels, H/stride, W/stride)``.

    4x4 convolutions of stride 2, then residual blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int,
        stride: int,
        blocks: int,
        residual_width: int,
        normalize: bool = False,
    ) -> None:
        layers: list[nn.Module] = []
        widths = _widths(width, stride)
        channels = in_channels
        for wider in widths[1:]:
            layers += [
                nn.Conv2d(channels, wider, 4, stride=2, padding=1),
                *_norm(wider, normalize),
                nn.ReLU(),
            ]
            channels = wider
        layers += [nn.Conv2d(channels, width, 3, padding=1), *_norm(width, normalize)]
        layers += [ResidualBlock(width, residual_width, normalize) for _ in range(blocks)]
        super().__init__(*layers, nn.ReLU(), nn.Conv2d(width, out_channels, 1))


class Decoder(nn.Sequential):
    """``(N, in_channels, h, w)`` to ``(N, out_channels, stride h, stride w)``.

    Residual blocks, then transposed 4x4 convolutions. ``fine_blocks`` more residual blocks follow each
    doubling of the resolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, width: int, stride: int, blocks: int,
        residual_width: int, fine_blocks: int = 0, normalize: bool = False,
    ) -> None:  # fmt: skip
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1), *_norm(width, normalize)]
        layers += [ResidualBlock(width, residual_width, normalize) for _ in range(blocks)]
        widths = _widths(width, stride)
        for coarse, fine in pairwise(reversed(widths)):
            layers += [
                nn.ReLU(),
                nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1),
                *_norm(fine, normalize),
            ]
            layers += [ResidualBlock(fine, fine, normalize) for _ in range(fine_blocks)]
        super().__init__(*layers, nn.ReLU(), OutputConv2d(widths[0], out_channels, 1))

    @property
    def output(self) -> nn.Conv2d:
        """The last layer."""
        last = self[-1]
        assert isinstance(last, nn.Conv2d)
        return last
