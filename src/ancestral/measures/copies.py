"""Whether samples are copies of training examples (Meehan et al., 2020), https://arxiv.org/abs/2004.05675."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.errors import UserError
from ancestral.measures.intervals import checked_values
from ancestral.measures.neighbors import centered, squared_distances


@dataclass(frozen=True, kw_only=True, eq=False)
class Copying:
    """How near samples come to the training set, against examples that it does not hold."""

    auroc: float
    """Near 0.5 without copying; towards 1 the nearer samples are to the training set than held-out examples
    are, towards 0 the farther. Samples of poor quality are far and hide copies among them."""
    distances: Tensor
    """From each sample to its nearest training example, ``(N,)``, in units of the features."""
    indices: Tensor
    """Which training example that is, ``(N,)``."""
    held_out_distances: Tensor
    """From each held-out example to its nearest training example, ``(M,)``."""


def copying(samples: Tensor, held_out: Tensor, training: Tensor) -> Copying:
    """The distances of samples to their nearest training examples, ranked among those of held-out examples.

    Args:
        samples: ``(N, D)``.
        held_out: Examples of the data that the model was not trained on, ``(M, D)``.
        training: Examples that it was trained on, ``(T, D)``.

    Raises:
        UserError: no examples, another D, or not finite.

    >>> training, held_out = torch.tensor([[0.0], [4.0]]), torch.tensor([[1.0], [6.0]])
    >>> copying(training, held_out, training).auroc
    1.0
    """
    distances, indices = nearest(samples, training)
    held_out_distances, _ = nearest(held_out, training)
    return Copying(
        auroc=auroc(distances, held_out_distances),
        distances=distances,
        indices=indices,
        held_out_distances=held_out_distances,
    )


def nearest(x: Tensor, among: Tensor, exclude_self: bool = False) -> tuple[Tensor, Tensor]:
    """Euclidean distance of each row to the nearest of others, and its index: ``(N,)`` float64 and ``(N,)``.

    Distances are exact within the rounding of float64, and 0 between copies. Of others that are equally near
    within it, any is given.

    Args:
        x: ``(N, D)``.
        among: ``(M, D)``.
        exclude_self: ``among`` is ``x``, and no row is its own neighbor; its copies are.

    Raises:
        UserError: no examples, another D, not finite, or ``exclude_self`` of sets of different sizes.

    >>> distances, indices = nearest(torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [3.0]]))
    >>> distances.tolist(), indices.tolist()
    ([1.0, 0.0], [0, 1])
    """
    x, among = centered(1 + exclude_self, x=x, among=among)
    if exclude_self and len(x) != len(among):
        problem = f"expected the same examples twice to exclude each itself, got {len(x)} and {len(among)}"
        raise UserError(problem, "leave out exclude_self")
    least, indices = x.new_full((len(x),), torch.inf), x.new_zeros(len(x), dtype=torch.int64)
    for rows, columns, squared in squared_distances(x, among):
        if exclude_self and rows == columns:
            squared.fill_diagonal_(torch.inf)
        values, found = squared.min(1)
        indices[rows] = torch.where(values < least[rows], found + columns.start, indices[rows])
        least[rows] = torch.minimum(values, least[rows])
    # The nearest is known; its distance is taken anew, as a difference of squares leaves 1e-8 between copies.
    distances = [
        (rows - among[found]).square().sum(1).sqrt()
        for rows, found in zip(x.split(_ROWS), indices.split(_ROWS), strict=True)
    ]
    return torch.cat(distances), indices


_ROWS = 4096
"""Differences held at once."""


def auroc(a: Tensor, b: Tensor) -> float:
    """Area under the ROC curve, P(a < b) + P(a = b) / 2: 1 if every ``a`` is below every ``b``.

    It is the Mann-Whitney U statistic as a share of the pairs, of any values ``(N,)`` and ``(M,)``.

    Raises:
        UserError: no values, not 1-dimensional, or not finite.

    >>> auroc(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 2.0]))
    0.875
    """
    a, b = checked_values(1, a=a), checked_values(1, b=b)
    ranked, b = a.sort().values, b.to(a.device)
    below = torch.searchsorted(ranked, b).sum()
    up_to = torch.searchsorted(ranked, b, right=True).sum()
    return float(below + up_to) / (2 * len(a) * len(b))
