"""What recordings of the same words by different speakers have in common: a space to compare contents in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SHRINKAGE = 0.05
"""Of the covariance within groups toward that of independent features."""


@dataclass(frozen=True)
class CommonSpace:
    r"""A linear map in which examples of a group lie near each other, whichever speaker they are of.

    Fisher's linear discriminants of many small groups: of features without their speaker's mean, with W the
    covariance within groups and S that of the groups' means, each times the root of its size, the directions
    solve :math:`S v = \lambda W v`. Each is weighted by :math:`\sqrt{1 - 1 / \lambda}`, what of a mean is not
    chance (Ioffe, Probabilistic linear discriminant analysis, 2006, https://doi.org/10.1007/11744085_41);
    those with :math:`\lambda < 1` are left out. Groups that it has not seen have places in it, too.

    >>> x = np.array([[0.0, 5.0], [9.1, 4.0], [2.0, 1.0], [11.0, 7.0], [4.1, 5.0], [13.0, 3.0]])
    >>> space = CommonSpace.fit(x, np.array(["a", "a", "b", "b", "c", "c"]), np.array([0, 1] * 3))
    >>> places = space(np.array([[1.0, 9.0], [10.0, 0.0], [12.0, 9.0]]), np.array([0, 1, 1]))
    >>> bool(abs(places[0] - places[1]).max() < abs(places[0] - places[2]).max())
    True
    """

    means: dict[int, NDArray[np.float64]]
    """Of each speaker, ``(D,)``."""
    projection: NDArray[np.float64]
    """``(D, K)``."""

    @classmethod
    def fit(
        cls, x: NDArray[np.floating], groups: NDArray[np.str_], speakers: NDArray[np.integer]
    ) -> "CommonSpace | None":
        """The space of features ``(N, D)`` in groups ``(N,)`` by speakers ``(N,)``.

        None if there are not two groups of two examples or more: nothing then says what is common.
        """
        means = {int(k): x[speakers == k].mean(0, dtype=np.float64) for k in np.unique(speakers)}
        y = x - np.stack([means[int(k)] for k in speakers])
        y /= (scale := y.std(0) + 1e-9)
        names, of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        several = sizes > 1
        if several.sum() < 2:
            return None
        centers = np.zeros((len(names), y.shape[1]))
        np.add.at(centers, of, y)
        centers /= sizes[:, None]
        apart = (y - centers[of])[several[of]]
        within = apart.T @ apart / (len(apart) - several.sum())
        size = len(within)
        within = (1 - _SHRINKAGE) * within + _SHRINKAGE * np.eye(size) * max(np.trace(within) / size, 1e-9)
        rooted = centers[several] * np.sqrt(sizes[several])[:, None]
        whitened = np.linalg.inv(np.linalg.cholesky(within))
        values, turned = np.linalg.eigh(whitened @ (rooted.T @ rooted / several.sum()) @ whitened.T)
        directions = whitened.T @ turned
        weights = np.sqrt(np.clip(1 - 1 / np.maximum(values, 1e-9), 0, None))
        kept = weights > 0
        return cls(means, directions[:, kept] * weights[kept] / scale[:, None])

    def __call__(self, x: NDArray[np.floating], speakers: NDArray[np.integer]) -> NDArray[np.float64]:
        """The places ``(N, K)`` of features ``(N, D)`` by speakers ``(N,)`` that it was fit to."""
        centered = x - np.stack([self.means[int(k)] for k in speakers])
        places: NDArray[np.float64] = centered @ self.projection
        return places
