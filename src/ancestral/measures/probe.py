"""Linear probes: what can be read from features without learning more than a hyperplane for each class."""

import warnings
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_STEPS = 300
"""Of the optimizer; features that nothing can be read from may take more, and tell as little then."""


Label = TypeVar("Label", bound=np.generic)


def linear_probe(
    x: NDArray[np.floating], labels: NDArray[Label], others: NDArray[np.floating]
) -> NDArray[Label]:
    """The classes ``(M,)`` of ``others`` ``(M, D)``, by a logistic regression on ``x`` ``(N, D)``.

    Features are standardized, and the weights have scikit-learn's own penalty (C = 1). Nothing is random.
    Where there is one class alone, it is that one.

    >>> x = np.array([[0.0, 5.0], [1.0, 4.0], [5.0, 5.0], [6.0, 4.0]])
    >>> linear_probe(x, np.array([3, 3, 7, 7]), np.array([[0.5, 9.0], [5.5, 0.0]])).tolist()
    [3, 7]
    """
    if len(np.unique(labels)) == 1:
        return np.full(len(others), labels[0])
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415  # all three take a second to import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    scaler = StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=_STEPS).fit(scaler.transform(x), labels)
    found: NDArray[Label] = model.predict(scaler.transform(others))
    return found
