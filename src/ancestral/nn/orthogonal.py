"""Orthogonal regularization (Brock et al., 2016 and 2018), https://arxiv.org/abs/1809.11096, equation 3."""

from collections.abc import Iterable

import torch
from torch import Tensor


def orthogonal_penalty(weights: Iterable[Tensor]) -> Tensor:
    r""":math:`\sum \lVert W W^T \odot (1 - I) \rVert_F^2` of weights ``(outputs, ...)`` as matrices.

    Rows may have any length: only the angles between them count, so that the weights stay as smooth as the
    game wants them.

    >>> orthogonal_penalty([torch.tensor([[1.0, 1.0], [0.0, 2.0]])]).item()
    8.0
    """
    return torch.stack([_between_rows(weight.flatten(1)) for weight in weights]).sum()


def _between_rows(matrix: Tensor) -> Tensor:
    """The sum of the squared products of all two rows, by the smaller of the two matrices of products."""
    rows, columns = matrix.shape
    if rows <= columns:
        products = matrix @ matrix.t()
        return (products - products.diagonal().diag()).square().sum()
    own = matrix.square().sum(1)
    return (matrix.t() @ matrix).square().sum() - own.square().sum()
