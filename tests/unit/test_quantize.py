"""The quantizers against their equations, float64 distances and autograd."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ancestral.errors import UserError
from ancestral.nn.nearest import nearest_codes
from ancestral.nn.quantize import (
    FiniteScalarQuantizer,
    Quantized,
    Quantizer,
    ResidualQuantizer,
    VectorQuantizer,
    kmeans,
    perplexity,
)


@pytest.fixture(autouse=True)
def _one_thread():
    """Workers of pytest share the cores: small operations split over threads would wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def quantizer(
    dim: int = 6, codebook_size: int = 10, *, seed: int = 0, kmeans_start: bool = False, **options
) -> VectorQuantizer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return VectorQuantizer(dim, codebook_size, kmeans_start=kmeans_start, **options)


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def to_rows(z: Tensor) -> Tensor:
    return z.movedim(1, -1).reshape(-1, z.shape[1])


# Nearest codes


@pytest.mark.parametrize(
    ("n", "k", "d"), [(7, 2, 1), (100, 31, 3), (1500, 32, 64), (2100, 513, 16), (70, 40_000, 4)]
)
def test_nearest_in_float64_is_the_exact_argmin(n, k, d):
    rows, codebook = features(n, d, dtype=torch.float64), features(k, d, seed=1, dtype=torch.float64)
    assert torch.equal(
        nearest_codes(rows, codebook),
        torch.cdist(rows, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1),
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_nearest_in_float32_is_within_rounding_of_the_minimum(scale):
    rows, codebook = features(3000, 64) * scale, features(1000, 64, seed=1) * scale
    distances = torch.cdist(
        rows.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    codes = nearest_codes(rows, codebook)
    excess = distances.gather(1, codes[:, None]).squeeze(1) - distances.amin(1)
    # Each score sums D products of at most |r||c| in float32.
    rounding = (
        64
        * torch.finfo(torch.float32).eps
        * (rows.double().norm(dim=1) * codebook.double().norm(dim=1).max())
    )
    assert (excess <= rounding).all()
    assert (codes == distances.argmin(1)).float().mean() > 0.999


def test_nearest_takes_the_first_of_equal_codes_and_any_layout():
    codebook = features(100, 5, dtype=torch.float64)
    doubled = torch.cat([codebook, codebook])
    rows = features(5, 300, seed=1, dtype=torch.float64).t()
    assert torch.equal(nearest_codes(rows, doubled), nearest_codes(rows.contiguous(), codebook))


# Codes, losses and gradients of equation 3


@pytest.mark.parametrize("num_codebooks", [1, 3])
def test_quantised_features_are_the_nearest_codes(num_codebooks):
    q = quantizer(num_codebooks=num_codebooks).double().eval()
    z = features(4, 6, 3, 5, dtype=torch.float64)
    out = q(z)
    assert out.codes.shape == (4, num_codebooks, 3, 5)
    for m, (part, codes) in enumerate(zip(z.chunk(num_codebooks, 1), out.codes.unbind(1), strict=True)):
        expected = torch.cdist(to_rows(part), q.codebook[m]).argmin(-1)
        assert torch.equal(codes.flatten(), expected)
        assert torch.equal(out.usage[m], torch.bincount(expected, minlength=10).double())
    assert torch.equal(q.decode(out.codes), out.z)
    assert torch.equal(q.encode(z), out.codes)


@pytest.mark.parametrize("num_codebooks", [1, 2])
def test_the_loss_is_equation_3_and_passes_gradients_straight_through(num_codebooks):
    q = quantizer(
        num_codebooks=num_codebooks, update="gradient", commitment_weight=0.7, revive_below=0
    ).double()
    z = features(4, 6, 5, dtype=torch.float64).requires_grad_()
    incoming = features(4, 6, 5, seed=1, dtype=torch.float64)
    out = q(z)
    difference = (z - out.z).detach()
    torch.testing.assert_close(out.loss, 1.7 * difference.square().mean())
    ((out.z * incoming).sum() + out.loss).backward()
    # beta weighs the encoder's term only.
    torch.testing.assert_close(z.grad, incoming + 0.7 * 2 * difference / z.numel())
    parts = zip(difference.chunk(num_codebooks, 1), out.codes.unbind(1), strict=True)
    expected = torch.stack(
        [
            torch.zeros_like(q.codebook[0]).index_add(0, c.flatten(), -2 * to_rows(d) / z.numel())
            for d, c in parts
        ]
    )
    torch.testing.assert_close(q.codebook.grad, expected)


def test_losses_do_not_depend_on_the_batch_size():
    for update in ("ema", "gradient"):
        q = quantizer(update=update).eval()
        z = features(4, 6, 5)
        torch.testing.assert_close(q(z).loss, q(z.repeat(3, 1, 1)).loss)


def test_cosine_is_quantisation_of_directions():
    z = features(4, 6, 5, dtype=torch.float64).requires_grad_()
    for update in ("ema", "gradient"):
        q = quantizer(cosine=True, update=update).double().eval()
        with torch.no_grad():
            q.codebook.mul_(1.0 if update == "ema" else 3.0)
        out = q(z)
        directions, table = normalize(to_rows(z), dim=-1), normalize(q.codebook[0], dim=-1)
        assert torch.equal(out.codes.flatten(), (directions @ table.t()).argmax(-1))
        torch.testing.assert_close(to_rows(out.z), table[out.codes.flatten()])
        torch.testing.assert_close(q.decode(out.codes), out.z)
        torch.testing.assert_close(q(z * 10).loss, out.loss)
        incoming = features(4, 6, 5, seed=1, dtype=torch.float64)
        (actual,) = torch.autograd.grad((out.z * incoming).sum(), z)
        (expected,) = torch.autograd.grad((directions * to_rows(incoming)).sum(), z)
        torch.testing.assert_close(actual, expected)


def test_cosine_learns_with_revival_in_both_modes():
    for update in ("ema", "gradient"):
        q = quantizer(codebook_size=64, cosine=True, update=update, revive_below=0.9, decay=0.0)
        q(
            features(4, 6, 8).requires_grad_()
        ).loss.backward()  # a revival in place must not break the gradient
        if update == "ema":
            torch.testing.assert_close(q.codebook.norm(dim=-1), torch.ones(1, 64))


# Learning by running means (appendix A.1)


@pytest.mark.parametrize(("updates", "gamma"), [(0, 1 / 10), (5, 6 / 15), (200, 0.9)])
def test_one_step_is_the_running_mean_of_the_paper(updates, gamma):
    q = quantizer(decay=0.9, revive_below=0, num_codebooks=2).double()
    q.updates.fill_(updates)
    z = features(8, 6, 5, dtype=torch.float64)
    old = snapshot(q)
    out = q(z)
    # The codebook that quantized is the one before the update.
    before = torch.cat([old["codebook"][m][out.codes[:, m]] for m in range(2)], -1).movedim(-1, 1)
    assert torch.equal(out.z, before)
    for m, part in enumerate(z.chunk(2, 1)):
        hot = torch.nn.functional.one_hot(out.codes[:, m].flatten(), 10).double()
        counts = gamma * old["counts"][m] + (1 - gamma) * hot.sum(0)
        sums = gamma * old["sums"][m] + (1 - gamma) * hot.t() @ to_rows(part)
        smoothed = (counts + 1e-5) / (counts.sum() + 10 * 1e-5) * counts.sum()
        torch.testing.assert_close(q.counts[m], counts)  # raw: smoothing never overwrites them
        torch.testing.assert_close(q.sums[m], sums)
        torch.testing.assert_close(q.codebook[m], sums / smoothed[:, None])


@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.parametrize("kmeans_start", [True, False])
def test_codes_stay_bounded_by_the_features_and_their_start(update, kmeans_start):
    q = quantizer(codebook_size=256, update=update, kmeans_start=kmeans_start)
    z = features(2, 6, 4, 4)  # 32 features: most codes go unused
    bound = max(to_rows(z).norm(dim=-1).max(), q.codebook.norm(dim=-1).max()) * 1.01
    lower = min(to_rows(z).norm(dim=-1).min(), q.codebook.norm(dim=-1).min()) * 0.1
    for _ in range(5):
        q(z)
        norms = q.codebook.norm(dim=-1)
        assert norms.max() <= bound
        assert norms.min() >= lower


def test_nothing_is_learnt_in_eval_or_without_gradients():
    z = features(4, 6, 5)
    for make in (quantizer, lambda **o: ResidualQuantizer(6, 10, num_codebooks=2, **o)):
        q = make(kmeans_start=True)
        old = snapshot(q)
        with torch.no_grad():
            q(z)
        q.encode(z)
        q.eval()(z)
        assert_same(old, snapshot(q))
        q.train()(z)
        assert not torch.equal(
            old["codebook" if "codebook" in old else "quantizers.0.codebook"], next(iter(q.buffers()))
        )


def test_learning_draws_no_random_numbers():
    z = features(16, 6, 5)
    runs = []
    for seed in (1, 2):
        q = quantizer(codebook_size=32, kmeans_start=True, revive_below=0.5)
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        for turn in range(5):
            q(z * (turn + 1))
        assert torch.equal(state, torch.get_rng_state())
        runs.append(snapshot(q))
    assert_same(*runs)


# k-means start


def test_kmeans_finds_separate_clusters():
    centers = features(8, 6, seed=3, dtype=torch.float64) * 100
    # In turns, so that the start, whose stride has no factor in common with 400, meets each cluster once.
    rows = (centers + features(50, 8, 6, dtype=torch.float64)).flatten(0, 1)
    found, counts = kmeans(rows, 8)
    order = torch.cdist(centers, found).argmin(-1)
    torch.testing.assert_close(found[order], rows.view(50, 8, 6).mean(0))
    assert (counts == 50).all()


def test_kmeans_lowers_the_error_and_survives_fewer_rows_than_codes():
    rows = features(1000, 6, dtype=torch.float64)
    error = [
        torch.cdist(rows, kmeans(rows, 16, iterations=i)[0]).amin(-1).square().mean() for i in (1, 2, 5, 10)
    ]
    assert error == sorted(error, reverse=True)
    centers, counts = kmeans(rows[:10], 64)
    assert torch.cdist(rows[:10], centers).amin(-1).max() < 1e-6
    assert torch.isfinite(centers).all()
    assert (counts >= 1).all()


@pytest.mark.parametrize("cosine", [False, True])
def test_kmeans_start_sets_sums_to_centre_times_count(cosine):
    q = quantizer(kmeans_start=True, cosine=cosine, decay=0.0, revive_below=0).double()
    z = features(40, 6, 5, dtype=torch.float64)
    rows = normalize(to_rows(z), dim=-1) if cosine else to_rows(z)
    q._start(rows.unsqueeze(1))
    centers, counts = kmeans(rows, 10, cosine=cosine)
    assert torch.equal(q.codebook[0], centers)
    assert torch.equal(q.sums[0], centers * counts[:, None])
    assert counts.sum() == 200
    assert bool(q.started)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorQuantizer(6, 10),
        lambda: VectorQuantizer(6, 10, num_codebooks=2, cosine=True),
        lambda: VectorQuantizer(6, 10, update="gradient"),
        lambda: ResidualQuantizer(6, 10, num_codebooks=3),
        lambda: ResidualQuantizer(6, 10, num_codebooks=2, kmeans_start=False),
        lambda: FiniteScalarQuantizer((2, 2, 2, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_start_beforehand_is_the_start_of_the_first_step(make, training):
    torch.manual_seed(0)
    alone = make()
    torch.manual_seed(0)
    started = make().train(training)
    z = features(40, 6, 5)
    before = snapshot(started)
    started.start(z)
    assert {name for name, value in before.items() if not torch.equal(value, snapshot(started)[name])} == {
        name
        for name in before
        if name.rpartition(".")[2] in ("codebook", "counts", "sums", "started")
        and not before[f"{name.rpartition('.')[0]}.started".lstrip(".")]
    }
    once = snapshot(started)
    started.start(z + 3)
    assert_same(snapshot(started), once)  # once and for all
    a, b = alone(z), started.train()(z)
    assert torch.equal(a.z, b.z)
    assert torch.equal(a.codes, b.codes)
    assert_same(snapshot(alone), snapshot(started))


def test_a_start_is_in_float32_whatever_the_autocast():
    z = features(40, 6, 5)
    one, other = quantizer(kmeans_start=True), quantizer(kmeans_start=True)
    one.start(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        other.start(z)
    assert_same(snapshot(one), snapshot(other))


# Revival


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_dead_codes_move_to_features_and_stay(update):
    q = quantizer(codebook_size=64, update=update, decay=0.9)
    with torch.no_grad():
        q.codebook[:, 1:] += 1e3  # one code takes everything
        if update == "ema":
            q.sums.copy_(q.codebook)
    z = features(64, 6, 4, 4)
    used = [int((q(z).usage > 0).sum()) for _ in range(80)]
    assert used[0] == 1
    assert used[-1] == 64
    assert q.codebook.norm(dim=-1).max() < 10


def test_a_revived_code_is_a_feature_and_its_mean_does_not_undo_it():
    q = quantizer(codebook_size=8, decay=0.5, revive_below=0.3).double()
    q.counts.copy_(torch.tensor([[100.0, 100, 100, 100, 100, 100, 0, 0]]))
    q.codebook[:, 6:] += 1e3
    q.sums.copy_(q.codebook * q.counts[..., None])
    z = features(16, 6, 5, dtype=torch.float64)
    q(z)
    assert (torch.cdist(q.codebook[0, 6:], to_rows(z)).amin(-1) == 0).all()
    revived = q.codebook[0, 6:].clone()
    torch.testing.assert_close(q.sums[0, 6:], revived * q.counts[0, 6:, None])
    assert q.counts[0, 6] == q.counts[0, 7] > 0.3 * q.counts.mean()
    assert (q(z).usage[0, 6:] > 0).all()  # they are used at once
    assert (q.codebook[0, 6:].norm(dim=-1) < 10).all()


def test_codes_used_evenly_from_the_start_are_never_dead():
    q = quantizer(dim=2, codebook_size=4, revive_below=0.5).double()
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    q.codebook.copy_(corners)
    q.sums.copy_(corners)
    z = corners.repeat(256, 1)  # 256 features a code, far more than the count of one that codes start with
    for _ in range(10):
        q(z)
    torch.testing.assert_close(q.codebook[0], corners)


@pytest.mark.parametrize(("k", "total"), [(1, 1), (4, 6), (512, 512), (512, 8192), (10, 7)])
def test_candidates_are_different_features_and_change_with_the_update(k, total):
    q = VectorQuantizer(1, max(k, 2))
    rows = torch.arange(total, dtype=torch.float32).view(-1, 1, 1)
    seen = []
    for _ in range(2):
        picked = q._candidates(rows).flatten()
        assert picked.unique().numel() == min(max(k, 2), total)
        seen.append(picked)
        q.updates += 1
    assert total == 1 or not torch.equal(*seen)


# Numbers


def test_distances_are_in_float32_under_autocast_and_bfloat16():
    q = quantizer(dim=32, codebook_size=300).eval()
    z = features(8, 32, 16)
    expected = q(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = q(z)
        assert torch.equal(out.codes, expected.codes)
        assert torch.equal(out.loss, expected.loss)
        low = q.train()(z.bfloat16().requires_grad_())
    assert low.z.dtype == torch.bfloat16
    assert low.loss.dtype == torch.float32
    assert torch.equal(
        low.codes, nearest_codes(to_rows(z.bfloat16().float()), expected_table(expected, q)).view(8, 1, 16)
    )
    low.loss.backward()


def expected_table(expected: Quantized, q: VectorQuantizer) -> Tensor:
    """The codebook before the update of the training step above."""
    fresh = quantizer(dim=32, codebook_size=300)
    assert torch.equal(fresh.decode(expected.codes), expected.z)
    return fresh.codebook[0]


def test_memory_formats_agree():
    z = features(2, 6, 4, 4)
    a, b = quantizer(), quantizer()
    x, y = z.clone().requires_grad_(), z.contiguous(memory_format=torch.channels_last).requires_grad_()
    for q, value in ((a, x), (b, y)):
        out = q(value)
        (out.z.square().sum() + out.loss).backward()
    assert_same(snapshot(a), snapshot(b))
    assert torch.equal(x.grad, y.grad)


def test_perplexity_counts_evenly_used_codes():
    torch.testing.assert_close(
        perplexity(torch.tensor([[5.0, 5, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]])), torch.tensor([2.0, 1, 1])
    )
    usage = torch.tensor([[1.0, 3]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(perplexity(usage), torch.tensor([math.exp(entropy)]))


# Features that are not finite


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorQuantizer(6, 10),
        lambda: VectorQuantizer(6, 10, num_codebooks=2, kmeans_start=False, cosine=True),
        lambda: VectorQuantizer(6, 10, update="gradient", revive_below=0.6),
        lambda: ResidualQuantizer(6, 10, num_codebooks=2, revive_below=0.6),
    ],
)
@pytest.mark.parametrize("turn", [0, 2])
def test_a_batch_that_is_not_finite_teaches_nothing(make, odd, turn):
    torch.manual_seed(0)
    q = make()
    torch.manual_seed(0)
    other = make()
    for step in range(4):
        z = features(40, 6, 5, seed=step)
        if step == turn:
            before, wrong = snapshot(q), z.clone()
            wrong[17, :, 2] = odd
            out = q(wrong)
            assert not out.loss.isfinite()
            assert out.codes.min() >= 0
            assert out.codes.max() < 10
            assert_same(before, snapshot(q))
        q(z)
        other(z)
    assert_same(snapshot(q), snapshot(other))


def test_finite_scalars_of_a_feature_that_is_no_number_are_some_code():
    q = FiniteScalarQuantizer((3, 2))
    out = q(torch.tensor([[0.0, 1.0], [math.nan, 1.0], [math.inf, math.nan]]))
    assert out.codes.flatten().tolist() == [4, 4, 5]
    assert out.z.isnan().tolist() == [[False, False], [True, False], [False, True]]


# State


@pytest.mark.parametrize(
    "make", [lambda: VectorQuantizer(6, 10), lambda: ResidualQuantizer(6, 10, num_codebooks=2)]
)
def test_a_loaded_state_goes_on_as_if_never_stopped(make):
    z = features(40, 6, 5)
    one = make()
    one(z)
    two = make()
    two.load_state_dict(snapshot(one))
    assert_same(snapshot(one), snapshot(two))
    for _ in range(3):
        a, b = one(z * 2), two(z * 2)  # the second must not start again by k-means
        assert torch.equal(a.codes, b.codes)
    assert_same(snapshot(one), snapshot(two))


def test_loading_a_state_that_has_not_started_starts_again():
    z = features(40, 6, 5)
    fresh, used = VectorQuantizer(6, 10), VectorQuantizer(6, 10)
    used(z)
    used.load_state_dict(snapshot(fresh))
    fresh(z + 5)
    used(z + 5)
    assert_same(snapshot(fresh), snapshot(used))


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # raised by torch.compile itself
def test_compiles_without_unrolling_blocks():
    eager, other = quantizer(codebook_size=64), quantizer(codebook_size=64)
    compiled = torch.compile(other, backend="aot_eager")
    for turn in range(2):
        x, y = (features(8, 6, 16, seed=turn).requires_grad_() for _ in range(2))
        a, b = eager(x), compiled(y)
        (a.z.sum() + a.loss).backward()
        (b.z.sum() + b.loss).backward()
        assert torch.equal(a.codes, b.codes)
        torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(eager.codebook, other.codebook)


# Residual quantizer


def test_residual_steps_quantise_what_is_left():
    q = ResidualQuantizer(6, 10, num_codebooks=3, kmeans_start=True)
    z = features(40, 6, 5)
    q(z)
    q.eval()
    out = q(z)
    residual, losses, total = z, [], torch.zeros_like(z)
    for step, codes in zip(q.quantizers, out.codes.unbind(1), strict=True):
        part = step(residual)
        assert torch.equal(part.codes.squeeze(1), codes)
        losses.append(part.loss)
        total = total + part.z
        residual = residual - part.z
    assert losses == sorted(losses, reverse=True)  # each step brings the sum nearer
    torch.testing.assert_close(out.loss, sum(losses))
    assert torch.equal(out.z, total)
    assert torch.equal(q.decode(out.codes), out.z)
    coarse = q.decode(out.codes[:, :2])
    torch.testing.assert_close(z - coarse, residual + q.quantizers[2].decode(out.codes[:, 2:]))
    assert torch.equal(q.encode(z), out.codes)


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_residual_commitment_reaches_the_encoder_from_every_step(update):
    q = (
        ResidualQuantizer(6, 10, num_codebooks=3, kmeans_start=False, commitment_weight=0.3, update=update)
        .double()
        .eval()
    )
    z = features(4, 6, 5, dtype=torch.float64).requires_grad_()
    incoming = features(4, 6, 5, seed=1, dtype=torch.float64)
    out = q(z)
    (actual,) = torch.autograd.grad((out.z * incoming).sum() + out.loss, z)
    expected, left = incoming.clone(), z.detach()
    for step, codes in zip(q.quantizers, out.codes.split(1, 1), strict=True):
        left = left - step.decode(codes).detach()
        expected += 0.3 * 2 * left / z.numel()
    torch.testing.assert_close(actual, expected)


def test_residual_in_bfloat16_keeps_its_residuals_in_float32():
    q = ResidualQuantizer(6, 10, num_codebooks=3, kmeans_start=False).eval()
    z = features(4, 6, 5).bfloat16()
    out = q(z)
    assert out.z.dtype == torch.bfloat16
    assert torch.equal(out.codes, q(z.float()).codes)


# Finite scalars


@pytest.mark.parametrize("levels", [(8, 6, 5), (2, 3), (7,), (4, 4, 2, 5), (2,)])
def test_all_finite_scalar_codes_are_reachable_and_make_the_round_trip(levels):
    q = FiniteScalarQuantizer(levels).double()
    codes = torch.arange(math.prod(levels)).view(-1, 1, 1)
    decoded = q.decode(codes)
    assert decoded.unique(dim=0).shape[0] == math.prod(levels)
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for i, size in enumerate(levels):
        z = torch.zeros(len(grid), len(levels), dtype=torch.float64)
        z[:, i] = grid
        out = q(z)
        expected = [-1.0, 1.0] if size == 2 else [(level - size // 2) / (size // 2) for level in range(size)]
        assert out.z[:, i].unique().tolist() == expected
        assert (out.z[:, i].diff() >= 0).all()
        torch.testing.assert_close(q.decode(out.codes).double(), out.z, atol=1e-7, rtol=0)
    # A feature just where a level lies comes back as that level: invert the bounding of section 3.
    two = torch.tensor(levels) == 2
    half = (torch.tensor(levels) - 1).double() * 1.001 / 2
    offset = torch.tensor([0.5 if size % 2 == 0 else 0.0 for size in levels], dtype=torch.float64)
    target = decoded.squeeze(-1).double() * (torch.tensor(levels) // 2)
    shifted = ((target + offset) / half).atanh() - (offset / half).atanh()
    z = torch.where(two, target, shifted).unsqueeze(-1)
    assert torch.equal(q.encode(z), codes)


def test_two_levels_are_the_sign_with_the_slope_of_tanh():
    q = FiniteScalarQuantizer((2, 5, 2)).double()
    z = features(50, 3, dtype=torch.float64).requires_grad_()
    out = q(z)
    (slope,) = torch.autograd.grad(out.z.sum(), z)
    for i in (0, 2):
        assert torch.equal(out.z[:, i], z[:, i].sign())
        torch.testing.assert_close(slope[:, i], 1.001 * (1 - z[:, i].tanh().square()))


def test_training_uses_most_codes_of_two_level_features():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = torch.nn.Linear(8, 6), torch.nn.Linear(6, 8)
    q, x = FiniteScalarQuantizer((2,) * 6), features(1024, 8)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=0.02)
    errors = []
    for _ in range(100):
        out = q(encoder(x))
        error = (decoder(out.z) - x).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert (out.usage > 0).sum() >= 60
    assert errors[-1] < 0.75 * errors[0]


def test_finite_scalars_pass_the_gradient_of_the_bound_straight_through():
    q = FiniteScalarQuantizer((8, 5)).double()
    z = features(50, 2, dtype=torch.float64).requires_grad_()
    (actual,) = torch.autograd.grad(q(z).z.sum(), z)
    half, offset, width = torch.tensor([7, 4]) * 1.001 / 2, torch.tensor([0.5, 0.0]), torch.tensor([4, 2])
    bound = (z + (offset.double() / half.double()).atanh()).tanh() * half.double() / width
    (expected,) = torch.autograd.grad(bound.sum(), z)
    torch.testing.assert_close(actual, expected)


def test_finite_scalar_codes_beyond_float32_stay_apart():
    q = FiniteScalarQuantizer((4096, 4098))
    codes = torch.tensor([2**24 - 1, 2**24, 2**24 + 1]).view(3, 1)
    z = q.decode(codes)
    assert z.unique(dim=0).shape[0] == 3


# Learning something


@pytest.mark.parametrize("update", ["ema", "gradient"])
def test_the_codebook_learns_the_modes_of_the_data(update):
    modes = features(16, 4, seed=5) * 4
    q = quantizer(dim=4, codebook_size=64, update=update, decay=0.8)
    optimizer = torch.optim.Adam(q.parameters(), lr=0.05) if update == "gradient" else None
    errors = []
    for step in range(60):
        picks = torch.randint(16, (512,), generator=torch.Generator().manual_seed(step))
        z = modes[picks] + 0.05 * features(512, 4, seed=step)
        out = q(z)
        errors.append((out.z - z).square().mean())
        if optimizer is not None:
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
    # With several codes a mode, every feature ends within the noise of a code; a mode without one would cost
    # its distance from another.
    assert errors[-1] < 0.05**2 * 1.2 < errors[0]


# Mistakes


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorQuantizer(6, 1),
        lambda: VectorQuantizer(6, 8, num_codebooks=4),
        lambda: VectorQuantizer(6, 8, num_codebooks=0),
        lambda: VectorQuantizer(6, 8, update="sgd"),
        lambda: VectorQuantizer(6, 8, decay=1.0),
        lambda: VectorQuantizer(6, 8, revive_below=1.5),
        lambda: ResidualQuantizer(6, 8, num_codebooks=0),
        lambda: ResidualQuantizer(6, 8, cosine=True),
        lambda: FiniteScalarQuantizer(()),
        lambda: FiniteScalarQuantizer((8, 1)),
        lambda: VectorQuantizer(6, 8)(torch.zeros(2, 5, 4)),
        lambda: VectorQuantizer(6, 8).start(torch.zeros(2, 5, 4)),
        lambda: ResidualQuantizer(6, 8, num_codebooks=2).start(torch.zeros(2, 5, 4)),
        lambda: VectorQuantizer(6, 8).decode(torch.zeros(2, 3, 4, dtype=torch.int64)),
        lambda: ResidualQuantizer(6, 8, num_codebooks=2).decode(torch.zeros(2, 3, 4, dtype=torch.int64)),
        lambda: FiniteScalarQuantizer((8, 5))(torch.zeros(2, 3, 4)),
        lambda: FiniteScalarQuantizer((8, 5)).decode(torch.zeros(2, 2, 4, dtype=torch.int64)),
    ],
)
def test_mistakes_are_user_errors(make):
    with pytest.raises(UserError, match="expected"):
        make()


@pytest.mark.parametrize(
    "q",
    [
        quantizer(),
        quantizer(num_codebooks=2),
        ResidualQuantizer(6, 8, num_codebooks=2),
        FiniteScalarQuantizer((3, 3, 3, 3, 2, 2)),
    ],
)
@pytest.mark.parametrize("grid", [(), (7,), (3, 5), (2, 3, 4)])
def test_any_grid(q: Quantizer, grid: tuple[int, ...]):
    q.eval()
    z = features(4, 6, *grid)
    out = q(z)
    assert out.z.shape == z.shape
    assert out.codes.shape == (4, q.num_codebooks, *grid)
    assert out.codes.dtype == torch.int64
    assert out.usage.shape == (q.num_codebooks, q.codebook_size)
    assert out.usage.sum() == out.codes.numel()
    assert 1 <= out.perplexity <= q.codebook_size
    torch.testing.assert_close(q.decode(out.codes), out.z)
