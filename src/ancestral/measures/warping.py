"""Dynamic time warping: how far two sequences are apart when either may be stretched."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 2**22
"""Distances of frames that are in memory together."""


def warping_distances(x: NDArray[np.floating], others: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    r"""The distance of a sequence ``(T, D)`` to each of others ``(T_i, D)``, in the units of the features.

    The symmetric form of Sakoe & Chiba (1978, https://doi.org/10.1109/TASSP.1978.1163055), of slope weights
    1, 2 and 1 and without a window: :math:`g(i, j) = \min(g(i, j-1) + d(i, j), g(i-1, j-1) + 2 d(i, j),
    g(i-1, j) + d(i, j))` with Euclidean d, over :math:`T + T_i`. The weights of any path sum to that, so that
    it is a mean along the best path, whatever its length.

    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> warping_distances(x, [x.repeat(2, 0), x + 1]).round(3).tolist()
    [0.0, 0.833]
    """
    found = np.empty(len(others))
    order = sorted(range(len(others)), key=lambda i: len(others[i]))
    while order:
        longest = len(others[order[-1]])
        part = order[-max(1, _AT_ONCE // (len(x) * longest)) :]
        del order[-len(part) :]
        found[part] = _aligned(x, [others[i] for i in part])
    return found


def _aligned(x: NDArray[np.floating], others: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """The distance to each, all of them along one diagonal after another."""
    lengths = np.array([len(other) for other in others])
    height, width = len(x), int(lengths.max())
    distances = np.zeros((len(others), height, width))
    for each, other in zip(distances, others, strict=True):
        squares = (x**2).sum(1)[:, None] + (other**2).sum(1) - 2 * x @ other.T
        each[:, : len(other)] = np.sqrt(np.maximum(squares, 0))
    # Of a diagonal i + j, place i + 1 holds g(i, j); place 0 is before the beginning.
    before, last = (np.full((len(others), height + 1), np.inf) for _ in range(2))
    before[:, 0] = 0
    ends = np.empty(len(others))
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        d = distances[:, rows, diagonal - rows]
        beside = np.minimum(last[:, rows + 1], last[:, rows]) + d
        now = np.full_like(last, np.inf)
        now[:, rows + 1] = np.minimum(beside, before[:, rows] + 2 * d)
        ending = height + lengths - 2 == diagonal
        ends[ending] = now[ending, height]
        before, last = last, now
    return ends / (height + lengths)
