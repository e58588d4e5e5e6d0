"""Kernel distance, known as KID (Bińkowski et al., 2018), https://arxiv.org/abs/1801.01401."""

import torch
from torch import Tensor

from ancestral.measures.frechet import checked

_ROWS = 1024
"""Rows and columns of a block of pairs: 8 MiB, which stay in the cache."""


def kernel_distance(x: Tensor, y: Tensor) -> float:
    r"""Squared maximum mean discrepancy under :math:`k(x, y) = (x \cdot y / D + 1)^3`, without bias.

    .. math:: \sum_{i \ne j} \frac{k(x_i, x_j)}{N(N-1)} + \sum_{i \ne j} \frac{k(y_i, y_j)}{M(M-1)}
        - 2 \sum_{i, j} \frac{k(x_i, y_j)}{NM}

    It takes all pairs, in float64, where others average over random subsets. Its expectation does not depend
    on N and M and is 0 for two sets of one distribution, so that it may be negative. Unlike the Fréchet
    distance it depends on the origin of the features.

    Args:
        x: ``(N, D)``.
        y: ``(M, D)``.

    Raises:
        UserError: fewer than 2 examples, another D, or not finite.

    >>> round(kernel_distance(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]])), 6)
    7.0
    """
    x, y = checked(2, x=x, y=y)
    return float(_mean_of_others(x) + _mean_of_others(y) - 2 * _total(x, y) / (len(x) * len(y)))


def _mean_of_others(x: Tensor) -> Tensor:
    """The mean of the kernel over pairs of different examples."""
    own = (x.square().sum(1) / x.shape[1] + 1).pow(3).sum()
    return (_total(x, x) - own) / (len(x) * (len(x) - 1))


def _total(x: Tensor, y: Tensor) -> Tensor:
    """The sum of the kernel over all pairs."""
    one, total = x.new_ones(()), x.new_zeros(())
    for rows in x.split(_ROWS):
        for columns in y.split(_ROWS):
            total += torch.addmm(one, rows, columns.t(), alpha=1 / x.shape[1]).pow_(3).sum()
    return total
