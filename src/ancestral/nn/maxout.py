"""Maxout (Goodfellow et al., 2013), https://arxiv.org/abs/1302.4389."""

from torch import Tensor, nn


class Maxout(nn.Module):
    """Units that are the largest of several affine functions of the input.

    Args:
        inputs: features of the input.
        units: of the output.
        pieces: affine functions of each unit.

    >>> import torch
    >>> layer = Maxout(1, 1, 2)
    >>> _ = layer.affine.load_state_dict({"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.zeros(2)})
    >>> layer(torch.tensor([[-3.0], [2.0]])).tolist()  # the absolute value
    [[3.0], [2.0]]
    """

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.units, self.pieces = units, pieces
        self.affine = nn.Linear(inputs, units * pieces)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs)`` to ``(N, units)``."""
        h: Tensor = self.affine(x)
        return h.view(len(x), self.units, self.pieces).amax(2)
