"""Measures of sample quality against closed forms, loops over pairs, other libraries and planted answers."""

import itertools
import math
import random
import re

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import nn

from ancestral.errors import UserError
from ancestral.measures import (
    Interval,
    Moments,
    Overlap,
    auroc,
    bootstrap,
    copies,
    copying,
    frechet_distance,
    kernel,
    kernel_distance,
    kolmogorov_smirnov,
    nearest,
    neighbors,
    overlap,
    subsampled,
)


def normal(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def correlated(seed, n, d, scale=1.0, shift=0.0):
    """Features that a random layer mixes, the same for every seed."""
    return (normal(seed, n, d) * scale + shift).tanh() @ normal(99, d, d)


def rotation(d):
    return torch.linalg.qr(normal(98, d, d)).Q


def on_grid(seed, n, d=3, values=4):
    """Whole numbers, whose distances are exact and often equal."""
    return torch.randint(values, (n, d), generator=torch.Generator().manual_seed(seed)).double()


class Identity(nn.Module):
    """What torchmetrics takes for a feature extractor."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, x):
        return x


# --- Fréchet distance ---------------------------------------------------------------------------------------


def test_frechet_distance_of_commuting_gaussians_is_the_closed_form():
    m, a, b = normal(0, 4), torch.tensor([1.0, 4.0, 0.0, 9.0]), torch.tensor([4.0, 4.0, 1.0, 0.0])
    axes = rotation(4)
    x = Moments(mean=m, covariance=axes @ a.double().diag() @ axes.t(), n=100)
    y = Moments(mean=m + 2, covariance=axes @ b.double().diag() @ axes.t(), n=100)
    assert frechet_distance(x, y) == pytest.approx(4 * 4 + float((a.sqrt() - b.sqrt()).square().sum()))


def test_frechet_distance_of_2_by_2_covariances_is_the_closed_form():
    """Of 2 by 2 matrices, tr(A^½) = (tr A + 2 det(A)^½)^½."""
    A, B = (torch.tensor(c).double() for c in ([[2.0, 1.0], [1.0, 3.0]], [[5.0, -2.0], [-2.0, 1.0]]))
    inner = ((A @ B).trace() + 2 * (A.det() * B.det()).sqrt()).sqrt()
    x, y = (Moments(mean=torch.zeros(2), covariance=c, n=9) for c in (A, B))
    assert frechet_distance(x, y) == pytest.approx(float(A.trace() + B.trace() - 2 * inner), rel=1e-12)


def test_frechet_distance_of_many_draws_nears_that_of_their_gaussians():
    n, d = 40_000, 4
    x, y = normal(0, n, d), 2 * normal(1, n, d) + 1
    # |m|^2 = d and (2 - 1)^2 d; standard deviations of both are about (8 / n)^½ d^½.
    assert frechet_distance(x, y) == pytest.approx(2 * d, abs=0.15)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 24)])
def test_frechet_distance_is_that_of_scipy_and_numpy(n, d):
    x, y = correlated(0, n, d), correlated(1, n + 5, d, 1.3, 0.4)
    A, B = (np.cov(z.numpy(), rowvar=False) for z in (x, y))
    root = linalg.sqrtm(A @ B).real  # another product, with the same eigenvalues
    mean = ((x.numpy().mean(0) - y.numpy().mean(0)) ** 2).sum()
    expected = mean + np.trace(A + B - 2 * root)
    # With fewer examples than features scipy takes roots of rounded zeros: 1e-8 of the trace each.
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10 if n > d else 1e-5)


def test_frechet_distance_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = correlated(0, 60, 8), correlated(1, 50, 8, 1.3, 0.4)
    theirs = FrechetInceptionDistance(feature=Identity(8)).set_dtype(torch.float64)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    assert frechet_distance(x, y) == pytest.approx(float(theirs.compute()), rel=1e-7)


@pytest.mark.parametrize(("n", "d"), [(200, 8), (20, 64), (2, 5)])
def test_frechet_distance_of_a_set_to_itself_is_0(n, d):
    x = correlated(0, n, d)
    assert 0 <= frechet_distance(x, x.flip(0)) < 1e-9
    assert frechet_distance(x, x + 3) == pytest.approx(9 * d, abs=1e-9)


def test_frechet_distance_in_a_subspace_is_that_without_the_other_dimensions():
    x, y, axes = correlated(0, 50, 3), correlated(1, 50, 3, 2.0), rotation(40)[:3]
    assert frechet_distance(x @ axes, y @ axes) == pytest.approx(frechet_distance(x, y), rel=1e-6)


def test_frechet_distance_does_not_see_a_move_a_turn_or_the_order():
    x, y, axes = correlated(0, 80, 6), correlated(1, 90, 6, 1.3, 0.4), rotation(6)
    value = frechet_distance(x, y)
    assert value > 0.1
    assert frechet_distance(y, x) == pytest.approx(value, rel=1e-10)
    assert frechet_distance(x @ axes + 50, y @ axes + 50) == pytest.approx(value, rel=1e-9)
    assert frechet_distance(x.flip(0), y.flip(0)) == pytest.approx(value, rel=1e-10)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * value, rel=1e-10)


def test_frechet_distance_of_32_bits_far_from_0_is_computed_in_64():
    x, y = 1e4 + 0.3 * normal(0, 500, 5), 1e4 + 0.5 * normal(1, 500, 5)
    value = frechet_distance(x, y)
    assert value == pytest.approx(0.2, abs=0.05)
    assert frechet_distance(x.float(), y.float()) == pytest.approx(value, rel=1e-3)


def test_moments_stand_for_their_features():
    x, y = correlated(0, 50, 5), correlated(1, 30, 5, 1.3)
    moments = Moments.of(x.float())
    assert moments.n == 50
    assert moments.covariance.dtype == torch.float64
    torch.testing.assert_close(Moments.of(x).covariance, torch.cov(x.t()))
    assert frechet_distance(Moments.of(x), y) == frechet_distance(x, y)
    assert frechet_distance(y, Moments.of(x)) == frechet_distance(y, x)


# --- kernel distance ----------------------------------------------------------------------------------------


def kernel_by_loops(x, y):
    def mean(a, b, pairs):
        return np.mean([(a[i] @ b[j] / a.shape[1] + 1) ** 3 for i, j in pairs])

    x, y = x.numpy(), y.numpy()
    n, m = range(len(x)), range(len(y))
    within = mean(x, x, itertools.permutations(n, 2)) + mean(y, y, itertools.permutations(m, 2))
    return within - 2 * mean(x, y, itertools.product(n, m))


def test_kernel_distance_is_that_of_loops_over_pairs():
    x, y = correlated(0, 12, 5), correlated(1, 9, 5, 1.3, 0.4)
    assert kernel_distance(x, y) == pytest.approx(kernel_by_loops(x, y), rel=1e-11)
    assert kernel_distance(x.float(), y.float()) == pytest.approx(kernel_by_loops(x, y), rel=1e-4)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_kernel_distance_is_that_of_torchmetrics():
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = correlated(0, 40, 8), correlated(1, 40, 8, 1.3, 0.4)
    theirs = KernelInceptionDistance(feature=Identity(8), subsets=1, subset_size=40).set_dtype(torch.float64)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    assert kernel_distance(x, y) == pytest.approx(float(theirs.compute()[0]), rel=1e-10)


def test_kernel_distance_of_one_distribution_is_0_on_average():
    values = torch.tensor([kernel_distance(normal(i, 20, 3), normal(1000 + i, 30, 3)) for i in range(400)])
    error = float(values.std()) / 20
    assert abs(float(values.mean())) < 3 * error
    assert 0.2 < float((values < 0).double().mean()) < 0.8
    # With the pairs of an example and itself, all would be larger by E[k(x, x) - k(x, x')] (1/20 + 1/30).
    assert error < 0.05 * 7 * (1 / 20 + 1 / 30)


# --- precision, recall, density and coverage ----------------------------------------------------------------


def overlap_by_loops(real, fake, k):
    real, fake = real.numpy(), fake.numpy()

    def radius(points, i):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(points):
        """Whether each of the other set is in the ball of each of the points."""
        others = fake if points is real else real
        return np.array(
            [np.linalg.norm(others - p, axis=1) <= radius(points, i) for i, p in enumerate(points)]
        )

    in_real, in_fake = inside(real), inside(fake)
    return Overlap(
        precision=in_real.any(0).mean(),
        recall=in_fake.any(0).mean(),
        density=in_real.sum() / (k * len(fake)),
        coverage=in_real.any(1).mean(),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("make", [on_grid, correlated])
def test_overlap_is_that_of_loops_over_pairs(make, k):
    real, fake = make(0, 40, 3), 1 + make(1, 30, 3)
    expected = overlap_by_loops(real, fake, k)
    assert 0 < expected.precision < 1
    assert 0 < expected.recall < 1
    assert overlap(real, fake, k) == expected


def test_overlap_is_that_of_scikit_learn_neighbors():
    from sklearn.neighbors import NearestNeighbors

    real, fake = correlated(0, 300, 4), correlated(1, 300, 4, 1.2)
    radii = NearestNeighbors(n_neighbors=6).fit(real.numpy()).kneighbors()[0][:, 4]
    held = np.linalg.norm(real.numpy()[:, None] - fake.numpy(), axis=2) <= radii[:, None]
    found = overlap(real, fake)
    assert (found.precision, found.coverage) == (held.any(0).mean(), held.any(1).mean())
    assert found.density == held.sum() / (5 * 300)
    assert overlap(fake, real).recall == found.precision


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("d", [2, 512])
def test_copies_of_reals_overlap_wholly(d, scale):
    """Also where the sizes of the sets, and so the order of sums, differ."""
    real = (scale * normal(0, 150, d)).float() + 1
    for fake in (real, real.flip(0), torch.cat([real, real[:37]])):
        found = overlap(real, fake)
        assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert overlap(real, real).density == pytest.approx(6 / 5)  # itself, and 5 neighbors on average


@pytest.mark.parametrize("d", [3, 700])
def test_copies_are_inside_balls_without_a_radius(d):
    """Six copies of each: the products of copies differ in their last bits by the block they are in."""
    real = normal(0, 61, d).repeat(6, 1)
    for fake in (real.flip(0), real[:305], real.roll(7, 0)[:123]):
        assert overlap(real, fake).precision == 1
        assert overlap(fake, real, k=1).recall == 1
    same = torch.ones(7, d)
    assert overlap(same, same) == Overlap(precision=1, recall=1, density=7 / 5, coverage=1)


@pytest.mark.parametrize("d", [2, 200])
@pytest.mark.parametrize(("scale", "offset"), [(0.125, 0.0), (0.3, 0.1), (4096.0, 8.0)])
def test_a_fake_on_the_boundary_of_a_ball_is_inside(d, scale, offset):
    """As far from the one real as the other real is, in another direction."""
    axes = torch.eye(d, dtype=torch.float64) * scale
    real, fake = torch.stack([0 * axes[0], axes[0]]) + offset, axes[1].repeat(3, 1) + offset
    assert overlap(real, fake, k=1) == Overlap(precision=1, recall=0, density=1, coverage=0.5)


def test_half_of_the_modes_halves_recall_and_coverage_but_not_precision():
    centers = 100 * normal(0, 10, 8)
    real = (centers[:, None] + normal(1, 10, 30, 8)).flatten(0, 1)
    copied = overlap(real, real[:150].repeat(2, 1))
    assert (copied.precision, copied.recall, copied.coverage) == (1, 0.5, 0.5)
    drawn = overlap(real, (centers[:5, None] + normal(2, 5, 60, 8)).flatten(0, 1))
    assert drawn.precision > 0.85
    assert 0.4 < drawn.recall <= 0.5
    assert 0.4 < drawn.coverage <= 0.5


def test_noise_far_away_overlaps_nowhere():
    nothing = Overlap(precision=0, recall=0, density=0, coverage=0)
    assert overlap(normal(0, 100, 4), 1000 + normal(1, 100, 4)) == nothing


def test_a_few_images_repeated_are_precise_but_recall_only_themselves():
    real = normal(0, 300, 4)
    fake = real[:10].repeat(30, 1)
    found = overlap(real, fake)
    assert (found.precision, found.recall) == (1, 10 / 300)
    assert found.coverage == overlap_by_loops(real, fake, 5).coverage < 0.3


def test_copies_are_neighbors_though_no_point_is_its_own():
    """Of pairs of copies, the ball for k = 1 has no radius; for k = 2 it reaches to the next pair."""
    real = torch.arange(10.0).repeat_interleave(2)[:, None]
    assert overlap(real, real + 0.25, k=1).precision == 0
    assert overlap(real, real + 0.25, k=2).precision == 1


def test_an_outlier_does_not_blur_the_others():
    real, fake = correlated(0, 60, 3), correlated(1, 60, 3, 1.2)
    real[0] = 1e7
    assert overlap(real, fake) == overlap_by_loops(real, fake, 5)


def test_overlap_does_not_see_a_move_or_a_turn():
    real, fake, axes = correlated(0, 100, 6), correlated(1, 100, 6, 1.3), rotation(6)
    assert overlap(real @ axes + 2**20, fake @ axes + 2**20) == overlap(real, fake)


def test_overlap_of_32_bits_far_from_0_is_computed_in_64():
    real, fake = correlated(0, 200, 6), correlated(1, 200, 6, 1.3)
    expected, found = overlap(real, fake), overlap((real + 1e4).float(), (fake + 1e4).float())
    for name in ("precision", "recall", "density", "coverage"):  # rounded to 1e-3 of 1, few balls change
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=0.02)


# --- all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 30])
def test_blocks_do_not_change_the_result(monkeypatch, rows):
    x, y, tied = correlated(0, 40, 5), correlated(1, 33, 5, 1.2), on_grid(2, 33, 5)
    whole = kernel_distance(x, y), overlap(x, y), overlap(tied, y.round()), nearest(x, y)
    itself = nearest(x, x, exclude_self=True)
    for module in (kernel, neighbors, copies):
        monkeypatch.setattr(module, "_ROWS", rows)
    assert kernel_distance(x, y) == pytest.approx(whole[0], rel=1e-10)
    assert (overlap(x, y), overlap(tied, y.round())) == whole[1:3]
    for found, expected in ((nearest(x, y), whole[3]), (nearest(x, x, exclude_self=True), itself)):
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_order_does_not_change_the_result():
    x, y = correlated(0, 40, 5), correlated(1, 33, 5, 1.2)
    p, q = (torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (40, 33))
    assert overlap(x[p], y[q]) == overlap(x, y)
    assert kernel_distance(x[p], y[q]) == pytest.approx(kernel_distance(x, y), rel=1e-10)
    distances, indices = nearest(x[p], y[q])
    torch.testing.assert_close(distances, nearest(x, y)[0][p])
    assert torch.equal(q[indices], nearest(x, y)[1][p])


# --- copies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_nearest_is_that_of_scikit_learn(offset):
    from sklearn.neighbors import NearestNeighbors

    x, among = correlated(0, 70, 5) + offset, correlated(1, 90, 5) + offset
    tree = NearestNeighbors(n_neighbors=1, algorithm="kd_tree").fit(among.numpy())
    distances, indices = nearest(x, among)
    theirs, found = tree.kneighbors(x.numpy())
    np.testing.assert_allclose(distances, theirs[:, 0], rtol=1e-10)
    np.testing.assert_array_equal(indices, found[:, 0])
    distances, indices = nearest(among, among, exclude_self=True)
    theirs, found = tree.kneighbors()
    np.testing.assert_allclose(distances, theirs[:, 0], rtol=1e-10)
    np.testing.assert_array_equal(indices, found[:, 0])


def test_a_copy_is_at_distance_0_and_found():
    among = (normal(0, 50, 100) * 1000).float()
    distances, indices = nearest(among[10:20], among)
    assert distances.tolist() == [0] * 10
    assert indices.tolist() == list(range(10, 20))
    twice = torch.cat([among, among])
    distances, indices = nearest(twice, twice, exclude_self=True)
    assert distances.tolist() == [0] * 100
    assert indices.tolist() == [*range(50, 100), *range(50)]


def test_auroc_is_that_of_pairs_and_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    a, b = on_grid(0, 40, 1, 9)[:, 0], on_grid(1, 25, 1, 9)[:, 0] + 2
    pairs = np.mean([(i < j) + (i == j) / 2 for i in a.tolist() for j in b.tolist()])
    assert auroc(a, b) == pytest.approx(pairs, abs=1e-12)
    labels = [0] * 40 + [1] * 25
    assert auroc(a, b) == pytest.approx(roc_auc_score(labels, torch.cat([a, b])), abs=1e-12)
    assert auroc(b, a) == pytest.approx(1 - pairs, abs=1e-12)
    assert auroc(a, a) == 0.5


def test_copying_tells_copies_from_draws():
    training, held_out, draws = (normal(i, 400, 6) for i in range(3))
    # A standard deviation of (1/400 + 1/400)^½ / 12^½ = 0.02, and as much for the training set.
    assert copying(draws, held_out, training).auroc == pytest.approx(0.5, abs=0.09)
    nearly = training.flip(0) + 1e-3 * normal(3, 400, 6)
    found = copying(nearly, held_out, training)
    assert found.auroc > 0.999
    assert found.indices.tolist() == list(range(399, -1, -1))
    assert float(found.distances.max()) < 0.01 < float(found.held_out_distances.min())
    half = torch.cat([nearly[:200], draws[:200]])
    assert copying(half, held_out, training).auroc == pytest.approx(0.75, abs=0.09)
    assert copying(draws + 10, held_out, training).auroc < 0.001


# --- intervals ----------------------------------------------------------------------------------------------


def mean(x):
    return float(x.mean())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_subsampled_intervals_of_a_mean_hold_it_as_often_as_they_say(share):
    n, trials = 150, 400
    found = [subsampled(mean, normal(i, n), share=share, seed=i, level=0.9) for i in range(trials)]
    held = sum(interval.low <= 0 <= interval.high for interval in found) / trials
    assert held == pytest.approx(0.9, abs=0.05)  # 3.3 standard deviations of 400 trials
    width = sum(interval.high - interval.low for interval in found) / trials
    # Student's t of 19 degrees, and the mean of the deviation of 20 is 0.987 of it.
    assert width == pytest.approx(2 * stats.t.ppf(0.95, 19) * 0.987 / math.sqrt(n), rel=0.03)


def test_subsampled_interval_of_two_sets_is_of_the_variances_of_both():
    def difference(x, y):
        return float(x.mean() - y.mean())

    found = [
        subsampled(difference, 3 * normal(i, 100), normal(1000 + i, 400), repeats=40) for i in range(100)
    ]
    width = sum(interval.high - interval.low for interval in found) / 100
    assert width == pytest.approx(2 * stats.t.ppf(0.975, 39) * math.sqrt(9 / 100 + 1 / 400), rel=0.05)


def test_subsampled_interval_is_around_the_full_value_and_repeats_no_example():
    x, y = normal(0, 100, 4), normal(1, 100, 4)
    seen = []

    def measure(a, b):
        seen.append((len(a), len(b), len(a.unique(dim=0))))
        return frechet_distance(a, b)

    interval = subsampled(measure, x, y, repeats=6, share=0.25)
    assert seen == [(100, 100, 100)] + 6 * [(25, 25, 25)]
    value = frechet_distance(x, y)
    # Subsets of 25 are biased upward beyond the interval; it stays where the full sets are.
    assert (interval.low + interval.high) / 2 == pytest.approx(value, rel=1e-9)
    assert interval.high < np.mean([frechet_distance(x[i::4], y[i::4]) for i in range(4)])


@pytest.mark.parametrize("degrees", [5, 19, 99])
def test_students_t_is_near_that_of_scipy(degrees):
    from ancestral.measures.intervals import _student_t

    assert _student_t(0.95, degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=0.01)


def test_bootstrap_intervals_hold_the_mean_as_often_as_they_say():
    n, trials = 100, 300
    found = [bootstrap(normal(i, n), repeats=200, seed=i, level=0.9) for i in range(trials)]
    held = sum(interval.low <= 0 <= interval.high for interval in found) / trials
    assert held == pytest.approx(0.9, abs=0.06)
    width = sum(interval.high - interval.low for interval in found) / trials
    assert width == pytest.approx(2 * stats.norm.ppf(0.95) / math.sqrt(n), rel=0.05)


@pytest.mark.parametrize("interval_of", [lambda x, seed: subsampled(mean, x, seed=seed), bootstrap])
def test_a_seed_decides_an_interval_and_no_other_random_state_is_touched(interval_of):
    x = normal(0, 60)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first, again, other = interval_of(x, seed=1), interval_of(x, seed=1), interval_of(x, seed=2)
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_an_interval_of_what_does_not_vary_is_a_point():
    assert bootstrap(torch.full((9,), 2.0)) == Interval(2.0, 2.0)
    assert subsampled(mean, torch.full((9,), 2.0)) == Interval(2.0, 2.0)


# --- mistakes -----------------------------------------------------------------------------------------------

X = normal(0, 8, 3)
BROKEN = X.clone()
BROKEN[[2, 5], 1] = math.nan

MISTAKES = {
    "too few for a distance": (lambda: frechet_distance(X, X[:1]), "at least 2 examples in features, got 1"),
    "too few for a kernel": (lambda: kernel_distance(X, X[:1]), "at least 2 examples in y, got 1"),
    "too few for k": (lambda: overlap(X, X[:5]), "at least 6 examples in fake, got 5"),
    "too few real": (lambda: overlap(X[:5], X), "at least 6 examples in real, got 5"),
    "none to be near to": (lambda: nearest(X, X[:0]), "at least 1 examples in among, got 0"),
    "none but itself": (lambda: nearest(X[:1], X[:1], True), "at least 2 examples in x, got 1"),
    "no training set": (lambda: copying(X, X, X[:0]), "at least 1 examples in among, got 0"),
    "other D for a distance": (lambda: frechet_distance(X, X[:, :2]), "of one length, got 3 and 2"),
    "other D for a kernel": (lambda: kernel_distance(X, X[:, :2]), "expected 3 features .* in y, got 2"),
    "other D for overlap": (lambda: overlap(X, X[:, :2]), "expected 3 features .* in fake, got 2"),
    "other D for copies": (lambda: nearest(X, X[:, :2]), "expected 3 features .* in among, got 2"),
    "NaN in a distance": (lambda: frechet_distance(X, BROKEN), "infinity in 2 of 8 in features"),
    "NaN in a kernel": (lambda: kernel_distance(BROKEN, X), "infinity in 2 of 8 in x"),
    "infinity in overlap": (lambda: overlap(X, X / 0), "infinity in 8 of 8 in fake"),
    "NaN in copies": (lambda: nearest(X, BROKEN), "infinity in 2 of 8 in among"),
    "images for features": (lambda: kernel_distance(X, X[None]), r"y of shape \(N, D\), got \(1, 8, 3\)"),
    "values for features": (lambda: Moments.of(X[:, 0]), r"features of shape \(N, D\), got \(8,\)"),
    "no features": (lambda: overlap(X[:, :0], X[:, :0]), r"real of shape \(N, D\), got \(8, 0\)"),
    "an array": (lambda: kernel_distance(X.numpy(), X), "expected x as a tensor, got ndarray"),
    "k of 0": (lambda: overlap(X, X, k=0), "expected k of at least 1, got 0"),
    "moments that do not fit": (
        lambda: Moments(mean=torch.zeros(3), covariance=torch.eye(2), n=4),
        r"covariance \(D, D\), got \(3,\) and \(2, 2\)",
    ),
    "a factor for a covariance": (
        lambda: Moments(mean=torch.zeros(2), covariance=torch.tensor([[1.0, 0.0], [1.0, 1.0]]), n=4),
        "finite symmetric covariance",
    ),
    "moments of NaN": (
        lambda: Moments(mean=torch.zeros(2), covariance=torch.full((2, 2), math.nan), n=4),
        "finite symmetric covariance",
    ),
    "a mean of infinity": (
        lambda: Moments(mean=torch.ones(2) / 0, covariance=torch.eye(2), n=4),
        "finite mean",
    ),
    "other sets to exclude": (lambda: nearest(X, X[:7], True), "same examples twice .* got 8 and 7"),
    "no values to rank": (
        lambda: auroc(X[:0, 0], X[:, 0]),
        r"a of shape \(N,\) with N of at least 1, got \(0,\)",
    ),
    "rows to rank": (lambda: auroc(X[:, 0], X), r"b of shape \(N,\) .* got \(8, 3\)"),
    "NaN to rank": (lambda: auroc(X[:, 0], BROKEN[:, 1]), "finite b, got NaN or infinity in 2 of 8"),
    "one value": (lambda: bootstrap(X[:1, 0]), r"N of at least 2, got \(1,\)"),
    "NaN among values": (lambda: bootstrap(BROKEN[:, 1]), "finite values, got NaN or infinity in 2 of 8"),
    "list of values": (lambda: bootstrap([1.0, 2.0]), "expected values as a tensor, got list"),
    "level in percent": (lambda: bootstrap(X[:, 0], level=95), r"level in \(0, 1\), got 95"),
    "one bootstrap": (lambda: bootstrap(X[:, 0], repeats=1), "repeats of at least 2, got 1"),
    "all of the set": (lambda: subsampled(mean, X, share=1.0), r"share in \(0, 1\), got 1.0"),
    "level of 1": (lambda: subsampled(mean, X, level=1.0), r"level in \(0, 1\), got 1.0"),
    "one subset": (lambda: subsampled(mean, X, repeats=1), "repeats of at least 2, got 1"),
    "no set": (lambda: subsampled(mean), "at least 1 set of features, got 0"),
    "a set of one": (lambda: subsampled(mean, X[:1]), r"at least 2 examples .* got shape \(1, 3\)"),
    "a list for a set": (lambda: subsampled(mean, [1.0, 2.0]), "features as a tensor, got list"),
    "subsets too small": (
        lambda: subsampled(lambda *sets: overlap(*sets).recall, X, X),
        "at least 6 examples in real, got 4",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_what_was_expected_and_what_came(mistake):
    call, words = MISTAKES[mistake]
    with pytest.raises(UserError) as error:
        call()
    assert re.search(words, str(error.value)), str(error.value)
    assert str(error.value).startswith("expected ")
    assert error.value.remedy


def test_features_with_gradients_are_measured_without():
    x = X.clone().requires_grad_()
    assert frechet_distance(x, X + 1) == frechet_distance(X, X + 1)
    assert kernel_distance(x, X + 1) == kernel_distance(X, X + 1)
    assert overlap(x, X + 1) == overlap(X, X + 1)
    assert not nearest(x, X)[0].requires_grad


def test_the_kolmogorov_smirnov_distance_is_scipys():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=generator)
    y = torch.randn(70, 3, generator=generator) * torch.tensor([1.0, 2.0, 1.0]) + torch.tensor(
        [0.0, 0.0, 3.0]
    )
    x[:, 0], y[:, 0] = x[:, 0].round(), y[:, 0].round()  # equal values
    expected = [stats.ks_2samp(x[:, i].numpy(), y[:, i].numpy()).statistic for i in range(3)]
    assert kolmogorov_smirnov(x, y).tolist() == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UserError, match="finite"):
        kolmogorov_smirnov(x, y * torch.nan)
