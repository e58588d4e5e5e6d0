"""VQ-VAE-2 as a training: every stage resumes exactly, and the priors can be trained apart."""

import math
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import ancestral
from ancestral.batch import Batch
from ancestral.errors import UserError
from ancestral.models.latent.vqvae2 import VQVAE2
from ancestral.training import TrainingOptions, train

STAGES = ("tokenizer", "top", "middle", "bottom")
TINY = {
    "strides": [4, 2, 1],
    "top_codes": {"codebook_size": 8, "dim": 4},
    "lower_codes": {"codebook_size": 4, "dim": 4},
    "level_dropout": 0.2,
    "width": 8,
    "blocks": 1,
    "residual_width": 4,
    "likelihood": "logistic-mixture",
    "components": 2,
    "top_prior": {"width": 8, "layers": 1, "head": 8, "dropout": 0.1},
    "lower_prior": {"width": 8, "layers": 1, "head": 8, "dropout": 0.1},
}
OPTIONS = TrainingOptions(device="cpu", checkpoint_every=4, evaluate_every=8, sample_every=0, log_every=4)
OPTIMIZATION = {name: {"steps": 12, "batch_size": 16, "warmup": 2, "ema": 0.9} for name in STAGES}


def tiny(out, **kwargs):
    how = {"config": TINY, "stages": OPTIMIZATION, "options": OPTIONS} | kwargs
    return train("vqvae2", data="digits", out=out, recipe="ffhq1024", **how)


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from test_vqvae2_training import tiny
tiny({out!r})
"""


def weights(run):
    return (Path(run) / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    calls, plain = [], VQVAE2.code_batch
    VQVAE2.code_batch = lambda self, batch: (calls.append(len(batch)), plain(self, batch))[1]
    try:
        run = tiny(out)
    finally:
        VQVAE2.code_batch = plain
    examples = len(run.load_data().train) + len(run.load_data().validation)
    assert sum(calls) == examples, "the codes of all levels are computed once, in one pass"
    return out


@pytest.mark.parametrize("stage", ["bottom"])  # the others are as VQ-VAE's
def test_killed_in_a_prior_resumes_to_the_same_weights(whole, start, stop, tmp_path, stage):
    out = tmp_path / "run"
    program = PROGRAM.format(folder=str(Path(__file__).parent), out=str(out))
    process = start(program, said=tmp_path / "output.txt")
    there = out / "checkpoints" / stage
    assert stop(process, signal.SIGKILL, lambda: [*there.glob("step-*")]) == -signal.SIGKILL
    tiny(out)
    assert weights(out) == weights(whole)


def test_priors_trained_apart_are_those_trained_in_turn(whole, tmp_path):
    """A tokenizer alone; each prior from it, in a run of its own, in any order; joined."""
    runs = {name: tmp_path / name for name in (*STAGES, "joined")}
    tiny(runs["tokenizer"], only=["tokenizer"])
    with pytest.raises(UserError, match=r"expected a model with all stages trained, got one without top"):
        ancestral.sample(runs["tokenizer"], 1)
    for name in ("bottom", "top", "middle"):
        tiny(runs[name], only=[name], start_from=runs["tokenizer"])
    tiny(runs["joined"], start_from=[runs["top"], runs["middle"], runs["bottom"]])
    mine, theirs = (ancestral.load(run).state_dict() for run in (runs["joined"], whole))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    torch.testing.assert_close(ancestral.sample(runs["joined"], 3)[0], ancestral.sample(whole, 3)[0])


def test_a_prior_alone_says_what_it_needs(tmp_path):
    with pytest.raises(UserError, match="expected to train stage tokenizer too, got bottom alone"):
        tiny(tmp_path / "run", only=["bottom"])


def test_evaluation_says_what_each_level_adds(whole):
    evaluation = ancestral.evaluate(whole, limit=100, write=False)
    figures = {f.id: f for f in evaluation.figures}
    rates = [figures[f"codes_level{i}_given_label"].value for i in range(3)]
    assert sum(rates) == pytest.approx(figures["codes_given_label"].value)
    assert sum(figures[f"codes_level{i}"].value for i in range(3)) == pytest.approx(figures["codes"].value)
    total = figures["codes"].value + figures["decoder"].value
    assert figures["nelbo_codes_decoder"].value == pytest.approx(total)
    assert figures["prior_level0"].name == "top prior, a code"
    assert [book.name for book in evaluation.codebooks] == ["top", "middle", "bottom"]
    model, x = ancestral.load(whole), ancestral.Run.open(whole).load_data().test.x[:100]
    codes = model.tokenize(x)
    for known in (1, 2):
        error = ((model.detokenize(codes[:known]).double() - x.double()) / 16).square().mean()
        assert figures[f"levels_mse_{known}_alone"].value == pytest.approx(float(error))
        with torch.no_grad():
            cost = model.distortion(Batch(x), codes[:known]).double().mean() / (64 * math.log(2))
        assert figures[f"decoder_levels_{known}"].value == pytest.approx(float(cost))
    assert figures["levels_mse_2_alone"].name == "MSE of top + middle, alone"
    assert not any(id.endswith("_drawn") for id in figures), "plain evaluations draw nothing"
    assert any("it takes samples: add --measures levels" in sentence for sentence in evaluation.left_out)


def test_missing_levels_are_drawn_if_that_is_asked_for(whole):
    """With priors that put all on one code, what is drawn is known."""
    model, data = ancestral.load(whole), ancestral.Run.open(whole).load_data()
    certain = [spec.discrete_levels - 1 for spec in model.code_specs()]
    for prior, code in zip(model.level_priors, certain, strict=True):
        output = prior.head[-1]
        torch.nn.init.zeros_(output.weight)
        torch.nn.init.zeros_(output.bias)
        output.bias.data[code] = 100.0
    figures = {f.id: f for f in ancestral.evaluate(model, data, measures=["levels"], limit=60).figures}
    x = data.test.x[:60]
    codes = model.tokenize(x)
    for known in (1, 2):
        rest = [torch.full_like(level, code) for level, code in zip(codes, certain, strict=True)][known:]
        error = ((model.detokenize((*codes[:known], *rest)).double() - x.double()) / 16).square().mean()
        assert figures[f"levels_mse_{known}_drawn"].value == pytest.approx(float(error))


def test_partly_trained_hierarchies_are_measured_in_part(whole, tmp_path):
    """Without the label a level's rate takes the coarser priors, which say how likely each class is."""
    ids = {}
    for name in ("top", "bottom"):
        run = tmp_path / name
        tiny(run, only=["tokenizer", name])
        evaluation = ancestral.evaluate(run, limit=20, write=False)
        ids[name] = {f.id for f in evaluation.figures if f.id.startswith(("prior", "codes", "nelbo"))}
        assert any("not trained" in sentence for sentence in evaluation.left_out)
    assert ids["top"] == {"prior_level0", "prior_level0_given_label", "nelbo_uniform_prior"}
    assert ids["bottom"] == {"prior_level2_given_label", "nelbo_uniform_prior"}


def test_reconstructions_of_some_levels(whole):
    model = ancestral.load(whole)
    x, versions = ancestral.reconstruct(whole, n=5, levels=2)
    assert torch.equal(versions, model.detokenize(model.tokenize(x)[:2]))
    assert torch.equal(ancestral.reconstruct(whole, n=5, levels=3)[1], ancestral.reconstruct(whole, n=5)[1])
    with pytest.raises(UserError, match=r"expected levels in \[1, 3\], got 4"):
        ancestral.reconstruct(whole, n=5, levels=4)
    model.config = replace(model.config, level_dropout=0.0)  # the finer levels are drawn then
    drawn = [ancestral.reconstruct(model, x, levels=1, seed=seed)[1] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
