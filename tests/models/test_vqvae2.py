"""VQ-VAE-2: which level sees which, the bound over all levels, and what some of the levels can do alone."""

import copy
import itertools
import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.evaluation.certificate import certify
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.models.autoregressive.transformer import Transformer
from ancestral.models.latent.quantizers import FiniteScalar, Residual
from ancestral.models.latent.vqvae import VQVAE
from ancestral.models.latent.vqvae2 import VQVAE2
from ancestral.sampling import Sampling
from ancestral.spec import Spec
from ancestral.stages import Progress
from ancestral.testing import check_training, enumerate_examples

GREY = Spec(shape=(1, 2, 2), levels=3)
CLASSES = Spec(shape=(1, 2, 2), levels=3, classes=3)
LARGE = Spec(shape=(3, 16, 8), levels=256, classes=2)
START = Progress.at(0, 1)
TINY = VQVAE2.Config.tiny()
THREE = replace(TINY, strides=(8, 4, 2))

CASES = {
    "vector": (GREY, {}),
    "classes": (CLASSES, {}),
    "no level dropout": (GREY, {"level_dropout": 0.0}),
    "without normalization": (GREY, {"batch_norm": False, "likelihood": "categorical"}),
    "residual above finite-scalar": (
        GREY,
        {
            "top_codes": Residual(codebook_size=2, dim=4, num_codebooks=2),
            "lower_codes": FiniteScalar(levels=(2,)),
        },
    ),
    "top alone knows the class": (
        CLASSES,
        {"lower_prior": replace(TINY.lower_prior, class_conditional=False)},
    ),
    "transformer below PixelSNAIL": (
        GREY,
        {"top_prior": PixelSNAIL.Config.tiny(), "lower_prior": Transformer.Config.tiny()},
    ),
}


@cache
def trained(name):
    spec, options = CASES[name]
    torch.manual_seed(0)
    model = VQVAE2(replace(TINY, **options), spec)
    check_training(model)
    return model.eval()


def build(name="vector", *, random_priors=False):
    """A trained model; with priors at random, which say something of every code."""
    model = copy.deepcopy(trained(name))
    if random_priors:
        shake(model.priors)
    return model


@torch.no_grad()
def shake(module):
    """Other weights, none of which is zero as those of outputs are at first."""
    torch.manual_seed(1)
    for p in module.parameters():
        p.add_(0.5 * torch.randn_like(p))


def large(config=THREE, spec=LARGE):
    torch.manual_seed(0)
    return VQVAE2(config, spec)


def every_code(model):
    """All combinations of code maps: a map ``(N, M, h, w)`` for each level."""
    maps = [enumerate_examples(spec).long() for spec in model.code_specs()]
    places = torch.tensor(list(itertools.product(*(range(len(m)) for m in maps))))
    return tuple(m[place] for m, place in zip(maps, places.T, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_bound_is_one_term_of_the_sum_over_all_codes(name):
    """On a tiny grid p(x) is a sum that can be computed; a class is behind all levels of an example."""
    model = build(name).double()
    x, codes = enumerate_examples(model.spec), every_code(model)
    with torch.no_grad():
        log_prior = -torch.stack(model.rates(codes)).sum(0)
        assert float(log_prior.exp().sum()) == pytest.approx(1, abs=1e-9)
        table = model.observation(model.code_vectors(codes)).log_pmf().flatten(1)
        chosen = torch.nn.functional.one_hot(x.long(), model.spec.levels).double().flatten(1)
        log_p = torch.logsumexp(log_prior[:, None] + table @ chosen.T, 0)
        bound = model.log_likelihood(Batch(x))
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-9)
    assert bool((bound <= log_p + 1e-9).all())
    assert bool((bound < log_p - 1e-4).any())


@pytest.mark.parametrize("name", ["classes", "top alone knows the class"])
def test_rates_have_one_class_behind_all_levels(name):
    model = build(name, random_priors=True).double()
    codes = every_code(model)
    n = len(codes[0])
    with torch.no_grad():
        given = torch.stack([torch.stack(model.rates(codes, torch.full((n,), c))) for c in range(3)])
        rates = torch.stack(model.rates(codes))
    torch.testing.assert_close((-rates.sum(0)).exp(), (-given.sum(1)).exp().mean(0))
    torch.testing.assert_close((-rates[0]).exp(), (-given[:, 0]).exp().mean(0))
    if name == "classes":  # each level averaged for itself would be another model
        alone = (-given[:, 1]).exp().mean(0)
        assert float(((-rates[1]).exp() - alone).abs().max()) > 1e-3


def test_each_level_sees_its_own_features_and_what_coarser_codes_decode_to():
    """By gradient: what a level's features for quantization depend on, in a hierarchy of three."""
    model = large(replace(THREE, batch_norm=False)).double().eval()
    seen = {}
    hooks = [
        q.register_forward_pre_hook(lambda q, z, i=i: seen.update({i: z[0]}))
        for i, q in enumerate(model.level_quantizers)
    ]
    x = torch.randint(256, (2, *LARGE.shape))
    features = [None] * 3
    hooks += [
        e.register_forward_hook(lambda e, inputs, output, i=i: features.__setitem__(i, output))
        for i, e in enumerate(model.encoders)
    ]
    levels = model.encode(Batch(x))
    for hook in hooks:
        hook.remove()

    def reaches(output, source):
        (gradient,) = torch.autograd.grad(output.sum(), source, retain_graph=True, allow_unused=True)
        return gradient is not None and bool(gradient.abs().sum() > 0)

    for i in range(3):
        assert [reaches(seen[i], features[j]) for j in range(3)] == [True] * 3, (
            "features come from finer ones"
        )
    # Cut the straight-through path: the codes of level j as constants.
    z = [level.z.detach().requires_grad_() for level in levels]
    stack, wanted = z[0], []
    for i in (1, 2):
        decoded = model.level_decoders[i - 1](stack)
        both = torch.cat([decoded, features[i].detach()], 1)
        torch.testing.assert_close(model.projections[i](both), seen[i])
        wanted.append([reaches(model.projections[i](both), z[j]) for j in range(3)])
        stack = model._stacked(i, stack, z[i])
    assert wanted == [[True, False, False], [True, True, False]]
    output = model.decode(z)
    assert [reaches(output, part) for part in z] == [True] * 3
    assert seen[0].shape[1:] == (4, 2, 1)
    assert [tuple(part.shape[2:]) for part in z] == [(2, 1), (4, 2), (8, 4)]


def test_two_levels_are_wired_as_the_paper_has_them():
    """Bottom: concat(decoded top, bottom features); decoder: concat(upsampled top, bottom)."""
    model = large(replace(THREE, strides=(4, 2))).eval()
    x = torch.randint(256, (2, *LARGE.shape))
    with torch.no_grad():
        bottom = model.encoders[1](model.scale(x))
        top = model.quantizers[0](model.projections[0](model.encoders[0](bottom)))
        both = torch.cat([model.level_decoders[0](top.z), bottom], 1)
        lower = model.quantizers[1](model.projections[1](both))
        output = model.decoder(torch.cat([model.upsamples[0](top.z), lower.z], 1))
        codes = model.tokenize(x)
        assert torch.equal(codes[0], top.codes)
        assert torch.equal(codes[1], lower.codes)
        torch.testing.assert_close(model.decode(model.code_vectors(codes)), output)


def test_names_stages_and_data_of_the_priors():
    model = large()
    stages = model.stages()
    assert [stage.name for stage in stages] == ["tokenizer", "top", "middle", "bottom"]
    assert [stage.needs for stage in stages[1:]] == [("tokenizer",)] * 3
    assert all(stage.prepare == stages[1].prepare for stage in stages[1:]), "the codes are computed once"
    assert [stage.samples for stage in stages] == [False, False, False, True]
    assert not model.can_sample(["tokenizer", "bottom"])
    assert model.can_sample(["tokenizer", "top", "middle", "bottom"])
    model.eval()
    batch = Batch(torch.randint(256, (2, *LARGE.shape)), torch.tensor([0, 1]))
    codes = model.tokenize(batch.x)
    for i, stage in enumerate(stages[1:]):
        prepared = stage.prepare(batch)
        seen = stage.transform(prepared, START) if stage.transform else prepared
        model.level_priors[i].spec.check(seen.x, seen.labels, seen.contexts)
        assert torch.equal(seen.x, codes[i])
        assert all(torch.equal(a, b) for a, b in zip(seen.contexts, codes[:i], strict=True))
    assert large(replace(THREE, strides=(8, 4, 2, 1))).level_names == ("top", "middle1", "middle2", "bottom")


@pytest.mark.parametrize("choice", [GatedPixelCNN, PixelSNAIL, Transformer])
def test_lower_priors_see_all_coarser_levels_and_their_own_past(choice):
    model = large(replace(THREE, lower_prior=choice.Config.tiny())).double().eval()
    for i, prior in enumerate(model.level_priors):
        certificate = certify(prior, trials=2)
        assert certificate.causal, str(certificate)
        assert certificate.ok, str(certificate)
        specs = prior.spec.contexts
        assert len(specs) == i
        shake(prior)
        x = torch.randint(prior.spec.levels, (1, *prior.spec.shape))
        contexts = [torch.randint(spec.levels, (1, *spec.shape)) for spec in specs]
        labels = torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            before = prior.conditionals(x, labels, contexts).log_pmf()
            for level, spec in enumerate(specs):
                for place in range(spec.dims):
                    changed = [context.clone() for context in contexts]
                    flat = changed[level].view(-1)
                    flat[place] = (flat[place] + 1) % spec.levels
                    after = prior.conditionals(x, labels, changed).log_pmf()
                    assert not torch.equal(before, after), f"level {level} at {place} is not seen"


def test_level_dropout_hides_finer_levels_of_some_examples():
    model = large(replace(THREE, level_dropout=0.5)).train()
    z = [torch.ones(4000, 4, 1, 1) for _ in range(3)]
    torch.manual_seed(0)
    kept = torch.stack([part.flatten(1).mean(1) for part in model._dropped(z)])
    assert kept.unique().tolist() == [0.0, 1.0]
    assert bool((kept[0] == 1).all()), "the top is never dropped"
    assert bool((kept[1] >= kept[2]).all()), "a level goes with all finer ones"
    shares = [(kept.sum(0) == n).double().mean().item() for n in (1, 2, 3)]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.03)
    model.eval()
    x = torch.randint(256, (2, *LARGE.shape))
    codes = model.tokenize(x)
    with torch.no_grad():
        assert torch.equal(model.decode(model.code_vectors(codes)), model.decode(model.code_vectors(codes)))


def test_coarser_levels_decode_alone_where_the_decoder_knows_that():
    model, codes = build(), None
    x = enumerate_examples(GREY)[::9]
    codes = model.tokenize(x)
    z = model.code_vectors(codes)
    with torch.no_grad():
        coarse = model.observation([z[0], torch.zeros_like(z[1])]).mean.round().to(torch.uint8)
    assert model.progressive
    assert torch.equal(model.detokenize(codes[:1]), coarse)
    assert torch.equal(model.detokenize(codes), model.reconstruct(x))
    strict = build("no level dropout")
    assert not strict.progressive
    with pytest.raises(UserError, match="expected 2 code maps"):
        strict.detokenize(strict.tokenize(x)[:1])


def test_finer_levels_are_drawn_from_their_priors():
    """Given top codes, bottom maps follow p(bottom | top), with classes as likely as the top makes them."""
    model = build("classes", random_priors=True).double()
    every, draws = every_code(model), 6000
    top = torch.full((draws, *model.code_specs()[0].shape), 1)
    codes = model.finer((top,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(codes[0], top)
    here = (every[0] == 1).flatten(1).all(1)
    with torch.no_grad():
        expected = (-model.rates(every)[1][here]).exp() * draws
    weights = 2 ** torch.arange(3, -1, -1)
    index = (codes[1].long().flatten(1) * weights).sum(1)
    order = (every[1][here].flatten(1) * weights).sum(1)
    observed = torch.bincount(index, minlength=16)[order].double()
    assert float(((observed - expected).square() / expected.clamp(min=1)).sum()) < 15 + 5 * math.sqrt(30)
    labels = torch.zeros(draws, dtype=torch.int64)
    labeled = model.finer((top,), labels, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(labeled[1], codes[1])
    assert all(torch.equal(a, b) for a, b in zip(model.finer(codes, labels), codes, strict=True))


def test_finer_says_what_does_not_fit():
    model = build("classes")
    top = torch.zeros(3, *model.code_specs()[0].shape, dtype=torch.int64)
    for call, message in (
        (lambda: model.finer(()), "expected 1 to 2 code maps"),
        (lambda: model.finer((top + 3,)), r"expected values 0\.\.2, got 3 as codes"),
        (lambda: model.finer((top,), torch.tensor([0, 1])), "expected 3 labels"),
        (lambda: model.finer((top,), options=Sampling(temperature=(1, 1, 1))), "got 3"),
    ):
        with pytest.raises(UserError, match=message):
            call()
    assert [level.dtype for level in model.finer((top.to(torch.uint8),))] == [torch.int64] * 2


def test_options_of_sampling_for_each_level():
    model = build("classes", random_priors=True)
    labels = torch.arange(60) % 3

    def draw(**options):
        seen = []
        model.from_codes, plain = lambda codes: (seen.extend(codes), plain(codes))[1], model.from_codes
        model.sample(60, labels, generator=torch.Generator().manual_seed(3), **options)
        model.from_codes = plain
        return seen

    both = draw()
    sharper = draw(temperature=(1.0, 20.0))
    assert torch.equal(both[0], sharper[0]), "the top is drawn as before"
    assert not torch.equal(both[1], sharper[1])
    greedy = draw(top_k=(1, 2))
    assert all(len(greedy[0][labels == c].unique()) == 1 for c in range(3))
    assert all(map(torch.equal, draw(top_k=(1, None)), greedy)), "2 of 2 codes, or the level left alone"
    assert all(map(torch.equal, draw(top_p=(None, None)), both))
    for options, message in (
        ({"temperature": (1.0, 0.9, 0.8)}, "expected one temperature, or one for each of 2 levels, got 3"),
        ({"top_k": (2, 3)}, r"expected top-k of 1\.\.2, got 3 for bottom codes"),
        ({"top_p": (0.5, 1.5)}, r"expected top_p in \(0, 1\], got \(0.5, 1.5\)"),
    ):
        with pytest.raises(UserError, match=message):
            model.sample(2, **options)
    with pytest.raises(UserError, match="expected one temperature, got 2"):
        VQVAE(VQVAE.Config.tiny(), GREY).sample(2, temperature=(1.0, 0.5))
    assert Sampling(temperature=[0.5]) == Sampling(temperature=0.5)


def test_progress_goes_on_from_level_to_level():
    model = build()
    shares = []
    model.sample(2, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 3


@pytest.mark.parametrize(
    ("strides", "message"),
    [
        ((4,), "expected at least 2 strides"),
        ((2, 4), "each smaller than the one before"),
        ((4, 4), "each smaller than the one before"),
        ((6, 2), "expected a stride that is a power of 2, got 6"),
        ((32, 2), "expected an image that stride 32 divides, got 16x8"),
    ],
)
def test_strides_that_do_not_fit(strides, message):
    with pytest.raises(UserError, match=message):
        large(replace(THREE, strides=strides))


class Coding(torch.nn.Module):
    """Both directions of a tokenizer, as what is exported."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        codes = self.model.to_codes(x)
        return codes, self.model.from_codes(codes)


class Likelihood(torch.nn.Module):
    """Log-likelihood of a level's codes under its prior, as what is exported."""

    def __init__(self, prior):
        super().__init__()
        self.prior = prior

    def forward(self, codes, labels, contexts):
        return self.prior.log_likelihood(Batch(codes, labels, tuple(contexts)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.export itself
@pytest.mark.parametrize(
    "options",
    [
        {
            "lower_prior": replace(PixelSNAIL.Config.tiny(), blocks=1),
            "lower_codes": Residual(codebook_size=3, dim=4),
        },
        {
            "lower_prior": replace(Transformer.Config.tiny(), layers=1),
            "lower_codes": FiniteScalar(levels=(3, 2)),
            "likelihood": "mse",
        },
    ],
    ids=["pixelsnail, residual", "transformer, finite-scalar, mse"],
)
def test_both_sides_export(options):
    """The tokenizer in both directions, and the likelihood of each prior, for any number of examples."""
    spec = replace(LARGE, levels=16)  # a mean is a sum over them, of operators that are exported each
    model = large(replace(THREE, strides=(4, 2), **options), spec).eval()
    x = torch.randint(16, (6, *spec.shape), dtype=torch.uint8)
    n = torch.export.Dim("n", max=1024)
    codes, decoded = torch.export.export(Coding(model), (x[:3],), dynamic_shapes=({0: n},)).module()(x)
    assert all(torch.equal(a, b) for a, b in zip(codes, model.tokenize(x), strict=True))
    assert torch.equal(decoded, model.reconstruct(x))
    labels = torch.arange(6) % 2
    with torch.no_grad():
        rates = model.rates(codes, labels)
        for i, prior in enumerate(model.level_priors):
            given = (codes[i], labels, list(codes[:i]))
            few = (codes[i][:3], labels[:3], [level[:3] for level in codes[:i]])
            sizes = ({0: n}, {0: n}, [{0: n}] * i)
            exported = torch.export.export(Likelihood(prior), few, dynamic_shapes=sizes).module()
            torch.testing.assert_close(-exported(*given), rates[i])


@pytest.mark.parametrize(
    ("recipe", "shape", "weights"),
    [
        ("medium", (3, 256, 256), [2.0e6, 70.8e6, 37.1e6]),
        ("imagenet256", (3, 256, 256), [2.0e6, 3323e6, 1646e6]),
        ("ffhq1024", (3, 1024, 1024), [3.4e6, 3323e6, 1646e6, 1703e6]),
    ],
)
def test_sizes_of_large_recipes(recipe, shape, weights):
    """What docs/figures.md says of them; nothing is allocated."""
    with torch.device("meta"):
        model = VQVAE2(VQVAE2.recipes[recipe].model, Spec(shape=shape, classes=10))
    found = [sum(p.numel() for p in stage.phases[0].parameters) for stage in model.stages()]
    assert found == pytest.approx(weights, rel=0.02)


def test_recipes_of_the_paper_say_what_its_tables_say():
    image, faces = VQVAE2.recipes["imagenet256"].model, VQVAE2.recipes["ffhq1024"].model
    assert [256 // stride for stride in image.strides] == [32, 64]
    assert [1024 // stride for stride in faces.strides] == [32, 64, 128]
    for config in (image, faces):
        assert (config.width, config.residual_width, config.blocks) == (128, 64, 2)
        for codes in (config.top_codes, config.lower_codes):
            assert (codes.codebook_size, codes.dim, codes.commitment_weight) == (512, 64, 0.25)
    top, lower = image.top_prior, image.lower_prior
    assert (top.width, top.residual_width, top.kernel, top.dropout) == (512, 2048, 5, 0.1)
    assert (lower.width, lower.residual_width, lower.kernel, lower.dropout) == (512, 1024, 5, 0.1)
    assert top.blocks * top.residual_blocks == lower.blocks * lower.residual_blocks == 20
    assert (top.blocks // top.attention_every, top.heads) == (4, 8)
    assert lower.attention_every == 0
    assert (top.output_blocks, lower.context_blocks) == (20, 20)
    stages = VQVAE2.recipes["imagenet256"].stages
    assert (stages["tokenizer"].steps, stages["tokenizer"].batch_size) == (2_207_444, 128)
    assert (stages["top"].batch_size, stages["bottom"].batch_size) == (1024, 512)
    assert VQVAE2.recipes["ffhq1024"].stages["tokenizer"].steps == 304_741
