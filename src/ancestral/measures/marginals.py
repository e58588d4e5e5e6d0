"""How far the distributions of single columns lie apart."""

import torch
from torch import Tensor

from ancestral.measures.frechet import checked


def kolmogorov_smirnov(x: Tensor, y: Tensor) -> Tensor:
    """The largest difference of the distribution functions of each column, ``(D,)`` in [0, 1].

    Args:
        x: rows ``(N, D)``.
        y: others ``(M, D)``.

    Raises:
        UserError: no rows, another D, or not finite.

    >>> kolmogorov_smirnov(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [2.0], [3.0]])).item()
    0.6666666666666667
    """
    columns, others = (rows.T.contiguous().sort(1).values for rows in checked(1, x=x, y=y))
    at = torch.cat([columns, others], 1)
    here, there = (
        torch.searchsorted(values, at, right=True).double() / values.shape[1] for values in (columns, others)
    )
    return (here - there).abs().amax(1)
