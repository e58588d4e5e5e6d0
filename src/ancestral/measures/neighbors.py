"""How two sets overlap, judged by balls that reach to each point's k-th nearest neighbor."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.errors import check_at_least
from ancestral.measures.frechet import checked

_ROWS = 1024
"""Rows and columns of a block of pairs: 8 MiB, which stay in the cache."""
_SLACK = 1e-11
"""Share of the squared norms by which a point may lie outside a ball and count as on its boundary.

It exceeds the rounding of a squared distance up to thousands of features, so that a copy of a point at the
boundary is inside whichever block it falls into. Features that differ by less than 3e-6 of their distance
from the center are as good as equal."""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Four shares, of which 1 is the best but for density, which may exceed 1 and is about 1 at its best."""

    precision: float
    """Fakes within the ball of some real."""
    recall: float
    """Reals within the ball of some fake."""
    density: float
    """Balls of reals that hold a fake, on average over the fakes, divided by k."""
    coverage: float
    """Reals whose ball holds a fake."""


def overlap(real: Tensor, fake: Tensor, k: int = 5) -> Overlap:
    """Precision and recall, density and coverage of fakes.

    The ball of a point reaches to the k-th nearest of the other points of its own set; what lies on its
    boundary is inside. Copies count as other points. All four depend on N and M: compare at equal numbers.
    Recall does not see copies of training examples.

    Sources: precision and recall, Kynkäänniemi et al., 2019, https://arxiv.org/abs/1904.06991; density and
    coverage, Naeem et al., 2020, https://arxiv.org/abs/2002.09797.

    Args:
        real: ``(N, D)``.
        fake: ``(M, D)``.
        k: The neighbor that a ball reaches to, at least 1.

    Raises:
        UserError: fewer than k + 1 examples, another D, not finite, or k below 1.

    >>> real, fake = torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.tensor([[0.0], [1.0], [2.0], [20.0]])
    >>> overlap(real, fake, k=1)
    Overlap(precision=0.75, recall=1.0, density=2.0, coverage=1.0)
    """
    check_at_least(1, k=k)
    real, fake = centered(k + 1, real=real, fake=fake)
    real_radii, fake_radii = _squared_radii(real, k), _squared_radii(fake, k)
    balls_around = torch.zeros(len(fake), dtype=torch.int64, device=real.device)
    covered, recalled = balls_around.new_zeros(2, len(real), dtype=torch.bool)
    for rows, columns, squared in squared_distances(real, fake, slack=_SLACK):
        in_real_ball = squared <= real_radii[rows, None]
        balls_around[columns] += in_real_ball.sum(0)
        covered[rows] |= in_real_ball.any(1)
        recalled[rows] |= (squared <= fake_radii[columns]).any(1)
    return Overlap(
        precision=_share(balls_around > 0),
        recall=_share(recalled),
        density=float(balls_around.sum()) / (k * len(fake)),
        coverage=_share(covered),
    )


def _share(held: Tensor) -> float:
    return int(held.sum()) / len(held)


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each point to its k-th nearest neighbor, ``(N,)``."""
    nearest = x.new_full((len(x), k), torch.inf)
    for rows, columns, squared in squared_distances(x, x):
        if rows == columns:
            squared.fill_diagonal_(torch.inf)  # by index, not by distance 0: a copy is a neighbor
        nearest[rows] = torch.cat([nearest[rows], squared], 1).topk(k, largest=False).values
    return nearest[:, -1]


def centered(least: int, **features: Tensor) -> list[Tensor]:
    """``checked`` features, less the median of the first.

    |x|² - 2 x·y + |y|² loses the digits that its terms share: in float32 all of them, once features are 4000
    times as far from 0 as from each other. So they are moved to 0, and in float64. A median does not follow
    an outlier away from the others.
    """
    found = checked(least, **features)
    center = found[0].median(0).values
    return [x - center for x in found]


def squared_distances(x: Tensor, y: Tensor, slack: float = 0.0) -> Iterator[tuple[slice, slice, Tensor]]:
    """Squared distances of all pairs, a block at a time, as its rows, its columns and its values.

    Each is lessened by ``slack`` times the squared norms of both, and may by rounding be below 0.
    """
    x_norms, y_norms = ((1 - slack) * points.square().sum(1) for points in (x, y))
    for rows in _slices(len(x)):
        for columns in _slices(len(y)):
            squared = torch.addmm(y_norms[columns], x[rows], y[columns].t(), alpha=-2)
            yield rows, columns, squared.add_(x_norms[rows, None])


def _slices(n: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]
