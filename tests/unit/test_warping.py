"""Warped distances are those of the recursion, and a stretched copy is no distance away."""

import numpy as np
import pytest

from ancestral.measures import warping
from ancestral.measures.warping import warping_distances


def draw(*lengths, dims=3, seed=0):
    random = np.random.default_rng(seed)
    return [random.normal(size=(length, dims)) for length in lengths]


def recursion(x, y):
    """Sakoe and Chiba, value by value."""
    g = np.full((len(x) + 1, len(y) + 1), np.inf)
    g[0, 0] = 0
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            d = np.linalg.norm(x[i - 1] - y[j - 1])
            g[i, j] = min(g[i, j - 1] + d, g[i - 1, j - 1] + 2 * d, g[i - 1, j] + d)
    return g[-1, -1] / (len(x) + len(y))


@pytest.mark.parametrize("room", [2**22, 40])
def test_distances_are_those_of_the_recursion(room, monkeypatch):
    monkeypatch.setattr(warping, "_AT_ONCE", room)
    (x,), others = draw(7, seed=1), draw(1, 9, 7, 3, 12, 5)
    np.testing.assert_allclose(warping_distances(x, others), [recursion(x, y) for y in others], rtol=1e-9)
    np.testing.assert_allclose(warping_distances(x[:1], others), [recursion(x[:1], y) for y in others])


def test_a_stretched_copy_is_no_distance_away():
    x, other = draw(8, 8)
    stretched = x.repeat([1, 3, 2, 1, 1, 4, 1, 2], axis=0)
    same, apart = warping_distances(x, [stretched, other])
    assert same == pytest.approx(0, abs=1e-6)  # of squares that cancel
    assert apart > 0.5


def test_it_is_symmetric_and_a_mean_along_the_path():
    x, y = draw(6, 10)
    assert warping_distances(x, [y])[0] == pytest.approx(warping_distances(y, [x])[0])
    shift = np.array([3.0, 0, 0])
    still = np.zeros((5, 3))
    assert warping_distances(still, [still[:2] + shift])[0] == pytest.approx(3)
