"""Outputs of factorized networks: features to the parameters of each value's distribution, channels in order."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.nn.streaming import Chain, Cursor, Pointwise

if TYPE_CHECKING:
    from ancestral.models.autoregressive.base import Autoregressive


class OutputConv2d(RasterConv2d):
    """The last convolution, which autocast leaves alone: half precision would round the location of a level by half a level of 256."""

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """See ``RasterConv2d``."""
        device = x.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(x, cursor)
        with torch.autocast(device, enabled=False):
            return super().forward(x.to(self.weight.dtype), cursor)


def masked_head(group: Tensor, hidden: int, model: "Autoregressive", layers: int = 1) -> Chain:
    """Output of a network that keeps the channels in order: ReLU and 1x1 convolutions.

    Args:
        group: the data's channel that each input channel belongs to.
        hidden: channels between.
        model: whose output it is.
        layers: convolutions before the output.
    """
    groups, likelihood = model.groups, model.likelihood_of
    between = channel_groups(max(hidden, groups), groups)
    chain: list[nn.Module] = []
    for _ in range(layers):
        chain += [nn.ReLU(), RasterConv2d(group, between)]
        group = between
    output = OutputConv2d(group, torch.arange(groups).repeat_interleave(likelihood.channels // groups))
    likelihood.initialize(output)
    return Chain(*chain, nn.ReLU(), output)


class ChannelHead(nn.Module):
    """Output of a network that sees none of a position's own values: a nonlinearity and a 1x1 convolution.

    With several channels that are not coupled by the likelihood, a hidden layer joins the values of the channels before.

    Args:
        width: channels of the network's features.
        hidden: channels of the hidden layer.
        model: whose output it is.
        nonlinearity: what stands before each convolution.
    """

    def __init__(
        self, width: int, hidden: int, model: "Autoregressive", nonlinearity: Callable[[Tensor], Tensor] = elu
    ) -> None:
        super().__init__()
        self.nonlinearity = nonlinearity
        groups = model.groups
        between = channel_groups(max(hidden, groups), groups)
        self.trunk = Pointwise(width, len(between)) if groups > 1 else None
        self.own = RasterConv2d(model.input_groups, between, mask="A") if groups > 1 else None
        out_groups = torch.arange(groups).repeat_interleave(model.likelihood_of.channels // groups)
        self.output = OutputConv2d(between if groups > 1 else width, out_groups)
        model.likelihood_of.initialize(self.output)

    def forward(self, h: Tensor, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """Features ``(N, width, H, W)`` and the input ``(N, F, H, W)`` to the parameters of the likelihood."""
        if self.trunk is not None and self.own is not None:
            h = self.trunk(self.nonlinearity(h)) + self.own(x, cursor)
        result: Tensor = self.output(self.nonlinearity(h), cursor)
        return result
