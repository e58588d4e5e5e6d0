"""The VAE's bounds against the truth: with one or two latents, p(x) is an integral that can be computed."""

import copy
import math
from dataclasses import replace
from functools import cache
from typing import get_args, get_type_hints

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ancestral.batch import Batch
from ancestral.distributions.likelihood import IndependentKind
from ancestral.errors import UserError
from ancestral.models.latent.vae import MLP, VAE, Convolutional
from ancestral.spec import Spec
from ancestral.stages import Progress
from ancestral.testing import check_training, enumerate_examples

GREY = Spec(shape=(1, 2, 2), levels=3)
BINARY = Spec(shape=(1, 2, 2), levels=2)
WIDE = Spec(shape=(1, 2, 4), levels=2)
RGB = Spec(shape=(3, 2, 2), levels=2)

START = Progress.at(0, 1)
CASES = {
    "mlp, 1 latent": (GREY, {"architecture": MLP(hidden=16), "latents": 1}),
    "mlp, 2 latents": (GREY, {"architecture": MLP(hidden=16), "latents": 2}),
    "convolutional": (GREY, {"latents": 1}),
    "non-square": (WIDE, {"latents": 1}),
    "non-square mlp": (WIDE, {"latents": 1, "architecture": MLP(hidden=16), "likelihood": "bernoulli"}),
    "RGB": (RGB, {"latents": 1}),
    "bernoulli": (BINARY, {"latents": 1, "likelihood": "bernoulli"}),
    "categorical": (GREY, {"latents": 1, "likelihood": "categorical"}),
    "logistic": (GREY, {"latents": 1, "likelihood": "logistic"}),
    "gaussian": (GREY, {"latents": 1, "likelihood": "gaussian"}),
}


@cache
def trained(name, changes):
    spec, options = CASES[name]
    torch.manual_seed(0)
    model = VAE(replace(VAE.Config.tiny(), **(options | dict(changes))), spec)
    check_training(model)
    return model.double().eval()


def build(name="mlp, 1 latent", **changes):
    return copy.deepcopy(trained(name, tuple(changes.items())))


@torch.no_grad()
def truth(model, x):
    """Log p(x) of each example by the trapezoid rule over z.

    It converges exponentially for smooth, decaying integrands.
    """
    latents = model.config.latents
    axis = torch.linspace(-9, 9, 1501 if latents == 1 else 121, dtype=torch.float64)
    z = torch.cartesian_prod(*[axis] * latents).view(-1, latents)
    log_measure = Normal(0.0, 1.0).log_prob(z).sum(1) + latents * (axis[1] - axis[0]).log()
    return torch.logsumexp(log_measure[:, None] + log_likelihoods(model, z, x), 0)


@torch.no_grad()
def log_likelihoods(model, z, x):
    """Log p(x|z) of all pairs, ``(Z, N)``, from the table of probabilities."""
    table = model.observation(z).log_pmf().flatten(1)
    chosen = torch.nn.functional.one_hot(x.long(), model.spec.levels).double().flatten(1)
    return table @ chosen.T


def estimates(bound, x, draws):
    """Mean of a bound over draws for each example, and its standard error."""
    with torch.no_grad():
        values = bound(x.repeat(draws, *[1] * (x.dim() - 1))).view(draws, len(x))
    return values.mean(0), values.std(0) / math.sqrt(draws)


@pytest.mark.parametrize("name", CASES)
def test_bounds_close_in_on_the_truth(name):
    model = build(name)
    x = enumerate_examples(model.spec)
    log_p = truth(model, x)
    # The integral is one over all examples, which shows that grid and range suffice.
    # log1mexp's series is good to 1e-9 a value.
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=2e-8)
    x, log_p = x[:: max(1, len(x) // 8)], log_p[:: max(1, len(x) // 8)]

    torch.manual_seed(1)
    bounds = {1: estimates(lambda b: model.log_likelihood(Batch(b)), x, 400)}
    for k in (1, 5, 300):
        mean, error = estimates(lambda b, k=k: model.log_likelihood(Batch(b), k), x, 400 if k < 300 else 10)
        if k == 1:  # the same expectation as the ELBO's, of which the rate is not sampled
            assert bool(
                ((mean - bounds[1][0]).abs() <= 5 * (error**2 + bounds[1][1] ** 2).sqrt() + 1e-9).all()
            )
        bounds[k] = mean, error
    # 5 standard errors, in some 10 examples at once.
    for mean, error in bounds.values():
        assert bool((mean <= log_p + 5 * error + 1e-8).all())
    gaps = [float((log_p - mean).mean()) for mean, _ in bounds.values()]
    slack = 5 * float(bounds[5][1].mean()) / math.sqrt(len(x)) + 1e-9
    assert gaps[0] >= gaps[1] - slack
    assert gaps[1] >= gaps[2] - slack
    # The bias of the k-sample bound is about Var(weight)/2k.
    assert bool(((log_p - bounds[300][0]).abs() <= 0.02 + 5 * bounds[300][1]).all())


@pytest.mark.parametrize("name", ["mlp, 1 latent", "convolutional", "RGB"])
def test_elbo_is_the_integral_of_equation_3(name):
    model = build(name)
    x = enumerate_examples(model.spec)
    x = x[:: len(x) // 8]
    with torch.no_grad():
        q = model.posterior(x).base_dist
        steps = torch.linspace(-9, 9, 601, dtype=torch.float64)
        z = q.mean + q.stddev * steps[:, None, None]
        weights = (Normal(0.0, 1.0).log_prob(steps).exp() * (steps[1] - steps[0]))[:, None]
        log_p = torch.stack([log_likelihoods(model, z[:, i], x[i : i + 1])[:, 0] for i in range(len(x))], 1)
        rate = 0.5 * (q.mean**2 + q.stddev**2 - 1 - 2 * q.stddev.log()).sum(
            1
        )  # the closed form of appendix B
        expected = (weights * log_p).sum(0) - rate
    torch.manual_seed(0)
    mean, error = estimates(lambda b: model.log_likelihood(Batch(b)), x, 1000)
    assert bool(((mean - expected).abs() <= 5 * error + 1e-9).all())
    gap = truth(model, x) - expected
    assert bool((gap >= -1e-9).all())


def test_rate_is_the_divergence():
    """Analytic KL against a Monte Carlo mean of log q - log p."""
    model = build("mlp, 2 latents")
    x = enumerate_examples(model.spec)[::9]
    q = model.posterior(x)
    torch.manual_seed(0)
    with torch.no_grad():
        z = q.sample((20000,))
        samples = q.log_prob(z) - model.prior.log_prob(z)
        analytic = kl_divergence(q, model.prior)
    assert bool(((samples.mean(0) - analytic).abs() <= 5 * samples.std(0) / math.sqrt(20000) + 1e-9).all())
    assert analytic.max() > 1e-3, "an untrained posterior proves nothing"


@pytest.fixture
def still(monkeypatch):
    """The same noise in every draw, so that losses can be compared."""
    monkeypatch.setattr(Normal, "rsample", lambda self, sample_shape=(): self.loc + 0.7 * self.scale)


def batch_of(model, n=12):
    return Batch(enumerate_examples(model.spec)[torch.arange(n) * 37 % model.spec.levels**model.spec.dims])


@pytest.mark.parametrize("name", ["mlp, 1 latent", "convolutional", "RGB"])
def test_loss_does_not_depend_on_the_batch_size(name, still):
    model = build(name, free_bits=0.01)
    batch = batch_of(model)
    once = model.loss(batch, "training", START)
    twice = model.loss(batch.map(lambda t: t.repeat(3, 1, 1, 1)), "training", START)
    torch.testing.assert_close(once.total, twice.total)
    for term, value in once.terms.items():
        torch.testing.assert_close(value, twice.terms[term])


def test_loss_is_the_negative_elbo_in_bits_per_dim(still):
    model = build("convolutional")
    batch = batch_of(model)
    loss = model.loss(batch, "training", START)
    expected = -model.log_likelihood(batch).mean() / (model.spec.dims * math.log(2))
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.terms["bits_per_dim"], expected.detach())
    torch.testing.assert_close(
        (loss.terms["distortion"] + loss.terms["rate"]) / (model.spec.dims * math.log(2)), expected.detach()
    )


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_beta_weighs_the_rate_of_the_loss_and_no_figure(beta, still):
    plain, weighted = (VAE(replace(VAE.Config.tiny(), beta=b), GREY).double() for b in (1.0, beta))
    weighted.load_state_dict(plain.state_dict())
    batch = batch_of(plain)
    one, other = plain.loss(batch, "training", START), weighted.loss(batch, "training", START)
    torch.testing.assert_close(
        other.total - one.total, (beta - 1) * one.terms["rate"] / (GREY.dims * math.log(2))
    )
    assert one.terms["rate"] > 0
    for term, value in one.terms.items():
        assert torch.equal(value, other.terms[term])
    assert torch.equal(plain.log_likelihood(batch), weighted.log_likelihood(batch))
    assert torch.equal(plain.log_likelihood(batch, 3), weighted.log_likelihood(batch, 3))


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (1, 0.025), (13, 0.325), (40, 1.0), (999, 1.0)])
def test_the_rates_weight_follows_the_progress(step, share, still):
    """Sønderby et al., section 2.2: beta * step / warmup, then beta. In evaluation mode it is always beta."""
    config = replace(VAE.Config.tiny(), beta=0.0)
    free, warmed = (VAE(c, GREY).double() for c in (config, replace(config, beta=2.0, rate_warmup=40)))
    warmed.load_state_dict(free.state_dict())
    assert not [name for name in warmed.state_dict() if "step" in name], "the model counts steps"
    batch, unit = batch_of(free), GREY.dims * math.log(2)
    for steps in (step + 1, 10_000):  # the length of the training says nothing
        progress = Progress.at(step, steps)
        for _ in range(2):  # nor does how often the loss is asked for: the parts of a batch weigh alike
            one, other = (model.train().loss(batch, "training", progress) for model in (free, warmed))
            torch.testing.assert_close(other.total - one.total, 2 * share * one.terms["rate"] / unit)
            assert torch.equal(other.terms["bits_per_dim"], one.terms["bits_per_dim"])
        one, other = (model.eval().loss(batch, "training", progress) for model in (free, warmed))
        torch.testing.assert_close(other.total - one.total, 2 * one.terms["rate"] / unit)
    assert one.terms["rate"] > 0


def test_free_bits_relieve_each_latent(still):
    plain = build("mlp, 2 latents")
    batch = batch_of(plain)
    rates = kl_divergence(plain.posterior(batch.x).base_dist, plain.prior.base_dist).mean(0).detach()
    low, high = rates.sort().values
    assert low < high
    unit = GREY.dims * math.log(2)
    one = plain.loss(batch, "training", START)
    gradients = {}
    for free, charge in [
        (float(low) / 2, low + high),
        (float(low + high) / 2, (low + high) / 2 + high),
        (2 * float(high), 4 * high),
    ]:
        model = VAE(replace(plain.config, free_bits=free), GREY).double()
        model.load_state_dict(plain.state_dict())
        loss = model.loss(batch, "training", START)
        torch.testing.assert_close(loss.total - one.total, (charge - low - high) / unit)
        assert torch.equal(loss.terms["bits_per_dim"], one.terms["bits_per_dim"])
        assert torch.equal(model.log_likelihood(batch), plain.log_likelihood(batch))
        loss.total.backward()
        gradients[free] = [p.grad for p in model.encoder.parameters()]
    # All latents below their allowance: nothing pulls the posterior to the prior, as with beta = 0.
    free_of_charge = VAE(replace(plain.config, beta=0.0), GREY).double()
    free_of_charge.load_state_dict(plain.state_dict())
    free_of_charge.loss(batch, "training", START).total.backward()
    for ours, expected in zip(gradients[2 * float(high)], free_of_charge.encoder.parameters(), strict=True):
        torch.testing.assert_close(ours, expected.grad)


@pytest.mark.parametrize("name", CASES)
def test_decoding_is_the_rounded_mean(name):
    model = build(name)
    z = torch.randn(9, model.config.latents, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mean = (model.observation(z).log_pmf().exp() * torch.arange(model.spec.levels)).sum(-1)
    decoded = model.decode(z)
    assert decoded.dtype == model.spec.dtype
    clear = (mean - mean.floor() - 0.5).abs() > 1e-5  # float32 sums of the mean
    assert torch.equal(decoded.double()[clear], mean.round()[clear])
    x = enumerate_examples(model.spec)[:5]
    assert torch.equal(model.reconstruct(x), model.decode(model.embed(x)))
    assert torch.equal(model.embed(x), model.posterior(x).mean)


def test_temperature_scales_the_latents():
    model = build("mlp, 2 latents")
    at_zero = model.decode(torch.zeros(1, 2, dtype=torch.float64))
    assert torch.equal(model.sample(6, temperature=1e-12), at_zero.expand(6, -1, -1, -1))
    with pytest.raises(UserError, match=r"expected temperature above 0, got 0\.0; raise temperature"):
        model.sample(6, temperature=0.0)
    noise = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    assert torch.equal(
        model.sample(6, temperature=0.5, generator=torch.Generator().manual_seed(5)),
        model.decode(0.5 * noise),
    )


@pytest.mark.parametrize("architecture", [MLP(hidden=16), Convolutional(width=8, stride=2)])
def test_reconstruction_after_training_beats_a_constant(architecture):
    """Two pictures, one latent: a trained model tells them apart."""
    spec = Spec(shape=(1, 4, 4), levels=4)
    torch.manual_seed(0)
    x = torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 3)]).to(torch.uint8)
    model = VAE(replace(VAE.Config.tiny(), architecture=architecture, latents=1), spec)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(Batch(x.repeat(8, 1, 1, 1)), "training", START).total.backward()
        optimizer.step()
    model.eval()
    assert torch.equal(model.reconstruct(x), x)
    # Telling two pictures apart costs a bit, and the bound cannot undercut it: log 2 nats each.
    with torch.no_grad():
        mean = torch.stack([model.log_likelihood(Batch(x)) for _ in range(100)]).mean()
    assert -3.0 < float(mean) <= -math.log(2) + 0.05


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            Spec(shape=(1, 6, 8)),
            {"stride": 4},
            "expected an image that stride 4 divides, got 6x8; resize the images to 8x8",
        ),
        (Spec(shape=(1, 8, 8)), {"stride": 3}, "expected a stride that is a power of 2, got 3"),
        (Spec(shape=(1, 8, 8)), {"stride": 0}, "expected stride of at least 1, got 0; raise stride"),
        (
            Spec(shape=(1, 9)),
            {},
            r"expected images \(C, H, W\) for the convolutional architecture, got \(1, 9\); "
            r"choose --model.architecture mlp",
        ),
        (Spec(shape=(9,), levels=None), {}, "expected data with a number of levels, got continuous data"),
    ],
)
def test_what_cannot_be_built(spec, options, message):
    with pytest.raises(UserError, match=message):
        VAE(replace(VAE.Config.tiny(), architecture=Convolutional(width=8, **options)), spec)


def test_mlp_takes_any_shape():
    model = VAE(replace(VAE.Config.tiny(), architecture=MLP()), Spec(shape=(2, 7), levels=5))
    assert model.sample(3).shape == (3, 2, 7)


def test_labels_are_refused_rather_than_ignored():
    """The data have classes, but the model never hears of them."""
    torch.manual_seed(0)
    model = VAE(VAE.Config.tiny(), Spec(shape=(1, 2, 2), levels=3, classes=2))
    assert model.sample_classes == 0
    with pytest.raises(
        UserError, match="expected no labels, got some: this VAE does not draw by class; leave labels out"
    ):
        model.sample(2, torch.tensor([0, 1]))


@pytest.mark.parametrize("recipe", VAE.recipes)
def test_recipes_can_be_built(recipe):
    config = VAE.recipes[recipe].model
    spec = Spec(shape=(1, 28, 28), levels=2 if config.likelihood == "bernoulli" else 256)
    with torch.device("meta"):
        model = VAE(config, spec)
        assert model.log_likelihood(Batch(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))).shape == (2,)


@pytest.mark.parametrize("kind", get_args(IndependentKind))
def test_each_likelihood_that_is_offered_works(kind):
    """One that couples the channels was offered, and died in an assertion."""
    assert get_type_hints(VAE.Config)["likelihood"] == IndependentKind
    model = VAE(replace(VAE.Config.tiny(), likelihood=kind), RGB).eval()
    x = enumerate_examples(RGB)[::500]
    assert bool(model.log_likelihood(Batch(x)).isfinite().all())
    assert model.decode(model.embed(x)).shape == x.shape
    with pytest.raises(UserError, match=r"got 'coupled-logistic-mixture'; did you mean logistic-mixture"):
        replace(VAE.Config.tiny(), likelihood="coupled-logistic-mixture")
