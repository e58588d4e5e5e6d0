"""Augmentation inside the game: both sides see real and generated images changed in the same random ways.

The generator learns through the changes, and as long as they can be undone in distribution it does not learn
to make them. Few images then serve the critic for longer.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ancestral.nn.normalization import mean_over_processes

_TARGET, _IMAGES = 0.6, 500_000


class DifferentiableAugmentation(nn.Module):
    """Color, translation and cutout of images, each with probability p.

    Zhao et al., 2020 (https://arxiv.org/abs/2006.10738), where p is 1. ``adapt`` moves it so that the critic
    is as sure of real images as it should be (Karras et al., 2020, https://arxiv.org/abs/2006.06676, with
    fewer kinds of changes than theirs).

    Args:
        p: probability of each change at first.
    """

    p: Tensor

    def __init__(self, p: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(p))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1], around it with other colors."""
        for change in (_colored, _shifted, _cut):
            changes = torch.rand(len(x), 1, 1, 1, device=x.device) < self.p
            x = torch.where(changes, change(x), x)
        return x

    @torch.no_grad()
    def adapt(self, r: Tensor, examples: int) -> None:
        """Follow the critic's logits of real images: p goes from 0 to 1 in 500,000 images at most.

        Args:
            r: logits ``(N,)``.
            examples: how many images the critic has seen since the last time, in all processes.
        """
        overfits = mean_over_processes(r.sign().mean()) - _TARGET
        self.p.add_(overfits.sign() * examples / _IMAGES).clamp_(0, 1)


def _uniform(x: Tensor) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype)


def _colored(x: Tensor) -> Tensor:
    """Brightness within .5, saturation by up to 2, contrast by .5 to 1.5."""
    x = x + (_uniform(x) - 0.5)
    gray = x.mean(1, keepdim=True)
    x = gray + (x - gray) * (2 * _uniform(x))
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (x - mean) * (_uniform(x) + 0.5)


def _shifted(x: Tensor) -> Tensor:
    """By up to an eighth of each side, with zeros coming in."""
    n, _, height, width = x.shape
    rows, columns = (_places(n, side, x.device) for side in (height, width))
    padded = pad(x, [side for size in (width, height) for side in (_reach(size), _reach(size))])
    images = torch.arange(n, device=x.device).view(-1, 1, 1)
    return padded.movedim(1, 3)[images, rows.unsqueeze(2), columns.unsqueeze(1)].movedim(3, 1)


def _reach(side: int) -> int:
    return max(1, round(side / 8))


def _places(n: int, side: int, device: torch.device) -> Tensor:
    """Where each row of the shifted images is taken from, in padded ones: ``(n, side)``."""
    shift = torch.randint(2 * _reach(side) + 1, (n, 1), device=device)
    return shift + torch.arange(side, device=device)


def _cut(x: Tensor) -> Tensor:
    """A square of half the side, anywhere, is zero."""
    n, _, height, width = x.shape
    rows, columns = (
        torch.arange(side, device=x.device) - torch.randint(side, (n, 1), device=x.device)
        for side in (height, width)
    )
    inside = _near(rows, height).view(n, 1, height, 1) & _near(columns, width).view(n, 1, 1, width)
    return x.masked_fill(inside, 0.0)


def _near(distances: Tensor, side: int) -> Tensor:
    """Which places are in the half of a side around the middle of what is cut."""
    return (4 * distances >= -side) & (4 * distances < side)
