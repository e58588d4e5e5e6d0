"""Spectral normalization (Miyato et al., 2018), https://arxiv.org/abs/1802.05957, section 2.1."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)

_SETTLE = 8
"""Power iterations outside training, which start where the last one of training ended."""


class _Spectral(nn.Module):
    """A weight over its largest singular value, as one step of power iteration at each use finds it.

    Outside training several steps find it and none is kept: there a weight may be an average, whose vector is
    an average too and not quite its own.
    """

    u: Tensor

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("u", normalize(torch.randn(len(weight)), dim=0, eps=eps))
        self.eps = eps
        with torch.no_grad():
            for _ in range(_SETTLE):
                self.u.copy_(self._step(weight.flatten(1).to(self.u.dtype), self.u)[0])

    def _step(self, matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        v = normalize(matrix.t() @ u, dim=0, eps=self.eps)
        return normalize(matrix @ v, dim=0, eps=self.eps), v

    def forward(self, weight: Tensor) -> Tensor:
        """``(outputs, ...)`` to the same shape; the gradient does not go through the vectors."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix, u = weight.flatten(1).to(self.u.dtype), self.u
            with torch.no_grad():
                for _ in range(1 if self.training else _SETTLE):
                    u, v = self._step(matrix, u)
                if self.training:
                    self.u.copy_(u)
            return weight / torch.dot(u, matrix @ v).to(weight.dtype)


def spectral_norm(layer: M, eps: float = 1e-12) -> M:
    """Let a layer's weight have a largest singular value of 1; the layer.

    Rows of the matrix are its outputs. A transposed convolution is another matrix, which is not made here.

    >>> layer = spectral_norm(nn.Linear(3, 1)).eval()  # one row: the iteration is exact
    >>> round(torch.linalg.matrix_norm(layer.weight, 2).item(), 4)
    1.0
    """
    parametrize.register_parametrization(layer, "weight", _Spectral(layer.get_parameter("weight"), eps))
    return layer
