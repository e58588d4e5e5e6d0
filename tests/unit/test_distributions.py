"""Distributions over integers: masses against scipy, gradients at the extremes, sampling against the
probabilities."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from ancestral.distributions import discrete
from ancestral.distributions.discrete import Bernoulli, Categorical, Discrete
from ancestral.distributions.discretized import (
    DiscretizedLogisticMixture,
    DiscretizedNormal,
    coupled_logistic_mixture,
    log1mexp,
    min_log_scale,
)
from ancestral.distributions.likelihood import Likelihood
from ancestral.errors import UserError
from ancestral.spec import Spec
from ancestral.testing import _check_chi_square

FROZEN = {"logistic": stats.logistic, "normal": stats.norm}


def binned(kind, loc, log_scale, levels):
    """One component of each kind, so that scipy has the same."""
    if kind == "normal":
        return DiscretizedNormal(loc, log_scale, levels)
    return DiscretizedLogisticMixture(
        torch.zeros_like(loc)[..., None], loc[..., None], log_scale[..., None], levels
    )


def mixture(seed, *shape, k=3, levels=17, spread=1.0):
    logits, loc, log_scale = torch.randn(3, *shape, k, generator=torch.Generator().manual_seed(seed)) * spread
    return DiscretizedLogisticMixture(logits, loc, log_scale - 1, levels)


def examples():
    """One of each class with three dimensions of batch."""
    g = torch.Generator().manual_seed(4)
    return {
        "mixture": mixture(0, 5, 2, 3),
        "normal": DiscretizedNormal(
            torch.randn(5, 2, 3, generator=g), torch.randn(5, 2, 3, generator=g) - 1, 17
        ),
        "categorical": Categorical(torch.randn(5, 2, 3, 17, generator=g)),
        "bernoulli": Bernoulli(torch.randn(5, 2, 3, generator=g)),
    }


# --- masses -------------------------------------------------------------------------------------------------
# ------------------------------


@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("levels", [2, 5, 17, 256])
@pytest.mark.parametrize("log_scale", [2.0, 0.0, -3.0, -7.0, -20.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mass_sums_to_one(kind, levels, log_scale, dtype):
    loc = torch.tensor([-3.0, -1.0, -0.9961, 0.0, 0.1234, 1.0, 3.0], dtype=dtype)
    d = binned(kind, loc, torch.full_like(loc, log_scale), levels)
    total = d.log_pmf().double().exp().sum(-1)
    # A sum of up to 256 masses, each with a few roundings of numbers of the size of |log P|; log1mexp's
    # series is good to 1e-9.
    torch.testing.assert_close(
        total, torch.ones_like(total), rtol=0, atol=3e-5 if dtype == torch.float32 else 1e-8
    )


@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("log_scale", [0.0, -3.0, -7.0])
def test_mass_sums_to_one_with_16_bits(kind, log_scale):
    loc = torch.tensor([-1.0, 0.3], dtype=torch.float64)
    total = binned(kind, loc, torch.full_like(loc, log_scale), 65536).log_pmf().exp().sum(-1)
    torch.testing.assert_close(
        total, torch.ones_like(total), rtol=0, atol=1e-6
    )  # 65536 bins of 1e-9 relative error and rounding


@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("levels", [2, 5, 256, 65536])
@pytest.mark.parametrize("log_scale", [1.0, 0.0, -3.0, -7.0])
def test_masses_are_differences_of_scipys_cdf(kind, levels, log_scale):
    loc = torch.tensor([-0.8, 0.0, 0.37, 1.2], dtype=torch.float64)
    d = binned(kind, loc, torch.full_like(loc, log_scale), levels)
    nearest = ((loc + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1).long()
    values = torch.unique(torch.cat([torch.linspace(0, levels - 1, 17).long(), nearest]))
    ours = torch.stack([d.log_prob(v.expand(4)) for v in values])
    points, half = values.numpy()[:, None] * 2 / (levels - 1) - 1, 1 / (levels - 1)
    law = FROZEN[kind](loc.numpy(), math.exp(log_scale))
    upper = np.where(points + half > 1, np.inf, points + half)
    lower = np.where(points - half < -1, -np.inf, points - half)
    # The survival function keeps the digits that 1 - cdf loses on the right.
    right = lower > loc.numpy()
    mass = np.where(right, law.sf(lower) - law.sf(upper), law.cdf(upper) - law.cdf(lower))
    accurate = mass > 1e-200
    # scipy's difference cancels: cdf about 1, bin mass at least 1e-6, so that 1e-16/1e-6 of it is noise.
    np.testing.assert_allclose(ours.numpy()[accurate], np.log(mass[accurate]), rtol=1e-9, atol=2e-9)
    assert accurate.any(axis=0).all()


@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("log_scale", [5.0, 2.0, 0.0, -2.0, -5.0])
@pytest.mark.parametrize("levels", [256, 65536])
def test_float32_is_near_float64(kind, log_scale, levels):
    loc = torch.linspace(-1.5, 1.5, 31)
    values = torch.linspace(1, levels - 2, 29).long()[:, None].expand(-1, 31)
    single = binned(kind, loc, torch.full_like(loc, log_scale), levels).log_prob(values).double()
    exact = binned(kind, loc.double(), torch.full_like(loc, log_scale).double(), levels).log_prob(values)
    # The standardized position carries a few roundings of |x - mu| / s <= 2.5/s, and log P changes by its
    # square (normal) or by it. Four roundings of a CDF below 1 (6e-8 each, of the erf of some processors) are
    # 8e-5 of the narrowest mass that is a difference of two, .003.
    farthest = 2.5 * math.exp(-log_scale)
    error = 5e-7 * max(1.0, farthest) ** (2 if kind == "normal" else 1) + 8e-5
    assert (single - exact).abs().max() <= error


@pytest.mark.parametrize("kind", FROZEN)
def test_edges_take_the_tails(kind):
    loc = torch.tensor([-50.0, 50.0], dtype=torch.float64)
    log_p = binned(kind, loc, torch.zeros(2, dtype=torch.float64), 256).log_pmf()
    assert log_p[0].argmax() == 0
    assert log_p[1].argmax() == 255
    assert log_p[0, 0].exp() > 1 - 1e-12
    # One interior bin short of the edge: cdf(1 - 1/255) exactly, not a bin's width of density.
    law = FROZEN[kind](0.5, math.exp(-1))
    d = binned(kind, torch.tensor([0.5], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64), 256)
    assert float(d.log_prob(torch.tensor([255])).exp()) == pytest.approx(law.sf(1 - 1 / 255), rel=1e-9)
    assert float(d.log_prob(torch.tensor([0])).exp()) == pytest.approx(law.cdf(-1 + 1 / 255), rel=1e-9)


def test_scales_beyond_the_clamp_are_the_clamp():
    loc = torch.tensor([0.1], dtype=torch.float64)
    for kind in FROZEN:
        at = binned(kind, loc, torch.tensor([min_log_scale(256)]).double(), 256)
        beyond = binned(kind, loc, torch.tensor([-30.0]).double(), 256)
        assert torch.equal(at.log_pmf(), beyond.log_pmf())
        assert torch.equal(
            at.draw(generator=torch.Generator().manual_seed(0)),
            beyond.draw(generator=torch.Generator().manual_seed(0)),
        )


@pytest.mark.parametrize("levels", [256, 2**16])
def test_scales_go_far_below_a_bin_of_any_number_of_levels(levels):
    """Else a certain value would cost bits: seven for each of 16-bit sound."""
    for kind in FROZEN:
        d = binned(kind, torch.zeros(1, dtype=torch.float64), torch.tensor([-50.0]).double(), levels + 1)
        assert float(d.log_prob(torch.tensor([levels // 2]))) > -0.03


def test_mixture_is_the_mixture():
    d = mixture(1, 6)
    weights = d.logits.double().softmax(-1)
    parts = [
        binned("logistic", d.loc[:, i].double(), d.log_scale[:, i].double(), 17).log_pmf().exp()
        for i in range(3)
    ]
    expected = sum(weights[:, i, None] * parts[i] for i in range(3))
    torch.testing.assert_close(
        d.log_pmf().exp().double(), expected, rtol=1e-4, atol=1e-7
    )  # float32 against float64


def test_categorical_and_bernoulli_are_the_softmax():
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = torch.arange(12).view(4, 3) % 5
    expected = torch.distributions.Categorical(logits=logits)
    torch.testing.assert_close(Categorical(logits).log_prob(value), expected.log_prob(value))
    torch.testing.assert_close(Categorical(logits).log_pmf(), expected.logits)
    expected = torch.distributions.Bernoulli(logits=logits)
    bits = (logits > 0.3).long()
    torch.testing.assert_close(Bernoulli(logits).log_prob(bits), expected.log_prob(bits.double()))
    torch.testing.assert_close(Bernoulli(logits).log_pmf().exp()[..., 1], expected.probs)
    torch.testing.assert_close(
        Bernoulli(logits * 1e4).log_pmf().exp().sum(-1), torch.ones(4, 3, 5, dtype=torch.float64)
    )


def test_log_pmf_is_log_prob_of_every_level():
    for d in examples().values():
        each = torch.stack([d.log_prob(torch.full(d.batch_shape, v)) for v in range(d.levels)], -1)
        torch.testing.assert_close(d.log_pmf(), each)
        torch.testing.assert_close(d[1:3].log_pmf(), d.log_pmf()[1:3])
        torch.testing.assert_close(d[:, :, 1:2].log_pmf(), d.log_pmf()[:, :, 1:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1mexp(dtype):
    x = torch.tensor(
        [1e-30, 1e-12, 1e-4, 0.1, 0.2499, 0.25, 0.2501, 0.7, 1.0, 5.0, 50.0], dtype=dtype, requires_grad=True
    )
    expected = np.log(-np.expm1(-x.detach().double().numpy()))
    # Of the claimed 1e-9 in float64; float32 rounds 1 - exp(-x) near 0.25 to 6e-8/0.22.
    np.testing.assert_allclose(
        log1mexp(x).detach().numpy(),
        expected,
        rtol=2e-7 if dtype == torch.float32 else 1e-9,
        atol=5e-7 if dtype == torch.float32 else 2e-9,
    )
    (gradient,) = torch.autograd.grad(log1mexp(x).sum(), x)
    # The derivative of a series good to 1e-9 is good to a few 1e-8.
    np.testing.assert_allclose(
        gradient.numpy(),
        1 / np.expm1(x.detach().double().numpy()),
        rtol=1e-5 if dtype == torch.float32 else 5e-8,
    )


# --- gradients ----------------------------------------------------------------------------------------------
# ------------------------------


@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_for_absurd_parameters(kind, dtype):
    numbers = [0.0, 1e-3, 1.0, 50.0, 1e4, -1e-3, -1.0, -7.0, -50.0, -1e4]
    loc, log_scale = (
        torch.tensor(c, dtype=dtype).requires_grad_()
        for c in zip(*itertools.product(numbers, numbers), strict=True)
    )
    for levels in (2, 256, 65536):
        for value in {0, 1, levels // 2, levels - 1}:
            log_p = binned(kind, loc, log_scale, levels).log_prob(torch.full(loc.shape, value))
            assert bool(log_p.isfinite().all())
            assert bool((log_p <= 1e-6).all()), "a probability above 1"
            for gradient in torch.autograd.grad(log_p.sum(), (loc, log_scale)):
                assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("kind", FROZEN)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_a_thousand_scales_away(kind, sign, dtype):
    scale = math.exp(-6)
    loc = torch.tensor([-sign * 1000 * scale], dtype=dtype, requires_grad=True)
    log_scale = torch.tensor([-6.0], dtype=dtype, requires_grad=True)
    # Level 128 of 257 stands at 0 exactly, so that |x - mu| / s = 1000.
    log_p = binned(kind, loc, log_scale, 257).log_prob(torch.tensor([128]))
    by_loc, by_scale = torch.autograd.grad(log_p, (loc, log_scale))
    # log P ~ -|u| (logistic) or -u^2/2 (normal), u measured to the near edge of the bin: 1000 less half its
    # width of 1.57 scales.
    u = 1000 - 1 / 256 / scale
    slope = (1 if kind == "logistic" else u) / scale
    assert float(log_p.detach()) == pytest.approx(
        -u if kind == "logistic" else -(u**2) / 2, rel=1e-2 if kind == "logistic" else 1e-3
    )
    assert sign * float(by_loc) == pytest.approx(slope, rel=2e-2)
    assert float(by_scale) == pytest.approx(1000 if kind == "logistic" else u * u, rel=2e-2)


@pytest.mark.parametrize("kind", FROZEN)
def test_gradients_agree_with_finite_differences(kind):
    loc = torch.tensor([-0.9, 0.2, 1.4], dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor([-2.0, -4.0, 0.5], dtype=torch.float64, requires_grad=True)
    for value in (0, 3, 100, 255):
        assert torch.autograd.gradcheck(
            lambda m, s, v=value: binned(kind, m, s, 256).log_prob(torch.full((3,), v)), (loc, log_scale)
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_gradients_are_the_same():
    """Inductor's vectorized expm1 is 0 below 3e-8 on CPUs, and its logarithm -inf; what is compiled must not
    use it."""
    torch.manual_seed(0)
    parameters = [torch.randn(256, 2) for _ in range(3)]
    parameters[2][:128] = torch.linspace(-12, 20, 128)[:, None]  # at 20, bins are 2e-11 scales wide
    value = torch.randint(256, (256,))

    def log_prob(logits, loc, log_scale):
        return DiscretizedLogisticMixture(logits, loc, log_scale, 256).log_prob(value).sum()

    def gradients(function):
        leaves = [p.clone().requires_grad_() for p in parameters]
        total = function(*leaves)
        return [total.detach(), *torch.autograd.grad(total, leaves)]

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TORCHINDUCTOR_FX_GRAPH_CACHE", "1")
            compiled = gradients(torch.compile(log_prob, dynamic=False))
    finally:
        torch.compiler.reset()
    for ours, eager in zip(compiled, gradients(log_prob), strict=True):
        assert bool(ours.isfinite().all())
        # Another order of the same float32 operations, on gradients of up to 1/s = 1100.
        torch.testing.assert_close(ours, eager, rtol=2e-4, atol=2e-3)


# --- sampling -----------------------------------------------------------------------------------------------
# ------------------------------


@pytest.mark.parametrize("name", examples())
def test_quantile_inverts_the_cumulative_distribution(name):
    d = examples()[name]
    cdf = d.log_pmf().double().exp().cumsum(-1)
    for u in (0.0, 0.1, 0.5, 0.9, 1 - 2**-24):
        x = d.quantile(torch.full(d.batch_shape, u, dtype=torch.float64))
        assert x.dtype == torch.int64
        at = cdf.gather(-1, x[..., None])[..., 0]
        below = torch.where(x > 0, cdf.gather(-1, (x - 1).clamp(min=0)[..., None])[..., 0], 0.0)
        # 1e-6: float32 masses, of which the library's total is renormalized and this one is not.
        assert bool((below <= u + 1e-6).all())
        assert bool((at > u - 1e-6).all())


@pytest.mark.parametrize("name", examples())
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_probabilities(name, temperature):
    d = examples()[name][:1, :1, :1]
    n = 20000
    many = {
        "mixture": lambda: DiscretizedLogisticMixture(
            *(t.expand(n, 1, 1, -1) for t in (d.logits, d.loc, d.log_scale)), 17
        ),
        "normal": lambda: DiscretizedNormal(d.loc.expand(n, 1, 1), d.log_scale.expand(n, 1, 1), 17),
        "categorical": lambda: Categorical(d.logits.expand(n, 1, 1, -1)),
        "bernoulli": lambda: Bernoulli(d.logits.expand(n, 1, 1)),
    }[name]()
    x = many.draw(temperature, torch.Generator().manual_seed(0))
    pmf = (d.log_pmf().double() / temperature).softmax(-1).flatten()
    _check_chi_square(torch.bincount(x.flatten(), minlength=d.levels).double(), pmf * n)
    wrong = pmf.flip(0)
    with pytest.raises(AssertionError):
        _check_chi_square(torch.bincount(x.flatten(), minlength=d.levels).double(), wrong * n)


def test_impossible_levels_are_never_drawn():
    logits = torch.full((3, 6), -torch.inf)
    logits[0, 2] = 0.0
    logits[1, [1, 3]] = 0.0
    logits[2, [0, 5]] = torch.tensor([0.0, -80.0])
    uniforms = torch.cat([torch.linspace(0, 1 - 2**-24, 101), torch.tensor([0.0, 1.0, 0.5, 2.0**-149])])
    for u in uniforms:
        for temperature in (1.0, 0.1, 3.0):
            x = Categorical(logits).quantile(u.expand(3), temperature)
            assert bool(torch.isfinite(logits.gather(1, x[:, None])).all()), (u, temperature, x)
    assert Categorical(logits).quantile(torch.tensor([0.2, 0.49, 0.2])).tolist() == [2, 1, 0]
    assert Categorical(logits).quantile(torch.tensor([0.9, 0.51, 0.9])).tolist() == [2, 3, 0]


@pytest.mark.parametrize("name", examples())
def test_low_temperatures_give_the_likeliest(name):
    d = examples()[name]
    for temperature in (1e-7, 1e-30, 0.0):  # float32 keeps likelihoods apart that differ by 1e-7
        assert torch.equal(d.draw(temperature, torch.Generator().manual_seed(1)), d.log_pmf().argmax(-1))


@pytest.mark.parametrize("name", examples())
def test_drawing_in_chunks_changes_nothing(name, monkeypatch):
    d = examples()[name]
    # At temperature 1 a mixture inverts its distribution without a table, of which nothing is to be cut.
    whole = d.draw(0.9, generator=torch.Generator().manual_seed(2)), d.mean
    sizes = []
    original = type(d).log_pmf
    monkeypatch.setattr(type(d), "log_pmf", lambda self: sizes.append(self.batch_shape[0]) or original(self))
    monkeypatch.setattr(discrete, "_CHUNK", 2 * 6 * 17 * 3)
    parts = d.draw(0.9, generator=torch.Generator().manual_seed(2)), d.mean
    assert len(sizes) >= 2, "nothing was cut"
    assert torch.equal(whole[0], parts[0])
    torch.testing.assert_close(
        whole[1], parts[1], rtol=1e-6, atol=1e-6
    )  # a product of fewer rows may add in another order


def test_chunks_count_the_components(monkeypatch):
    """The table of a mixture of K takes K numbers for each probability."""
    monkeypatch.setattr(discrete, "_CHUNK", 2 * 6 * 17 * 3)
    assert [part.batch_shape[0] for part in mixture(0, 5, 2, 3)._parts()] == [2, 2, 1]


def test_empty_batches():
    for d in examples().values():
        assert d[:0].draw().shape == (0, 2, 3)
        assert d[:0].mean.shape == (0, 2, 3)


@pytest.mark.parametrize("name", examples())
def test_mean_is_the_enumerated_mean(name):
    d = examples()[name]
    expected = (d.log_pmf().double().exp() * torch.arange(d.levels)).sum(-1)
    torch.testing.assert_close(d.mean.double(), expected, rtol=1e-5, atol=1e-5)  # float32 sums of 17 terms


def test_sample_shapes_and_global_randomness():
    d = examples()["categorical"]
    torch.manual_seed(0)
    first = d.sample((2, 4))
    assert first.shape == (2, 4, 5, 2, 3)
    assert not torch.equal(first[0, 0], first[0, 1])
    torch.manual_seed(0)
    assert torch.equal(first, d.sample((2, 4)))


# --- Likelihood ---------------------------------------------------------------------------------------------
# ------------------------------

KINDS = ["categorical", "logistic", "logistic-mixture", "gaussian"]


@pytest.mark.parametrize("kind", [*KINDS, "bernoulli"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("grid", [(2, 3), (4,)])
def test_channels_are_grouped_by_value(kind, channels, grid):
    levels = 2 if kind == "bernoulli" else 5
    likelihood = Likelihood(kind, Spec(shape=(channels, *grid), levels=levels), components=2)
    output = torch.randn(
        6, likelihood.channels, *grid, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    d = likelihood(output)
    assert d.batch_shape == (6, channels, *grid)
    torch.testing.assert_close(d.log_pmf().exp().sum(-1), torch.ones(d.batch_shape))
    x = d.draw(generator=torch.Generator().manual_seed(0))
    per_value = likelihood.channels // channels
    for c in range(channels):
        (gradient,) = torch.autograd.grad(
            d.log_prob(x)[(2, c, *[g - 1 for g in grid])], output, retain_graph=True
        )
        touched = gradient.nonzero()
        assert set(touched[:, 0].tolist()) == {2}
        assert set(touched[:, 1].tolist()) <= set(range(c * per_value, (c + 1) * per_value))
        assert touched[:, 2:].unique(dim=0).tolist() == [[g - 1 for g in grid]]


def test_parameters_mean_what_they_say():
    spec = Spec(shape=(2, 1, 1), levels=5)
    output = torch.tensor([0.0, 1.0, 0.3, -0.4, -1.0, -2.0, 2.0, 0.5, 0.1, 0.9, 0.0, -3.0]).view(1, 12, 1, 1)
    d = Likelihood("logistic-mixture", spec, components=2)(output)
    expected = DiscretizedLogisticMixture(
        torch.tensor([2.0, 0.5]), torch.tensor([0.1, 0.9]), torch.tensor([0.0, -3.0]), 5
    ).log_prob(torch.tensor(3))
    torch.testing.assert_close(d.log_prob(torch.tensor(3))[0, 1, 0, 0], expected)
    d = Likelihood("gaussian", spec)(output[:, :4])
    expected = stats.norm(0.3, math.exp(-0.4)).cdf([0.25, 0.75])
    assert float(d.log_prob(torch.tensor(3))[0, 1, 0, 0].exp()) == pytest.approx(
        expected[1] - expected[0], rel=1e-5
    )


def test_half_precision_is_widened():
    spec = Spec(shape=(1, 2, 2))
    output = torch.randn(2, 30, 2, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    log_p = Likelihood("logistic-mixture", spec)(output).log_pmf()
    assert log_p.dtype == torch.float32
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(2, 1, 2, 2), rtol=0, atol=3e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_initialize_spreads_the_components(channels):
    likelihood = Likelihood("logistic-mixture", Spec(shape=(channels, 2, 2)), components=4)
    layer = nn.Conv2d(3, likelihood.channels, 1)
    before = layer.bias.detach().clone().view(channels, 3, 4)
    likelihood.initialize(layer)
    nn.init.zeros_(layer.weight)
    d = likelihood(layer(torch.zeros(1, 3, 2, 2)))
    assert torch.equal(d.logits[0, :, 0, 0], before[:, 0]), "the weights of the components stay random"
    torch.testing.assert_close(d.loc[0, :, 0, 0], torch.tensor([-0.6, -0.2, 0.2, 0.6]).expand(channels, 4))
    assert torch.equal(d.log_scale, torch.full_like(d.log_scale, -1.0))
    # Broad: no level of 256 is less than a tenth as likely as under a uniform law, and bits/dim start near 8
    # for any data.
    assert d.log_pmf().exp().min() > 0.1 / 256


@pytest.mark.parametrize("kind", ["categorical", "bernoulli"])
def test_initialize_leaves_the_others_alone(kind):
    layer = nn.Conv2d(3, 2, 1)
    before = layer.bias.detach().clone()
    Likelihood(kind, Spec(shape=(1, 2, 2), levels=2)).initialize(layer)
    assert torch.equal(before, layer.bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("bernoulli", Spec(shape=(1, 2, 2), levels=256)),
            r"expected 2 levels for a Bernoulli likelihood, got 256; add --images.levels 2",
        ),
        (
            ("logistic", Spec(shape=(1, 2, 2), levels=8, domain="codes")),
            "categorical likelihood for code indices, got logistic",
        ),
        (
            ("gaussian", Spec(shape=(1, 2, 2), levels=8, domain="codes")),
            "categorical likelihood for code indices, got gaussian",
        ),
        (("logistic-mixture", Spec(shape=(1, 2, 2)), 0), "expected at least 1 component, got 0"),
        (
            ("logistic", Spec(shape=(7,), levels=None)),
            "expected data with a number of levels, got continuous",
        ),
    ],
)
def test_likelihoods_that_do_not_fit(arguments, message):
    with pytest.raises(UserError, match=message):
        Likelihood(*arguments)


@pytest.mark.parametrize("levels", [2, 3, 16, 17, 256])
def test_a_mixture_inverts_its_distribution_without_a_table(levels):
    generator = torch.Generator().manual_seed(levels)
    logits, loc, log_scale = torch.randn(3, 500, 4, generator=generator, dtype=torch.float64)
    d = DiscretizedLogisticMixture(logits, loc, log_scale - 2, levels)
    uniforms = torch.rand(500, generator=generator, dtype=torch.float64)
    uniforms[:2] = torch.tensor([0.0, 1 - 2**-53])
    assert torch.equal(d.quantile(uniforms), Discrete.quantile(d, uniforms))


def test_top_k_keeps_the_likeliest_levels():
    pmf = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    d = Categorical(pmf.log().expand(30_000, 4))
    uniforms = torch.rand(30_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = torch.bincount(d.quantile(uniforms, top_k=2), minlength=4) / 30_000
    # Four standard deviations of a share of 30,000 draws are at most .012.
    torch.testing.assert_close(counts, torch.tensor([0, 4 / 7, 0, 3 / 7]), rtol=0, atol=0.012)
    assert torch.equal(d.quantile(uniforms, top_k=1), torch.ones(30_000, dtype=torch.int64))
    assert torch.equal(d.quantile(uniforms, top_k=4), d.quantile(uniforms))
    tied = Categorical(torch.zeros(100, 4)).quantile(uniforms[:100], top_k=2)
    assert sorted(set(tied.tolist())) == [0, 1]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.39, [1]), (0.41, [1, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_fewest_levels_that_reach_it(top_p, kept):
    pmf = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    uniforms = torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = (
        torch.bincount(Categorical(pmf.log().expand(20_000, 4)).quantile(uniforms, top_p=top_p), minlength=4)
        / 20_000
    )
    expected = torch.zeros(4)
    expected[kept] = (pmf[kept] / pmf[kept].sum()).float()
    torch.testing.assert_close(counts, expected, rtol=0, atol=0.015)  # four standard deviations


@pytest.mark.parametrize(("channels", "levels"), [(1, 5), (2, 4), (3, 4)])
def test_coupled_channels_are_the_joint_mixture(channels, levels):
    """Against the joint distribution written out from the paper's equations, value by value; its sampler
    against its probabilities."""
    generator = torch.Generator().manual_seed(channels)
    k = 3
    logits = torch.randn(1, 1, k, generator=generator, dtype=torch.float64)
    loc, log_scale = torch.randn(2, 1, channels, k, generator=generator, dtype=torch.float64)
    coefficients = torch.randn(1, channels * (channels - 1) // 2, k, generator=generator, dtype=torch.float64)
    x = torch.tensor(list(itertools.product(range(levels), repeat=channels)))
    size = len(x)
    grow = lambda t: t.expand(size, *t.shape[1:])  # noqa: E731
    d = coupled_logistic_mixture(
        grow(logits), grow(loc), grow(log_scale), grow(coefficients), x, levels=levels
    )
    log_prob = d.log_prob(x).sum(1)
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-8)  # log1mexp is good to 1e-9

    def cdf(v, mean, scale):
        return 1 / (1 + math.exp(-(v - mean) / scale))

    weights = logits[0, 0].softmax(0).tolist()
    for row, value in zip(log_prob.tolist(), x.tolist(), strict=True):
        total = 0.0
        for c in range(k):
            product, pair = weights[c], 0
            for i, level in enumerate(value):
                mean, scale = float(loc[0, i, c]), math.exp(float(log_scale[0, i, c]))
                for j in range(i):
                    mean += math.tanh(float(coefficients[0, pair, c])) * (2 * value[j] / (levels - 1) - 1)
                    pair += 1
                upper = 1.0 if level == levels - 1 else cdf((2 * level + 1) / (levels - 1) - 1, mean, scale)
                lower = 0.0 if level == 0 else cdf((2 * level - 1) / (levels - 1) - 1, mean, scale)
                product *= upper - lower
            total += product
        assert row == pytest.approx(math.log(total), abs=1e-6)
    drawn = torch.zeros(20_000, channels, dtype=torch.int64)
    spread = lambda t: t.expand(20_000, *t.shape[1:])  # noqa: E731
    for i in range(channels):  # channel after channel, each given those before
        at = coupled_logistic_mixture(
            spread(logits), spread(loc), spread(log_scale), spread(coefficients), drawn, levels=levels
        )
        drawn[:, i] = at[:, i].draw(generator=generator)
    index = (drawn * levels ** torch.arange(channels - 1, -1, -1)).sum(1)
    _check_chi_square(torch.bincount(index, minlength=size).double(), log_prob.exp() * 20_000)


@pytest.mark.parametrize("levels", [2, 16, 256, 65536])
@pytest.mark.parametrize("log_scale", [0.0, -3.0, -7.0])
def test_coupled_gradients_are_finite_at_the_extremes(levels, log_scale):
    logits, loc = torch.zeros(2, 1, 2), torch.tensor([-1000.0, 1.0]).view(1, 1, 2).repeat(2, 3, 1)
    scale = torch.full((2, 3, 2), log_scale)
    coefficients = torch.zeros(2, 3, 2)
    parameters = [t.requires_grad_() for t in (logits, loc, scale, coefficients)]
    x = torch.tensor([[0, 0, levels - 1], [levels - 1, levels // 2, 0]])
    coupled_logistic_mixture(*parameters, x, levels=levels).log_prob(x).sum().backward()
    for p in parameters:
        assert bool(p.grad.isfinite().all())
