"""Evaluation: its figures against an independent computation, on more examples than a batch holds."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Normal, kl_divergence

import ancestral
from ancestral.batch import Batch
from ancestral.cli import main as commands
from ancestral.data import Dataset, ImageOptions, SoundOptions, Sounds, load_data
from ancestral.errors import UserError
from ancestral.evaluation import (
    Evaluation,
    Figure,
    batches,
    complete,
    detokenize,
    evaluate,
    measurement,
    read_codes,
    reconstruct,
    sample,
    tokenize,
    write_codes,
)
from ancestral.evaluation.measurements import MEASUREMENTS
from ancestral.evaluation.subject import Subject
from ancestral.model import Model
from ancestral.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from ancestral.models.latent.quantizers import Residual
from ancestral.models.latent.vae import MLP, VAE
from ancestral.models.latent.vqvae import VQVAE
from ancestral.spec import Spec
from ancestral.stages import Loss
from ancestral.taxonomy import TAXONOMY, model_class

N = 23


@pytest.fixture(scope="module")
def data():
    return load_data("digits", ImageOptions())


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(batches, "SIZE", 10)  # 23 examples: the last batch is smaller


def build(cls, data, **changes):
    torch.manual_seed(0)
    model = cls(replace(cls.Config.tiny(), **changes), data.spec).eval()
    for p in model.parameters():  # away from zero initializations, so that examples differ
        with torch.no_grad():
            p.add_(0.05 * torch.randn_like(p))
    return model


def bits(nats, dims=64):
    """Mean and standard error in bits/dim, by NumPy."""
    values = nats.double().numpy() / (dims * np.log(2))
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


def figure(evaluation, name):
    return next(f for f in evaluation.figures if f.name == name)


@torch.no_grad()
def test_exact_likelihood(data):
    model = build(GatedPixelCNN, data)
    result = evaluate(model, data, limit=N)
    x = data.test.x[:N]
    log_prob = model.conditionals(x, torch.zeros(N, dtype=torch.long)).log_prob(x).flatten(1).sum(1)[:, None]
    log_prob = torch.cat(
        [log_prob] + [model.log_likelihood(Batch(x, torch.full((N,), c)))[:, None] for c in range(1, 10)], 1
    )
    mean, error = bits(math.log(10) - log_prob.logsumexp(1))
    f = figure(result, "negative log-likelihood")
    assert (f.unit, f.kind, result.examples, result.split) == ("bits/dim", "exact", N, "test")
    assert f.value == pytest.approx(mean, rel=1e-6)
    assert f.standard_error == pytest.approx(error, rel=1e-4)


@torch.no_grad()
def test_bound_of_a_vae(data):
    model = build(VAE, data, architecture=MLP(hidden=8))
    result = evaluate(model, data, limit=N, importance_samples=300, seed=1)
    x = data.test.x[:N]
    mean, log_std = model.encoder(model.scale(x)).chunk(2, 1)
    q = Normal(mean, log_std.clamp(-7, 7).exp())
    torch.manual_seed(5)
    z = q.sample((400,))
    log_likelihood = torch.stack([model.observation(one).log_prob(x).flatten(1).sum(1) for one in z])
    rate = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    expected, _ = bits(rate - log_likelihood.mean(0))
    elbo, weighted = figure(result, "negative ELBO"), figure(result, "importance-weighted, k=300")
    noise = bits(log_likelihood.std(0))[0] / math.sqrt(N)
    assert elbo.value == pytest.approx(expected, abs=5 * noise)
    log_weights = log_likelihood + Normal(0.0, 1.0).log_prob(z).sum(2) - q.log_prob(z).sum(2)
    assert weighted.value == pytest.approx(bits(math.log(400) - log_weights.logsumexp(0))[0], abs=1e-3)
    assert weighted.value <= elbo.value + 5 * noise
    assert {elbo.kind, weighted.kind} == {"bound"}


@torch.no_grad()
def test_noise_of_a_bound_follows_the_seed_and_leaves_the_callers_alone(data):
    model = build(VAE, data)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    values = [evaluate(model, data, limit=N, seed=seed)["negative ELBO"] for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"quantizer": Residual(codebook_size=4, dim=4, num_codebooks=2)}])
def test_figures_of_a_tokenizer(data, changes):
    model = build(VQVAE, data, **changes)
    result = evaluate(model, data, limit=N)
    x = data.test.x[:N]
    codes = model.quantizer.encode(model.encoder(model.scale(x)))
    decoder = -model.observation([model.quantizer.decode(codes)]).log_prob(x).flatten(1).sum(1)
    by_class = torch.stack([model.prior.log_likelihood(Batch(codes, torch.full((N,), c))) for c in range(10)])
    rate = math.log(10) - by_class.logsumexp(0)
    labeled = -by_class[data.test.labels[:N], torch.arange(N)]
    for name, nats, kind in [
        ("negative ELBO (codes + decoder)", decoder + rate, "bound"),
        ("negative ELBO, uniform prior", decoder + codes[0].numel() * math.log(4), "bound"),
        ("decoder, given the codes", decoder, "measure"),
        ("codes under the prior", rate, "measure"),
        ("negative ELBO given the label", decoder + labeled, "bound"),
        ("codes given the label", labeled, "measure"),
    ]:
        f = figure(result, name)
        mean, error = bits(nats)
        assert (f.unit, f.kind, f.better) == ("bits/dim", kind, "lower")
        assert f.value == pytest.approx(mean, rel=1e-5), name
        assert f.standard_error == pytest.approx(error, rel=1e-3), name
    assert result["nelbo_codes_decoder"] == pytest.approx(
        result["decoder"] + result["codes"], rel=1e-12
    )  # sums in double precision
    for condition in ("", "_given_label"):
        bits_of_all = result[f"codes{condition}"] * 64
        assert result[f"prior_level0{condition}"] == pytest.approx(bits_of_all / codes[0].numel())
    assert figure(result, "prior, a code").unit == "bits/code"
    assert len(result.codebooks) == codes.shape[1]
    for i, book in enumerate(result.codebooks):
        counts = np.bincount(codes[:, i].flatten().numpy(), minlength=4)
        p = counts[counts > 0] / counts.sum()
        assert book.usage == counts.tolist()
        assert (book.size, book.used) == (4, len(p))
        assert book.perplexity == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cls", [VAE, VQVAE])
def test_reconstruction(data, cls):
    model = build(cls, data)
    result = evaluate(model, data, split="validation", limit=N)
    x = data.validation.x[:N]
    squares = ((model.reconstruct(x).double() - x.double()) / 16).square().flatten(1).mean(1).numpy()
    assert result["reconstruction MSE"] == pytest.approx(squares.mean())
    assert result["reconstruction PSNR"] == pytest.approx(-10 * np.log10(squares.mean()))
    assert figure(result, "reconstruction PSNR").unit == "dB"
    assert figure(result, "reconstruction PSNR").note == "of the MSE"


def test_psnr_is_of_the_mean_error_and_counts_perfect_images_apart(data):
    """A mean over images took each perfect one for 100 dB: two of four wrong by one level gave 62 dB."""

    class Nearly(VAE):
        wrong = 2

        def reconstruct(self, x):
            by = torch.arange(len(x)) < self.wrong
            return torch.where(by.view(-1, 1, 1, 1), x.int() + torch.where(x < 16, 1, -1), x.int())

    model = Nearly(VAE.Config.tiny(), data.spec).eval()
    result = evaluate(model, data, limit=4)
    assert result["reconstruction_psnr"] == pytest.approx(20 * np.log10(16) + 10 * np.log10(2))
    assert figure(result, "reconstruction PSNR").note == "of the MSE; 2 of 4 perfect"
    model.wrong = 0
    perfect = evaluate(model, data, limit=4)
    assert perfect["reconstruction_mse"] == 0
    assert "reconstruction_psnr" not in [f.id for f in perfect.figures]


def test_tokenizer_trained_on_squared_error_claims_no_likelihood(data):
    result = evaluate(build(VQVAE, data, likelihood="mse"), data, limit=N)
    names = {f.name for f in result.figures}
    assert not names & {
        "negative ELBO (codes + decoder)",
        "decoder, given the codes",
        "negative ELBO, uniform prior",
        "negative ELBO given the label",
    }
    assert {"codes under the prior", "prior, a code", "reconstruction MSE"} <= names


def test_batches_do_not_matter(data, monkeypatch):
    model = build(VQVAE, data)
    small = evaluate(model, data, limit=N)
    monkeypatch.setattr(batches, "SIZE", 1000)
    one = evaluate(model, data, limit=N)
    for a, b in zip(small.figures, one.figures, strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-5), a.name


def test_units():
    nats = torch.tensor([64 * math.log(2), 3 * 64 * math.log(2)])
    spec, about = Spec(shape=(1, 8, 8)), {"quantity": "negative log-likelihood", "kind": "exact"}
    f = Figure.of_nats("x", "x", nats, spec, **about)
    assert (f.value, f.standard_error) == pytest.approx((2.0, 1.0))
    assert f.unit == "bits/dim"
    assert Figure.of_nats("x", "x", nats[:1], spec, **about).standard_error is None
    f = Figure.of_nats("x", "x", nats, Spec(shape=(64,), levels=None), **about)
    assert (f.value, f.standard_error) == pytest.approx((128 * math.log(2), 64 * math.log(2)))
    assert f.unit == "nats"


def test_result_as_json_and_as_text(data):
    result = evaluate(build(VQVAE, data), data, limit=N)
    assert json.loads(json.dumps(result.to_json()))["figures"][0]["id"] == "nelbo_codes_decoder"
    text = str(result)
    assert text.startswith(f"VQ-VAE on digits, test split, {N} examples\n")
    assert max(map(len, text.splitlines())) <= 100
    for f in result.figures:
        assert sum(line.startswith(f"{f.name}  ") for line in text.splitlines()) == 1
    assert result["nelbo_codes_decoder"] == result["negative ELBO (codes + decoder)"]
    with pytest.raises(KeyError, match="no figure 'honesty', but nelbo_codes_decoder, nelbo"):
        _ = result["honesty"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"data": None},
            r"expected data, got none, and a VAE without its run has none; name them with --data",
        ),
        (
            {"preparation": ImageOptions()},
            "expected the source of the data to prepare, got none; name it with data, or leave",
        ),
        ({"split": "tset"}, "expected a split, got tset; choose from train, validation, test, all"),
        ({"limit": 0}, "expected at least 1 example, got 0"),
        ({"importance_samples": -1}, "expected at least 1 importance sample, got -1"),
        ({"seed": -1}, "expected a seed of 0 or more"),
        (
            {"data": "digits", "preparation": ImageOptions(levels=2)},
            r"with 17 levels, got digits with \(1, 8, 8\) and 2",
        ),
    ],
)
def test_bad_arguments(data, arguments, message):
    with pytest.raises(UserError, match=message):
        evaluate(**({"model": build(VAE, data), "data": data} | arguments))


def test_readme(tmp_path, data):
    options = ancestral.TrainingOptions(device="cpu", sample_every=0)
    stages = {name: {"steps": 2, "batch_size": 8} for name in ("tokenizer", "prior")}
    prior = {"kind": "gated-pixelcnn", "width": 8, "layers": 1, "head": 8}
    tiny = {"width": 8, "blocks": 1, "residual_width": 4, "prior": prior}
    run = ancestral.train(
        "vqvae",
        data="digits",
        recipe="digits",
        out=tmp_path / "digits",
        config=tiny,
        stages=stages,
        options=options,
    )
    model = ancestral.load(tmp_path / "digits")
    images = model.sample(6, temperature=0.9)
    assert (images.dtype, images.shape) == (torch.uint8, (6, 1, 8, 8))
    codes = model.tokenize(images)
    assert [c.shape for c in codes] == [(6, 1, 4, 4)]
    result = ancestral.evaluate(str(tmp_path / "digits"), limit=N)
    assert result["nelbo_codes_decoder"] == evaluate(model, data, limit=N)["nelbo_codes_decoder"]
    assert ancestral.write_report(run.path) == tmp_path / "digits" / "report.html"
    quantized = ancestral.VectorQuantizer(64, 512)(torch.randn(2, 64, 4, 4))
    assert quantized.z.shape == (2, 64, 4, 4)


def test_samples_come_in_batches_with_their_labels(data, monkeypatch):
    from ancestral.evaluation import sampling

    model = build(GatedPixelCNN, data)
    monkeypatch.setattr(sampling, "_BATCH", 2)
    x, labels = sample(model, 5, [7, 3], seed=2)
    assert labels.tolist() == [7, 3, 7, 3, 7]
    generator = torch.Generator().manual_seed(2)
    parts = [model.sample(len(part), part, generator=generator) for part in labels.split(2)]
    assert torch.equal(x, torch.cat(parts))


@pytest.mark.parametrize("class_conditional", [True, False])
def test_completions_come_in_batches_with_their_classes(data, monkeypatch, class_conditional):
    from ancestral.evaluation import sampling

    model = build(GatedPixelCNN, data, class_conditional=class_conditional)
    monkeypatch.setattr(sampling, "_BATCH", 2)
    known = (torch.arange(8) < 4).view(8, 1).expand(8, 8)
    generator = torch.Generator().manual_seed(2)
    labels = data.test.labels[:5] if class_conditional else None
    x, completed = complete(model, data, labels=labels, n=5, seed=2, temperature=0.5)
    assert torch.equal(x, data.test.x[:5])
    parts = [
        model.complete(
            x[part],
            known,
            labels[part] if class_conditional else None,
            temperature=0.5,
            generator=generator,
        )
        for part in torch.arange(5).split(2)
    ]
    assert torch.equal(completed, torch.cat(parts))
    with pytest.raises(UserError, match=r"expected a boolean mask of known values, got torch\.float32"):
        complete(model, x, known.float())
    with pytest.raises(UserError, match="expected at least 1 example, got none"):
        complete(model, x[:0])


def test_all_splits_one_after_another(data):
    everything = data.split("all")
    assert torch.equal(everything.x, torch.cat([data.train.x, data.validation.x, data.test.x]))
    assert torch.equal(
        everything.labels, torch.cat([data.train.labels, data.validation.labels, data.test.labels])
    )
    first = data.split("all", len(data.train) + 3)
    assert torch.equal(first.x, everything.x[: len(data.train) + 3])
    assert torch.equal(first.labels, everything.labels[: len(data.train) + 3])
    partly = replace(data, test=replace(data.test, labels=None))
    assert partly.split("all").labels is None, "no example gets the label of another"


def test_codes_of_several_levels_need_safetensors(tmp_path):
    codes = tuple(
        torch.arange(12 + i, 12 + i + 2 * 1 * (i + 1) ** 2, dtype=torch.uint8).view(2, 1, i + 1, i + 1)
        for i in range(11)
    )
    write_codes(tmp_path / "codes.safetensors", codes)
    back = read_codes(tmp_path / "codes.safetensors")
    assert [c.shape for c in back] == [c.shape for c in codes], "level10 comes after level9"
    assert all(torch.equal(a, b) for a, b in zip(codes, back, strict=True))
    assert [len(c) for c in read_codes(tmp_path / "codes.safetensors", 1)] == [1] * 11
    with pytest.raises(
        UserError, match=r"expected one level of codes for \.npy, got 11; write \.safetensors"
    ):
        write_codes(tmp_path / "codes.npy", codes)
    assert not (tmp_path / "codes.npy").exists()


def test_detokenize_inverts_tokenize_up_to_the_loss(data):
    model = build(VQVAE, data)
    x = data.test.x[:N]
    codes, labels = tokenize(model, data, split="test")
    assert torch.equal(labels, data.test.labels)
    codes, labels = tokenize(model, x)
    assert labels is None
    assert codes[0].dtype == torch.uint8
    assert torch.equal(detokenize(model, codes), model.reconstruct(x))
    originals, versions = reconstruct(model, data, n=N)
    assert torch.equal(originals, x)
    assert torch.equal(versions, model.reconstruct(x))


@pytest.mark.parametrize("function", [evaluate, sample, reconstruct, tokenize])
def test_a_model_that_is_given_stays_in_its_mode(data, function):
    model = build(VQVAE, data).train()
    model.decoder.eval()
    before = {name: module.training for name, module in model.named_modules()}
    function(model, **({"n": 2} if function is sample else {"data": data, "split": "validation"}))
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(UserError):
        function(model, seed=-1) if function is sample else function(model, data, split="tset")
    assert {name: module.training for name, module in model.named_modules()} == before


def test_a_run_is_all_that_the_functions_need(tmp_path, data, monkeypatch, capsys):
    options = ancestral.TrainingOptions(device="cpu", sample_every=0)
    stages = {name: {"steps": 2, "batch_size": 8} for name in ("tokenizer", "prior")}
    run = ancestral.train(
        "vqvae",
        data="digits",
        out=tmp_path / "run",
        config=VQVAE.Config.tiny(),
        stages=stages,
        options=options,
    )
    model = ancestral.load(run.path)
    x, labels = ancestral.sample(run, 3, [7, 2], seed=4)
    assert torch.equal(
        x, model.sample(3, torch.tensor([7, 2, 7]), generator=torch.Generator().manual_seed(4))
    )
    assert labels.tolist() == [7, 2, 7]
    originals, versions = ancestral.reconstruct(run.path, n=5)
    assert torch.equal(originals, data.test.x[:5])
    assert torch.equal(versions, model.reconstruct(data.test.x[:5]))
    codes, labels = ancestral.tokenize(str(run.path))
    assert torch.equal(codes[0].long(), model.tokenize(data.train.x)[0])
    assert torch.equal(labels, data.train.labels)
    ancestral.write_codes(tmp_path / "codes.safetensors", codes, labels)
    back = ancestral.detokenize(run, ancestral.read_codes(tmp_path / "codes.safetensors", 5))
    assert torch.equal(back, model.reconstruct(data.train.x[:5]))

    about = run.path / "evaluation.json"
    for arguments in (
        {"write": False},
        {"data": "digits"},
        {"data": data},
        {"limit": N},
        {"split": "validation"},
    ):
        ancestral.evaluate(run, **arguments)
        assert not about.exists(), "only figures on the whole of the run's own test split are the run's"
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: Path(path) != run.path)
        with pytest.raises(UserError, match=r"got a folder that cannot be written; .*write=False"):
            ancestral.evaluate(run)
        assert len(ancestral.evaluate(run, write=False).figures)
        commands.run(["evaluate", str(run.path)])
        shown = capsys.readouterr().out
        assert "negative ELBO" in shown
        assert shown.endswith(f"\n(not written into {run.path}: it cannot be written)\n")
    assert not about.exists()
    result = ancestral.evaluate(run)
    assert json.loads(about.read_text()) == result.to_json()
    assert {"reconstructions.png", "latent.png"} <= {p.name for p in (run.path / "samples").iterdir()}


def test_snippets_of_the_readme_run(tmp_path, monkeypatch):
    """As they stand, but for short trainings of small models, and on the digits."""
    first, second = re.findall(
        r"```python\n(.*?)```",
        (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    train = ancestral.train

    def briefly(model, **options):
        cls = model_class(model)
        stages = {
            name: {"steps": 2, "batch_size": 8, "compile": False}
            for name in next(iter(cls.recipes.values())).stages
        }
        config = (
            cls.Config.tiny() if model == "vqvae" else replace(cls.Config.tiny(), class_conditional=False)
        )  # as the recipe's
        return train(
            model, **options, config=config, stages=stages, options=ancestral.TrainingOptions(device="cpu")
        )

    monkeypatch.setattr(ancestral, "train", briefly)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(first, names)
    assert (names["images"].shape, names["originals"].shape) == ((64, 1, 8, 8), (32, 1, 8, 8))
    briefly("pixelcnnpp", data="digits", out="runs/pixels")
    names = {}
    exec(second.replace("fashion-mnist", "digits").replace("28, 28", "8, 8").replace("[:14]", "[:4]"), names)
    assert torch.equal(names["completed"][:, :, :4], names["x"][:, :, :4])
    assert not torch.equal(names["completed"], names["x"])


def test_public_names_are_there_and_come_without_torch():
    assert all(getattr(ancestral, name) is not None for name in ancestral.__all__)
    assert sorted(ancestral._HOMES) == sorted(ancestral.__all__)
    assert [name for name in dir(ancestral) if not name.startswith("__")] == sorted(ancestral.__all__)
    code = "import sys, ancestral; ancestral.TAXONOMY, ancestral.UserError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def pictures(tmp_path):
    """A folder of color pictures of several sizes."""
    random = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(random.integers(0, 256, (9 + i % 3, 14, 3), dtype=np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    return str(tmp_path)


def test_images_of_a_source_are_brought_to_what_the_model_takes(data, pictures):
    model = build(VQVAE, data)
    expected = load_data(pictures, ImageOptions(size=(8, 8), mode="gray", levels=17)).train.x
    assert torch.equal(tokenize(model, pictures)[0][0].long(), model.tokenize(expected)[0])
    for images in (
        ImageOptions(fit="stretch"),
        ImageOptions(size=(8, 8), fit="stretch", mode="gray", levels=17),
    ):
        x, _ = reconstruct(model, pictures, split="train", n=None, preparation=images)
        assert torch.equal(
            x, load_data(pictures, ImageOptions(size=(8, 8), fit="stretch", mode="gray", levels=17)).train.x
        )
        assert not torch.equal(x, expected), "what is asked for wins"
    assert evaluate(model, pictures).examples == 2


@pytest.mark.parametrize(
    ("spec", "images", "message"),
    [
        (
            Spec(shape=(1, 8, 8)),
            None,
            r"expected examples of shape \(1, 8, 8\) with 256 levels, got digits with \(1, 8, 8\) and 17; "
            "use data",
        ),
        (
            Spec(shape=(1, 8, 8)),
            ImageOptions(size=(16, 16)),
            r"expected examples of shape \(1, 8, 8\) with 256 levels, got digits with \(1, 16",
        ),
        (
            Spec(shape=(3, 8, 8), levels=17),
            ImageOptions(mode="gray"),
            r"got digits with \(1, 8, 8\) and 17; use data",
        ),
        (
            Spec(shape=(2, 8, 8), levels=17),
            None,
            r"expected a model of images with 1 or 3 channels to name data for, got one of \(2, 8, 8\)",
        ),
        (Spec(shape=(1, 8, 8), levels=512), None, r"got one of \(1, 8, 8\) with 512 levels; give the data"),
    ],
)
def test_what_cannot_be_brought_to_the_model(spec, images, message):
    with pytest.raises(UserError, match=message):
        reconstruct(VAE(VAE.Config.tiny(), spec), "digits", preparation=images)


def test_gray_digits_fit_a_model_of_color():
    x, _ = reconstruct(VAE(VAE.Config.tiny(), Spec(shape=(3, 16, 16), levels=2)), "digits", n=3)
    assert x.shape == (3, 3, 16, 16)
    assert x.max() == 1


@pytest.mark.parametrize(
    ("cls", "changes", "reason"),
    [
        (GatedPixelCNN, {}, "GatedPixelCNN, whose likelihood is exact"),
        (VQVAE, {}, "VQVAE, whose bound is the same for all samples"),
    ],
)
def test_importance_samples_where_they_mean_nothing(data, cls, changes, reason):
    with pytest.raises(
        UserError,
        match=f"expected a model to draw importance samples from, got {reason}; "
        "leave --importance-samples out",
    ):
        evaluate(build(cls, data, **changes), data, importance_samples=8)


def test_a_class_conditional_model_is_measured_given_the_labels_too(data, monkeypatch):
    model, x, labels = build(GatedPixelCNN, data), data.test.x[:N], data.test.labels[:N]
    with torch.no_grad():
        mean, error = bits(-model.log_likelihood(Batch(x, labels)))
    f = figure(result := evaluate(model, data, limit=N), "NLL given the label")
    assert (f.id, f.kind, f.unit) == ("nll_given_label", "exact", "bits/dim")
    assert f.quantity == "negative log-likelihood given the label"
    assert (f.value, f.standard_error) == pytest.approx((mean, error), rel=1e-4)
    unlabeled = replace(data, test=replace(data.test, labels=None))
    assert [f.id for f in evaluate(model, unlabeled, limit=N).figures] == ["nll"]
    assert evaluate(model, unlabeled, limit=N)["nll"] == result["nll"]
    other = replace(data, spec=replace(data.spec, classes=12))
    assert [f.id for f in evaluate(model, other, limit=N).figures] == ["nll"], "its labels mean other things"
    unconditional = build(GatedPixelCNN, data, class_conditional=False)
    assert [f.id for f in evaluate(unconditional, data, limit=N).figures] == ["nll"]

    monkeypatch.setattr(measurement, "MOST_CLASSES", 9)
    (f,) = evaluate(model, data, limit=N).figures
    assert (f.id, f.value, f.note) == (
        "nll_given_label",
        result["nll_given_label"],
        "mixture of 10 classes left out",
    )
    assert [f.id for f in evaluate(model, unlabeled, limit=N).figures] == ["nll"], "there is no other way"
    result = evaluate(build(VQVAE, data), data, limit=N)
    assert {
        "nelbo_codes_decoder_given_label",
        "codes_given_label",
        "prior_level0_given_label",
        "decoder",
    } <= {f.id for f in result.figures}
    with pytest.raises(KeyError, match="no figure 'nelbo_codes_decoder', but"):
        _ = result["nelbo_codes_decoder"]
    assert max(map(len, str(result).splitlines())) <= 100


def test_labels_of_another_data_set_are_not_the_models(data):
    run = SimpleNamespace(manifest={"data": {"classes": list(data.classes)}})
    subject = Subject(build(GatedPixelCNN, data), run)
    assert subject.with_own_labels(data.test, data).labels is data.test.labels
    clothes = replace(data, classes=tuple(f"garment {i}" for i in range(10)))
    assert subject.with_own_labels(data.test, clothes).labels is None


@pytest.fixture(scope="module")
def conditional():
    """Images with classes and contexts: a 2x2 map and a 4x4 map of codes."""
    generator = torch.Generator().manual_seed(0)

    def integers(levels, *shape):
        return torch.randint(levels, shape, generator=generator, dtype=torch.uint8)

    def split(n):
        return Batch(
            integers(5, n, 1, 4, 4), integers(3, n).long(), (integers(2, n, 1, 2, 2), integers(7, n, 1, 4, 4))
        )

    contexts = tuple(
        Spec(shape=(1, side, side), levels=levels, domain="codes") for side, levels in ((2, 2), (4, 7))
    )
    spec = Spec(shape=(1, 4, 4), levels=5, classes=3, contexts=contexts)
    return Dataset(
        source="mine",
        spec=spec,
        train=split(30),
        validation=split(11),
        test=split(N),
        classes=("a", "b", "c"),
    )


def test_contexts_reach_every_figure(conditional):
    model, test = build(GatedPixelCNN, conditional), conditional.test
    result = evaluate(model, conditional)
    with torch.no_grad():
        given = model.conditionals(test.x, test.labels, test.contexts).log_prob(test.x).flatten(1).sum(1)
        classes = [model.log_likelihood(replace(test, labels=torch.full((N,), c))) for c in range(3)]
    mixture = torch.stack(classes).logsumexp(0) - math.log(3)
    assert result["nll_given_label"] == pytest.approx(bits(-given, 16)[0], rel=1e-6)
    assert result["nll"] == pytest.approx(bits(-mixture, 16)[0], rel=1e-6)
    turned = replace(conditional, test=replace(test, contexts=tuple(c.flip(0) for c in test.contexts)))
    assert evaluate(model, turned)["nll"] != pytest.approx(result["nll"], rel=1e-6)


def test_contexts_reach_samples_and_completions(conditional, monkeypatch):
    from ancestral.evaluation import sampling

    monkeypatch.setattr(sampling, "_BATCH", 2)
    model, test = build(GatedPixelCNN, conditional), conditional.test
    contexts = tuple(c[:5] for c in test.contexts)
    parts = torch.arange(5).split(2)
    x, labels = sample(model, 5, [2, 0], contexts=contexts, seed=4)
    generator = torch.Generator().manual_seed(4)
    expected = [
        model.sample(len(p), labels[p], contexts=[c[p] for c in contexts], generator=generator) for p in parts
    ]
    assert torch.equal(x, torch.cat(expected))

    known = torch.arange(16).view(1, 4, 4) < 8
    generator = torch.Generator().manual_seed(4)
    _, completed = complete(model, conditional, n=5, labels=test.labels[:5], seed=4)
    expected = [
        model.complete(
            test.x[:5][p], known, test.labels[:5][p], contexts=[c[p] for c in contexts], generator=generator
        )
        for p in parts
    ]
    assert torch.equal(completed, torch.cat(expected))
    _, again = complete(model, test[:5], labels=test.labels[:5], seed=4)
    assert torch.equal(again, completed), "a batch brings its contexts along"


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda m, d: sample(m, 2), "expected 2 contexts, got 0; give the model what it was trained on"),
        (lambda m, d: sample(m, 2, contexts=d.test.contexts), f"expected 2 examples of context 0, got {N}"),
        (lambda m, d: sample(m, 70, [0] * 69 + [3]), r"expected labels 0\.\.2, got 0\.\.3"),
        (lambda m, d: complete(m, d.test.x), "expected 2 contexts, got 0"),
        (
            lambda m, d: sample(m, 2, contexts=[c[:2] for c in d.test.contexts], truncation=1.0),
            "expected no truncation, got one: GatedPixelCNN takes",
        ),
        (lambda m, d: sample(m, 2, contexts=[c[:2] for c in d.test.contexts], temperature=0), "temperature"),
        (
            lambda m, d: evaluate(m, replace(d, spec=replace(d.spec, contexts=d.spec.contexts[:1]))),
            r"expected contexts \(\(\(1, 2, 2\), 2\), \(\(1, 4, 4\), 7\)\), "
            r"got mine with \(\(\(1, 2, 2\), 2\),\)",
        ),
    ],
)
def test_bad_conditions(conditional, action, message):
    with pytest.raises(UserError, match=message):
        action(build(GatedPixelCNN, conditional), conditional)


class Normals(Model):
    """Independent normal variables: an exact log density of rows of a table."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """No options."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.mean = torch.nn.Parameter(torch.linspace(-1, 1, spec.dims))

    @property
    def likelihood(self):
        return "exact"

    def log_likelihood(self, batch, k=1):
        self.check_importance_samples(k)
        return Normal(self.mean, 1.0).log_prob(batch.x).sum(1)

    def loss(self, batch, phase, progress):
        return Loss(-self.log_likelihood(batch).mean())

    def draw(self, n, labels, contexts, options, *, generator, progress):
        return self.mean + options.temperature * torch.randn(n, self.spec.dims, generator=generator)


def test_a_density_of_a_table_is_in_nats():
    spec = Spec(shape=(6,), levels=None)
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
    table = Dataset(source="table", spec=spec, train=Batch(x), validation=Batch(x), test=Batch(x))
    model = Normals(Normals.Config(), spec)
    result = evaluate(model, table)
    f, gaussian, marginals = result.figures[:3]
    costs = 0.5 * (x - torch.linspace(-1, 1, 6)).double().square().sum(1) + 3 * math.log(2 * math.pi)
    assert (f.id, f.unit, f.kind, f.better) == ("nll", "nats", "exact", "lower")
    assert f.value == pytest.approx(float(costs.mean()), rel=1e-6)
    assert f.standard_error == pytest.approx(float(costs.std() / math.sqrt(N)), rel=1e-5)
    assert (gaussian.id, marginals.id, len(result.figures)) == ("nll_gaussian", "marginals", 9)
    assert str(result).startswith("Normals on table, test split")
    drawn, _ = sample(model, 70, seed=1, temperature=0.5)
    assert drawn.shape == (70, 6)
    assert drawn.dtype == torch.float32
    with pytest.raises(UserError, match="got Normals, whose likelihood is exact"):
        evaluate(model, table, importance_samples=2)


@pytest.mark.parametrize("name", [row.name for row in TAXONOMY])
def test_figures_say_what_they_are_and_have_ids_of_their_own(data, name):
    if name == "vqvae-sound":
        part = Sounds(torch.arange(90)[:, None] % 17, torch.tensor([40, 30, 20]))
        spec = SoundOptions(length=16, levels=17).spec()
        data = Dataset(source="mine", spec=spec, train=part, validation=part, test=part)
    model = build(model_class(name), data)
    result = evaluate(model, data, limit=3, importance_samples=2 if model.importance_weighted else 0)
    assert result.figures
    for key in ("id", "name"):
        values = [getattr(f, key) for f in result.figures]
        assert len(set(values)) == len(values), values
    assert max(map(len, str(result).splitlines())) <= 100
    for f in result.figures:
        assert re.fullmatch(r"[a-z0-9_]+", f.id)
        assert f.quantity
        assert f.better in ("lower", "higher") or f.id in ("copies_auroc", "code_rate_0")
        assert f.kind == "measure" or f.better == "lower", "negative log-likelihoods, and what is part of one"
        assert result[f.id] == result[f.name] == f.value


def test_one_more_measurement_is_one_more_entry(data, monkeypatch):
    from ancestral.evaluation import evaluation

    class Brightness:
        def applies(self, model):
            return model.spec.domain == "image"

        def measure(self, examined):
            torch.rand(7)  # noise that must not move the figures of others
            means = examined.each("brightness", lambda batch: batch.x.double().flatten(1).mean(1))
            f = Figure(id="brightness", name="brightness", value=float(means.mean()), quantity="brightness")
            return measurement.Result(figures=[f])

    model = build(VAE, data)
    before = evaluate(model, data, limit=N)
    monkeypatch.setattr(evaluation, "MEASUREMENTS", {"brightness": Brightness(), **MEASUREMENTS})
    after = evaluate(model, data, limit=N)
    assert after["brightness"] == pytest.approx(float(data.test.x[:N].double().mean()))
    assert after.figures[1:] == before.figures


def test_the_codes_are_computed_once(data, monkeypatch):
    calls = []
    encode = measurement.encode
    monkeypatch.setattr(measurement, "encode", lambda *args, **kw: calls.append(1) or encode(*args, **kw))
    evaluate(build(VQVAE, data), data, limit=N)
    assert len(calls) == 1


def test_a_long_note_is_folded():
    f = Figure(id="x", name="x", value=1234.5, quantity="x", better="higher", note="word " * 30)
    text = str(Evaluation(model="m", data="d", split="test", examples=3, figures=[f]))
    assert "1234" in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("word") == 30


def test_a_picture_that_cannot_be_drawn_takes_no_figure_away(data, tmp_path, monkeypatch, capsys):
    model = build(model_class("vae"), data)

    def beyond(*_):
        raise UserError("expected finite samples, got none", "lower the temperature")

    monkeypatch.setattr("ancestral.evaluation.measurements.latents.interpolations", beyond)
    result = evaluate(model, data, limit=20, out=tmp_path)
    assert result["nelbo"] > 0
    assert (tmp_path / "evaluation.json").is_file()
    assert "no picture of interpolations: expected finite samples, got none" in capsys.readouterr().err
