"""Random flips and shifts of training images."""

import torch
from torch import Generator, Tensor

from ancestral.data.options import ImageOptions


def augment(x: Tensor, options: ImageOptions, generator: Generator) -> Tensor:
    """Flip and shift each image of a batch by its own draws from the generator; a pure function of both.

    Args:
        x: images ``(N, C, H, W)`` of any dtype, on any device.
        options: ``flip`` mirrors an image left to right with probability 1/2; ``shift`` moves it by -shift..shift pixels along both axes,
            uniformly, as cropping from an image padded with its own edges does.
        generator: source of all randomness; may live on another device than ``x``.
    """
    N, C, H, W = x.shape
    source = generator.device
    if options.flip:
        flipped = torch.randint(2, (N, 1, 1, 1), generator=generator, device=source).to(x.device)
        x = torch.where(flipped.bool(), x.flip(-1), x)
    if options.shift:
        span = 2 * options.shift + 1
        shifts = (torch.randint(span, (2, N, 1), generator=generator, device=source) - options.shift).to(
            x.device
        )
        rows = (torch.arange(H, device=x.device) + shifts[0]).clamp(0, H - 1)
        columns = (torch.arange(W, device=x.device) + shifts[1]).clamp(0, W - 1)
        examples = torch.arange(N, device=x.device).view(N, 1, 1, 1)
        channels = torch.arange(C, device=x.device).view(1, C, 1, 1)
        x = x[examples, channels, rows.view(N, 1, H, 1), columns.view(N, 1, 1, W)]
    return x
