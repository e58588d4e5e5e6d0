"""Outputs of autoregressive networks: the parameters of each value's distribution, channels in order."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import elu

from ancestral.distributions.likelihood import Likelihood
from ancestral.nn.causal import RasterConv2d, channel_groups
from ancestral.nn.streaming import Chain, Cursor, Pointwise


class OutputConv2d(RasterConv2d):
    """The last convolution, which autocast leaves alone.

    Half precision would round a level's location by half a level of 256.
    """

    def forward(self, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """See ``RasterConv2d``."""
        device = x.device.type
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return super().forward(x, cursor)
        with torch.autocast(device, enabled=False):
            return super().forward(x.to(self.weight.dtype), cursor)


def masked_head(group: Tensor, hidden: int, *, groups: int, likelihood: Likelihood, layers: int = 1) -> Chain:
    """Output of a network that keeps the channels in order: ReLU and 1x1 convolutions.

    Args:
        group: the data's channel that each input channel belongs to.
        hidden: channels between.
        groups: channels of the data that are kept in order.
        likelihood: what the output parametrizes.
        layers: convolutions before the output.
    """
    between = channel_groups(max(hidden, groups), groups)
    chain: list[nn.Module] = []
    for _ in range(layers):
        chain += [nn.ReLU(), RasterConv2d(group, between)]
        group = between
    return Chain(*chain, nn.ReLU(), _output(group, groups, likelihood))


class ChannelHead(nn.Module):
    """Output of a network that sees none of a position's own values: a nonlinearity and a 1x1 convolution.

    With several channels that are not coupled by the likelihood, a hidden layer joins the values of the
    channels before.

    Args:
        width: channels of the network's features, and of the hidden layer.
        groups: channels of the data that are kept in order.
        input_groups: the one that each feature of the input comes from.
        likelihood: what the output parametrizes.
        nonlinearity: what stands before each convolution.
    """

    def __init__(
        self, width: int, *, groups: int, input_groups: Tensor, likelihood: Likelihood,
        nonlinearity: Callable[[Tensor], Tensor] = elu,
    ) -> None:  # fmt: skip
        super().__init__()
        self.nonlinearity = nonlinearity
        between = channel_groups(max(width, groups), groups)
        self.trunk = Pointwise(width, len(between)) if groups > 1 else None
        self.own = RasterConv2d(input_groups, between, mask="A") if groups > 1 else None
        self.output = _output(between if groups > 1 else width, groups, likelihood)

    def forward(self, h: Tensor, x: Tensor, cursor: Cursor | None = None) -> Tensor:
        """Features ``(N, width, H, W)`` and input ``(N, F, H, W)`` to the parameters of the likelihood."""
        if self.trunk is not None and self.own is not None:
            h = self.trunk(self.nonlinearity(h)) + self.own(x, cursor)
        result: Tensor = self.output(self.nonlinearity(h), cursor)
        return result


def _output(in_groups: int | Tensor, groups: int, likelihood: Likelihood) -> OutputConv2d:
    layer = OutputConv2d(in_groups, torch.arange(groups).repeat_interleave(likelihood.channels // groups))
    likelihood.initialize(layer)
    return layer
