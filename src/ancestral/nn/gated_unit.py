"""The gated activation unit of Gated PixelCNN and WaveNet."""

from torch import Tensor


def gated_unit(x: Tensor) -> Tensor:
    """``tanh(a) * sigmoid(b)``, ``a`` and ``b`` the halves of the channels (van den Oord et al., 2016).

    >>> import torch
    >>> gated_unit(torch.tensor([[0.5, 0.0]]))
    tensor([[0.2311]])

    Args:
        x: ``(N, 2 C, ...)``.
    """
    a, b = x.chunk(2, 1)
    return a.tanh() * b.sigmoid()
