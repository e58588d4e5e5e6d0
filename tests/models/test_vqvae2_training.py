"""VQ-VAE-2 as a training: every stage resumes exactly, and the priors can be trained apart."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import ancestral
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


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_any_stage_resumes_to_the_same_weights(whole, tmp_path, stage):
    out = tmp_path / "run"
    program = PROGRAM.format(folder=str(Path(__file__).parent), out=str(out))
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        deadline = time.monotonic() + 120
        while not list((out / "checkpoints" / stage).glob("step-*")):
            assert process.poll() is None, (tmp_path / "output.txt").read_text()
            assert time.monotonic() < deadline, "no checkpoint in two minutes"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
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
    with pytest.raises(UserError, match="tokenizer"):
        tiny(tmp_path / "run", only=["bottom"])


def test_evaluation_says_what_each_level_adds(whole):
    figures = {f.id: f for f in ancestral.evaluate(whole, limit=100, write=False).figures}
    rates = [figures[f"codes_level{i}_given_label"].value for i in range(3)]
    assert sum(rates) == pytest.approx(figures["codes_given_label"].value)
    assert sum(figures[f"codes_level{i}"].value for i in range(3)) == pytest.approx(figures["codes"].value)
    total = figures["codes"].value + figures["decoder"].value
    assert figures["nelbo_codes_decoder"].value == pytest.approx(total)
    assert figures["prior_level0"].name == "top prior, a code"
    for way in ("alone", "drawn"):
        errors = [figures[f"levels_mse_{known}_{way}"].value for known in (1, 2)]
        assert min(errors) > 0
    assert figures["levels_mse_2_alone"].name == "MSE of top + middle, alone"
    assert [book.name for book in ancestral.evaluate(whole, limit=50, write=False).codebooks] == [
        "top", "middle", "bottom",
    ]  # fmt: skip
