"""Convolutions over sequences ``(N, C, T)`` of differing lengths: what is padded is zero in every layer.

So a sound that was padded has the features that it has alone, where a convolution pads with zeros too.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, relu


def own(x: Tensor, lengths: Tensor | None) -> Tensor:
    """``x`` ``(N, C, T)`` with zeros beyond the length of each, ``(N,)``; as it is without lengths.

    >>> own(torch.ones(2, 1, 3), torch.tensor([3, 1])).tolist()
    [[[1.0, 1.0, 1.0]], [[1.0, 0.0, 0.0]]]
    """
    if lengths is None:
        return x
    return x * (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None].to(x.dtype)


class ResidualSequence(nn.Module):
    """ReLU, a convolution of 3, ReLU, one of 1, added to the input, ``(N, width, T)``."""

    def __init__(self, width: int, hidden: int, dilation: int = 1) -> None:
        super().__init__()
        self.wide = nn.Conv1d(width, hidden, 3, padding=dilation, dilation=dilation)
        self.narrow = nn.Conv1d(hidden, width, 1)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The sum; the input is zero where it is padded, and so is the output."""
        return own(x + self.narrow(relu(self.wide(relu(x)))), lengths)


class Downsampling(nn.Module):
    """Convolutions of stride 2 and window 4 (van den Oord et al., 2017, section 4.4), then residual blocks.

    ``(N, in, T)`` to ``(N, width, T / factor)``, factor a power of 2 that divides T.
    """

    def __init__(self, inputs: int, *, width: int, factor: int, blocks: int, hidden: int) -> None:
        super().__init__()
        halvings = factor.bit_length() - 1
        channels = [inputs, *[width] * halvings]
        self.halvings = nn.ModuleList(
            nn.Conv1d(channels[i], channels[i + 1], 4, stride=2, padding=1) for i in range(halvings)
        )
        self.mix = nn.Conv1d(channels[-1], width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualSequence(width, hidden) for _ in range(blocks))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Features; ``lengths`` are those of the output, and the input is zero beyond as many of its own."""
        for i, halving in enumerate(self.halvings, 1):
            left = 2 ** (len(self.halvings) - i)
            x = own(relu(halving(x)), None if lengths is None else lengths * left)
        x = own(self.mix(x), lengths)
        for block in self.blocks:
            x = block(x, lengths)
        return x


class Upsampling(nn.Module):
    """Residual blocks, then transposed convolutions of stride 2 and window 4, each before a dilated block.

    ``(N, width, L)`` to ``(N, out, L * factor)``.
    """

    def __init__(
        self, outputs: int, *, width: int, factor: int, blocks: int, hidden: int, least: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualSequence(width, hidden) for _ in range(blocks))
        doublings = factor.bit_length() - 1
        widths = [width, *(max(least, width >> i) for i in range(1, doublings + 1))]
        self.doublings = nn.ModuleList(
            nn.ConvTranspose1d(widths[i], widths[i + 1], 4, stride=2, padding=1) for i in range(doublings)
        )
        self.finer = nn.ModuleList(
            nn.ModuleList(ResidualSequence(w, max(least, w // 2), dilation) for dilation in (1, 3))
            for w in widths[1:]
        )
        self.output = nn.Conv1d(widths[-1], outputs, 7, padding=3)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """The result; ``lengths`` are those of the input, which is zero beyond."""
        for block in self.blocks:
            x = block(x, lengths)
        for doubling, blocks in zip(self.doublings, self.finer, strict=True):
            lengths = None if lengths is None else lengths * 2
            x = own(doubling(relu(x)), lengths)
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                x = block(x, lengths)
        return own(self.output(relu(x)), lengths)


def normalized(x: Tensor) -> Tensor:
    """``(N, C, T)`` with the channels of each place brought to mean 0 and variance 1; zeros stay zeros.

    So features can neither vanish nor drift away from their codes, and a place tells nothing of others.
    """
    return layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


def jittered(x: Tensor, share: float, lengths: Tensor | None) -> Tensor:
    """``(N, C, L)`` in which a share of the places have what one of their neighbors had.

    Each as likely the left or the right one, where there is one (Chorowski et al., 2019, section III.D,
    https://arxiv.org/abs/1901.08810): no code can say much that its neighbors do not know.
    """
    n, _, places = x.shape
    chance = torch.rand(n, places, device=x.device)
    step = (chance < share).long() - 2 * (chance < share / 2).long()
    most = (torch.full((n,), places, device=x.device) if lengths is None else lengths)[:, None] - 1
    index = (torch.arange(places, device=x.device) + step).clamp(min=0)
    return x.gather(2, torch.minimum(index, most.clamp(min=0))[:, None].expand_as(x))


def wrapped(x: Tensor, lengths: Tensor | None) -> Tensor:
    """``(N, C, L)`` whose padding repeats what is before it: for statistics that padding must not enter.

    >>> wrapped(torch.tensor([[[1, 2, 0, 0, 0]]]), torch.tensor([2])).tolist()
    [[[1, 2, 1, 2, 1]]]
    """
    if lengths is None:
        return x
    places = torch.arange(x.shape[2], device=x.device) % lengths[:, None]
    return x.gather(2, places[:, None].expand_as(x))
