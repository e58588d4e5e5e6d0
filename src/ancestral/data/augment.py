"""Random flips and shifts of training images."""

import torch
from torch import Generator, Tensor


def augment(x: Tensor, generator: Generator, *, flip: bool = False, shift: int = 0) -> Tensor:
    """Flip and shift each image of a batch by its own draws from the generator; a pure function of both.

    Args:
        x: images ``(N, C, H, W)`` of any dtype, on any device.
        generator: source of all randomness; may live on another device than ``x``.
        flip: mirror an image left to right with probability 1/2.
        shift: move an image by -shift..shift pixels along both axes, uniformly, as cropping from an image
            padded with its own edges does.

    >>> x = torch.tensor([[[[1, 2, 3]]]] * 3)
    >>> augment(x, torch.Generator().manual_seed(0), flip=True).flatten(1).tolist()
    [[1, 2, 3], [3, 2, 1], [3, 2, 1]]
    """
    N, C, H, W = x.shape
    source = generator.device
    if flip:
        flipped = torch.randint(2, (N, 1, 1, 1), generator=generator, device=source).to(x.device)
        x = torch.where(flipped.bool(), x.flip(-1), x)
    if shift:
        span = 2 * shift + 1
        shifts = torch.randint(span, (2, N, 1), generator=generator, device=source) - shift
        shifts = shifts.to(x.device)
        rows = (torch.arange(H, device=x.device) + shifts[0]).clamp(0, H - 1)
        columns = (torch.arange(W, device=x.device) + shifts[1]).clamp(0, W - 1)
        examples = torch.arange(N, device=x.device).view(N, 1, 1, 1)
        channels = torch.arange(C, device=x.device).view(1, C, 1, 1)
        x = x[examples, channels, rows.view(N, 1, H, 1), columns.view(N, 1, 1, W)]
    return x
