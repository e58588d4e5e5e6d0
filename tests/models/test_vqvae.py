"""The VQ-VAE's bound against the truth: on a tiny grid p(x) is a computable sum over all code maps."""

import copy
import dataclasses
import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.latent.quantizers import FiniteScalar, Residual, Vector
from ancestral.models.latent.vqvae import VQVAE
from ancestral.nn.quantize import kmeans
from ancestral.spec import Spec
from ancestral.stages import Progress, initialize
from ancestral.testing import check_training, enumerate_examples

GREY = Spec(shape=(1, 2, 4), levels=2)
LABELED = Spec(shape=(1, 2, 4), levels=2, classes=3)
RGB = Spec(shape=(3, 2, 2), levels=2)

START = Progress.at(0, 1)


def codes_of(**options):
    return {"quantizer": Vector(**({"codebook_size": 4, "dim": 4} | options))}


CASES = {
    "vector": (GREY, {}),
    "learned by gradient": (GREY, codes_of(update="gradient", revive_below=0.0)),
    "cosine": (GREY, codes_of(cosine=True)),
    "without normalization": (GREY, {"batch_norm": False}),
    "two codebooks": (GREY, codes_of(num_codebooks=2, codebook_size=3)),
    "residual": (GREY, {"quantizer": Residual(codebook_size=3, dim=4, num_codebooks=2)}),
    "finite-scalar": (GREY, {"quantizer": FiniteScalar(levels=(3, 2))}),
    "classes": (LABELED, {}),
    "two codebooks, classes": (LABELED, codes_of(num_codebooks=2, codebook_size=2)),
    "RGB": (RGB, codes_of(num_codebooks=2, codebook_size=5)),
    "categorical": (GREY, {"likelihood": "categorical"}),
    "bernoulli": (GREY, {"likelihood": "bernoulli"}),
    "gaussian": (GREY, {"likelihood": "gaussian"}),
}


@cache
def trained(name, changes):
    spec, options = CASES[name]
    torch.manual_seed(0)
    model = VQVAE(replace(VQVAE.Config.tiny(), **(options | dict(changes))), spec)
    check_training(model)
    return model.eval()


def build(name="vector", **changes):
    return copy.deepcopy(trained(name, tuple(changes.items())))


@torch.no_grad()
def truth(model, x, labels=None):
    """Log p(x) = log of the sum over all code maps of p(x|c) p(c), ``(N,)``."""
    codes = enumerate_examples(model.code_specs()[0]).long()
    log_prior = -model.rates((codes,), None if labels is None else labels.expand(len(codes)))[0].double()
    table = model.observation([model.quantizer.decode(codes)]).log_pmf().double().flatten(1)
    chosen = torch.nn.functional.one_hot(x.long(), model.spec.levels).double().flatten(1)
    return torch.logsumexp(log_prior[:, None] + table @ chosen.T, 0)


@pytest.mark.parametrize("name", CASES)
def test_bound_is_below_the_truth(name):
    model = build(name)
    x = enumerate_examples(model.spec)
    log_p = truth(model, x)
    # float32 probabilities, each sum of some ten thousand terms: 1e-5.
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        elbo = model.log_likelihood(Batch(x)).double()
    assert bool((elbo <= log_p + 1e-4).all())
    assert bool((elbo < log_p - 1e-4).any()), (
        "several code maps explain a picture: the bound cannot be the truth"
    )
    with pytest.raises(UserError, match="got VQVAE, whose bound is the same for all samples"):
        model.log_likelihood(Batch(x), 7)


@pytest.mark.parametrize("name", CASES)
def test_bound_is_one_term_of_the_sum(name):
    """-(distortion + rates), and each of the two against the distributions themselves."""
    model = build(name)
    x = enumerate_examples(model.spec)[::5]
    with torch.no_grad():
        codes = model.tokenize(x)
        (rate,) = model.rates(codes)
        distortion = model.distortion(Batch(x), codes)
        torch.testing.assert_close(model.log_likelihood(Batch(x)), -(distortion + rate))
        decoded = model.likelihood_of(model.decoder(model.encode(Batch(x))[0].z))
        torch.testing.assert_close(distortion, -decoded.log_prob(x).flatten(1).sum(1))
        torch.testing.assert_close(rate, -model.prior.log_likelihood(Batch(codes[0])))
    assert bool((distortion >= 0).all())
    assert bool((rate >= 0).all())


@pytest.mark.parametrize("name", ["classes", "two codebooks, classes"])
def test_without_labels_the_prior_is_the_even_mixture(name):
    model = build(name)
    x = enumerate_examples(model.spec)[::3]
    codes = model.tokenize(x)
    with torch.no_grad():
        given = torch.stack([-model.rates(codes, torch.full((len(x),), c))[0] for c in range(3)])
        torch.testing.assert_close(-model.rates(codes)[0], given.logsumexp(0) - math.log(3))
        labels = torch.arange(len(x)) % 3
        expected = given.gather(0, labels[None])[0] - model.distortion(Batch(x), codes)
        torch.testing.assert_close(model.log_likelihood(Batch(x, labels)), expected)
        for c in range(3):
            everything = enumerate_examples(model.spec)
            labeled = Batch(everything, torch.full((len(everything),), c))
            log_p = truth(model, everything, torch.tensor(c))
            assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)
            assert bool((model.log_likelihood(labeled) <= log_p + 1e-4).all())
    assert (given[0] - given[1]).abs().max() > 1e-3, "the class changes nothing"


@pytest.mark.parametrize("name", CASES)
def test_phases_teach_their_own_parameters(name):
    model = build(name).train()
    x = enumerate_examples(model.spec)[::3]
    labels = torch.arange(len(x)) % 3 if model.spec.classes else None
    tokenizer, prior = model.stages()
    own = {
        "tokenizer": {id(p) for p in tokenizer.phases[0].parameters},
        "prior": {id(p) for p in prior.phases[0].parameters},
    }
    assert not own["tokenizer"] & own["prior"]
    assert own["tokenizer"] | own["prior"] == {id(p) for p in model.parameters()}
    with torch.no_grad():
        codes = model.eval().code_batch(Batch(x, labels))
    model.train()
    for phase, batch in (("tokenizer", Batch(x, labels)), ("prior", codes)):
        model.zero_grad(set_to_none=True)
        model.loss(batch, phase, START).total.backward()
        assert {id(p) for p in model.parameters() if p.grad is not None} == own[phase]
        assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize(
    "name", ["vector", "two codebooks", "residual", "cosine", "learned by gradient", "finite-scalar"]
)
def test_the_codebook_starts_at_the_kmeans_of_the_first_batch(name):
    """``Stage.initialize`` does it before the first step, as a quantizer alone does it in its own."""
    spec, options = CASES[name]
    torch.manual_seed(0)
    model = VQVAE(replace(VQVAE.Config.tiny(), **options), spec)
    alone, batch = copy.deepcopy(model), Batch(enumerate_examples(spec)[::3])
    initialize(model, model.stages()[0], batch)
    fresh = alone.state_dict()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, fresh[key])}
    assert {key.partition(".")[0] for key in changed} == ({"quantizer"} if name != "finite-scalar" else set())
    assert any("running_mean" in key for key in fresh)  # and so left alone
    if name in ("vector", "cosine", "learned by gradient"):
        with torch.no_grad():
            features = copy.deepcopy(alone).train().encoder(alone.scale(batch.x))
        cosine = name == "cosine"
        rows = features.movedim(1, -1).flatten(0, 2)
        rows = torch.nn.functional.normalize(rows, dim=-1) if cosine else rows
        assert torch.equal(model.quantizer.codebook[0], kmeans(rows, 4, cosine=cosine)[0])
    for started in (model, alone):
        started.train()
        started.loss(batch, "tokenizer", START).total.backward()
    for key, value in model.state_dict().items():
        assert torch.equal(value, alone.state_dict()[key]), f"{key} is not that of a quantizer on its own"
    once_started = {key: value.clone() for key, value in model.state_dict().items()}
    initialize(model, model.stages()[0], Batch(batch.x.flip(0)[:9]))
    for key, value in model.state_dict().items():
        assert torch.equal(value, once_started[key]), f"{key} starts twice"


def test_gradient_reaches_the_encoder_through_the_quantizer():
    """Not by the commitment alone: with beta = 0 the decoder's gradient passes straight through."""
    model = build("without normalization", **codes_of(commitment_weight=0.0)).train()
    x = enumerate_examples(GREY)[::3]
    features = model.encoder(model.scale(x))
    features.retain_grad()
    quantized = model.quantizer(features)
    z = quantized.z.detach().requires_grad_()
    (-model.observation([quantized.z]).log_prob(x).sum()).backward()
    (expected,) = torch.autograd.grad(-model.observation([z]).log_prob(x).sum(), z)
    torch.testing.assert_close(features.grad, expected)
    assert expected.abs().max() > 0


@pytest.mark.parametrize("name", CASES)
def test_tokens(name):
    model = build(name)
    x = enumerate_examples(model.spec)[::5]
    (codes,) = model.tokenize(x)
    (code_spec,) = model.code_specs()
    code_spec.check(codes)
    assert not code_spec.ordered
    assert code_spec.classes == model.spec.classes
    assert model.prior.spec == code_spec
    assert len(codes.flatten(1).unique(dim=0)) > 1, "all pictures have one code"
    assert torch.equal(model.detokenize((codes,)), model.reconstruct(x))
    with torch.no_grad():
        torch.testing.assert_close(model.code_vectors((codes,))[0], model.encode(Batch(x))[0].z)
        pmf = model.observation([model.encode(Batch(x))[0].z]).log_pmf().exp()
        mean = (pmf * torch.arange(model.spec.levels)).sum(-1)
    clear = (mean - mean.floor() - 0.5).abs() > 1e-5  # float32 sums of the mean
    assert torch.equal(model.reconstruct(x).float()[clear], mean.round()[clear])
    assert torch.equal(model.tokenize(x)[0], codes), "reading changes the tokenizer"


@pytest.mark.parametrize("name", ["two codebooks", "RGB"])
def test_channel_of_a_code_map_is_its_codebook(name):
    model = build(name)
    (spec,) = model.code_specs()
    width = model.config.quantizer.dim // 2
    a = torch.zeros(1, *spec.shape, dtype=torch.int64)
    for m in range(2):
        b = a.clone()
        b[:, m] = 1
        moved = (model.code_vectors((a,))[0] != model.code_vectors((b,))[0]).any(dim=(0, 2, 3))
        assert moved.nonzero().flatten().tolist() == list(range(m * width, (m + 1) * width))
        torch.testing.assert_close(
            model.code_vectors((b,))[0][0, m * width : (m + 1) * width, 0, 0], model.quantizer.codebook[m, 1]
        )


@pytest.mark.parametrize("name", ["vector", "two codebooks, classes"])
def test_prior_is_trained_on_the_codes_of_the_data(name):
    model = build(name)
    x = enumerate_examples(model.spec)[::7]
    labels = torch.arange(len(x)) % 3 if model.spec.classes else None
    stage = model.stages()[1]
    prepared = stage.prepare(Batch(x, labels))
    assert torch.equal(prepared.x, model.tokenize(x)[0])
    assert prepared.labels is labels
    loss = model.loss(prepared, "prior", START).total
    expected = model.rates((prepared.x,), labels)[0].mean() / (model.code_specs()[0].dims * math.log(2))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("name", ["vector", "residual", "classes", "RGB"])
def test_samples_are_decoded_codes_of_the_prior(name):
    model = build(name)
    labels = torch.arange(6) % 3 if model.spec.classes else None
    generator = lambda: torch.Generator().manual_seed(3)  # noqa: E731
    for temperature in (1.0, 0.5, 1e-3):
        codes = model.prior.sample(6, labels, temperature=temperature, generator=generator()).long()
        assert torch.equal(
            model.sample(6, labels, temperature=temperature, generator=generator()),
            model.detokenize((codes,)),
        )


def test_loss_does_not_depend_on_the_batch_size():
    model = build("vector")  # in evaluation mode, where no codebook moves
    x = enumerate_examples(GREY)[::7]
    once, twice = (model.loss(Batch(x.repeat(n, 1, 1, 1)), "tokenizer", START) for n in (1, 3))
    torch.testing.assert_close(once.total, twice.total)
    for term, value in once.terms.items():
        torch.testing.assert_close(value, twice.terms[term])
    distortion = model.distortion(Batch(x), model.tokenize(x)).mean() / (GREY.dims * math.log(2))
    torch.testing.assert_close(once.terms["decoder_bits_per_dim"], distortion.detach())
    torch.testing.assert_close(once.total, distortion + once.terms["commitment"])


def test_squared_error_has_no_likelihood_and_says_so():
    model = build("vector", likelihood="mse")
    x = enumerate_examples(GREY)[::7]
    assert model.likelihood == "none"
    assert build("vector").likelihood == "bound"
    message = "got one trained on squared error; train with --model.likelihood"
    for figure in (
        lambda: model.log_likelihood(Batch(x)),
        lambda: model.distortion(Batch(x), model.tokenize(x)),
    ):
        with pytest.raises(UserError, match=f"expected a decoder with a likelihood, {message}"):
            figure()
    with pytest.raises(UserError, match="importance samples from, got VQVAE, which has no likelihood"):
        model.log_likelihood(Batch(x), 2)
    with torch.no_grad():
        output = model.decoder(model.encode(Batch(x))[0].z)
        loss = model.loss(Batch(x), "tokenizer", START)
    error = (output - (2.0 * x - 1.0)).square().mean()
    torch.testing.assert_close(loss.terms["mse"], error)
    torch.testing.assert_close(loss.total, error + loss.terms["commitment"])
    assert torch.equal(model.reconstruct(x), ((output + 1) / 2).round().clamp(0, 1).to(torch.uint8))
    assert bool((model.rates(model.tokenize(x))[0] > 0).all()), (
        "the prior's likelihood of the codes is there all the same"
    )


def test_training_both_stages_reaches_the_entropy_of_the_data():
    """Four equally likely pictures cost log 4 nats.

    It takes codes that tell them apart, a decoder that is sure and a prior that is even.
    """
    spec = Spec(shape=(1, 4, 4), levels=2)
    torch.manual_seed(0)
    x = torch.randint(2, (4, 1, 4, 4)).to(torch.uint8).repeat(8, 1, 1, 1)
    config = replace(
        VQVAE.Config.tiny(),
        **codes_of(codebook_size=8),
        width=16,
        likelihood="bernoulli",
        prior=GatedPixelCNN.Config(width=16, layers=2, head=16),
    )
    model = VQVAE(config, spec)
    for stage in model.stages():
        with torch.no_grad():
            batch = stage.prepare(Batch(x)) if stage.prepare else Batch(x)
        model.train()
        optimizer = torch.optim.Adam(stage.phases[0].parameters, 1e-2)
        for _ in range(120):
            optimizer.zero_grad()
            model.loss(batch, stage.name, START).total.backward()
            optimizer.step()
        model.eval()
    assert torch.equal(model.reconstruct(x), x)
    with torch.no_grad():
        elbo = model.log_likelihood(Batch(x[:4]))
    assert float(elbo.exp().sum()) <= 1 + 1e-5
    assert float(elbo.mean()) > -math.log(4) - 0.2
    samples = model.sample(50, generator=torch.Generator().manual_seed(0)).flatten(1).unique(dim=0)
    assert {tuple(s) for s in x.flatten(1).tolist()} <= {tuple(s) for s in samples.tolist()}


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (
            Spec(shape=(1, 6, 8)),
            {"stride": 4},
            "expected an image that stride 4 divides, got 6x8; resize the images to 8x8",
        ),
        (Spec(shape=(1, 8, 8)), {"stride": 6}, "expected a stride that is a power of 2, got 6"),
        (Spec(shape=(1, 9)), {}, r"expected images \(C, H, W\), got shape \(1, 9\)"),
        (GREY, codes_of(num_codebooks=3), "expected a number of codebooks that divides 4 features, got 3"),
        (
            Spec(shape=(1, 4, 4)),
            {"likelihood": "bernoulli"},
            "expected 2 levels for a Bernoulli likelihood, got 256",
        ),
        (
            GREY,
            {"prior": GatedPixelCNN.Config(likelihood="logistic-mixture")},
            "expected a categorical likelihood for code indices",
        ),
    ],
)
def test_what_cannot_be_built(spec, options, message):
    with pytest.raises(UserError, match=message):
        VQVAE(replace(VQVAE.Config.tiny(), **options), spec)


@pytest.mark.parametrize("quantizer", [Vector, Residual])
def test_a_codebook_of_one_code_is_refused(quantizer):
    with pytest.raises(UserError, match="expected codebook_size of at least 2, got 1; raise codebook_size"):
        quantizer(codebook_size=1)


@pytest.mark.parametrize("recipe", VQVAE.recipes)
def test_recipes_can_be_built(recipe):
    # Latents of the papers: 8x8x10 (the authors), 32x32x1 (section 4.2), K = 512.
    shape, codes = {"cifar10": ((3, 32, 32), (10, 8, 8)), "imagenet128": ((3, 128, 128), (1, 32, 32))}.get(
        recipe, ((1, 32, 32), None)
    )
    with torch.device("meta"):
        model = VQVAE(VQVAE.recipes[recipe].model, Spec(shape=shape))
        (spec,) = model.code_specs()
        if codes:
            assert spec.shape == codes
            assert spec.levels == 512
        output = model.decoder(model.encoder(torch.zeros(1, *shape)))
        assert output.shape == (
            1,
            model.likelihood_of.channels if model.likelihood_of else shape[0],
            *shape[1:],
        )
        assert model.prior.log_likelihood(Batch(torch.zeros(1, *spec.shape, dtype=torch.int64))).shape == (1,)


@pytest.mark.parametrize(("conditional", "classes"), [(True, 3), (False, 0)])
def test_classes_of_samples_are_the_priors(conditional, classes):
    config = replace(
        VQVAE.Config.tiny(), prior=replace(VQVAE.Config.tiny().prior, class_conditional=conditional)
    )
    assert VQVAE(config, Spec(shape=(1, 4, 4), levels=3, classes=3)).sample_classes == classes


@pytest.mark.parametrize("prior", VQVAE.choices["prior"], ids=lambda prior: prior.kind)
def test_every_prior_bounds_and_draws(prior, tmp_path):
    """The bound counts the prior that is there; it survives saving; its samples are its codes, decoded."""
    small = {"gated-pixelcnn": GatedPixelCNN, "pixelsnail": PixelSNAIL, "transformer": Transformer}[
        prior.kind
    ].Config.tiny()
    torch.manual_seed(0)
    model = VQVAE(dataclasses.replace(VQVAE.Config.tiny(), prior=small), GREY).eval()
    assert isinstance(model.prior.config, type(prior))
    model.save_pretrained(tmp_path / "model")
    loaded = VQVAE.from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    x = enumerate_examples(GREY)[::9]
    with torch.no_grad():
        codes = model.tokenize(x)
        expected = model.prior.log_likelihood(Batch(codes[0])) - model.distortion(Batch(x), codes)
        torch.testing.assert_close(loaded.log_likelihood(Batch(x)), expected)
    options = {"top_k": 2, "temperature": 0.7}
    draw = lambda m: m.sample(3, generator=torch.Generator().manual_seed(1), **options)  # noqa: E731
    assert torch.equal(draw(loaded), model.detokenize((draw(model.prior).long(),)))


def test_the_default_of_each_prior_takes_code_maps():
    for config in VQVAE.choices["prior"]:
        with torch.device("meta"):
            VQVAE(VQVAE.Config(prior=config), Spec(shape=(1, 28, 28), classes=10))


class _Coding(torch.nn.Module):
    """What ``tokenize`` gives, and what ``detokenize`` makes of it, as a module."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        (codes,) = self.model.to_codes(x)
        return codes, self.model.from_codes((codes,))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.export itself
@pytest.mark.parametrize("name", ["residual", "finite-scalar"])
def test_tokenizing_exports_for_any_number_of_examples(name):
    model = build(name)
    x = enumerate_examples(model.spec)
    sizes = ({0: torch.export.Dim("n", max=1024)},)
    codes, decoded = torch.export.export(_Coding(model), (x[:3],), dynamic_shapes=sizes).module()(x)
    assert torch.equal(codes, model.tokenize(x)[0])
    assert torch.equal(decoded, model.detokenize((codes,)))
