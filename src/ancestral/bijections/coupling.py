"""Couplings: a part of the values stays, and decides how the other part changes."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ancestral.bijections.base import Bijection, summed, widened
from ancestral.bijections.elementwise import Elementwise
from ancestral.errors import UserError

Network = Callable[[Tensor, Tensor | None], Tensor]
"""A network of what stays and of the context, to the parameters of what changes."""


class Coupling(Bijection):
    """Half of the channels, or of the columns of a table, changes by a function of the other half.

    Dinh et al., 2014 (https://arxiv.org/abs/1410.8516), section 3.2.

    Args:
        elementwise: how a value changes.
        network: the half that stays ``(N, C', *grid)`` and the context to the parameters of the one that
            changes, ``(N, elementwise.parameters * C'', *grid)``.
        stays: which half stays.
    """

    def __init__(
        self, elementwise: Elementwise, network: nn.Module, *, stays: Literal["first", "second"] = "first"
    ) -> None:
        super().__init__()
        self.elementwise, self.network, self.stays = elementwise, network, stays

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return self._couple(self.elementwise.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return self._couple(self.elementwise.inverse, z, context)

    def _couple(
        self, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        first, second = x.split(halves(x.shape[1]), 1)
        if self.stays == "first":
            second, log_det = function(second, self.network(first, context))
        else:
            first, log_det = function(first, self.network(second, context))
        return torch.cat([first, second.to(x.dtype)], 1), summed(log_det)


def halves(channels: int, stays: Literal["first", "second"] = "first") -> tuple[int, int]:
    """How many channels stay, and how many change; both halves are cut at the same place.

    Raises:
        UserError: there is one channel alone.

    >>> halves(7), halves(7, "second")
    ((4, 3), (3, 4))
    """
    if channels < 2:
        raise UserError(
            f"expected at least 2 channels or columns to couple, got {channels}",
            "squeeze an image first; for one column use maf",
        )
    first = (channels + 1) // 2
    return (first, channels - first) if stays == "first" else (channels - first, first)


class MaskedCoupling(Bijection):
    """The values where a mask is 0 change by a function of those where it is 1.

    Dinh et al., 2016 (https://arxiv.org/abs/1605.08803), section 3.4. The network sees all places, with zeros
    where values change.

    Args:
        elementwise: how a value changes.
        network: the masked example ``(N, C, *grid)`` and the context to parameters for every place,
            ``(N, elementwise.parameters * C, *grid)``; those of the places that stay are not used.
        mask: booleans that broadcast to an example, true for what stays.
    """

    mask: Tensor

    def __init__(self, elementwise: Elementwise, network: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.elementwise, self.network = elementwise, network
        self.register_buffer("mask", mask.bool(), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.forward``."""
        return self._couple(self.elementwise.forward, x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See ``Bijection.inverse``."""
        return self._couple(self.elementwise.inverse, z, context)

    def _couple(
        self, function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        changed, log_det = function(x, self.network(torch.where(self.mask, x, 0), context))
        zeros = torch.zeros((), dtype=widened(x.dtype), device=x.device)
        return torch.where(self.mask, x, changed.to(x.dtype)), summed(torch.where(self.mask, zeros, log_det))


def checkerboard(height: int, width: int, *, odd: bool = False) -> Tensor:
    """Booleans ``(1, H, W)``, true where row + column is odd, or with ``odd`` false there.

    >>> checkerboard(2, 3).int()
    tensor([[[0, 1, 0],
             [1, 0, 1]]], dtype=torch.int32)
    """
    sums = torch.arange(height).unsqueeze(1) + torch.arange(width)
    return ((sums % 2 == 1) != odd).unsqueeze(0)
