"""The commands, given a model that is learned against a critic."""

import json

import pytest
from PIL import Image

import ancestral
from ancestral.models.adversarial.dcgan import DCGAN
from ancestral.training import TrainingOptions

QUICK = TrainingOptions(device="cpu", evaluate_every=4, sample_every=4, checkpoint_every=2, measure_every=0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of six steps."""
    path = tmp_path_factory.mktemp("runs")
    stages = {"training": {"steps": 6, "batch_size": 32, "ema": 200}}
    config = DCGAN.Config(latents=4, width=4, critic_width=4, scales=1)
    ancestral.train("dcgan", data="digits", out=path / "gan", config=config, stages=stages, options=QUICK)
    return path


def test_both_sides_are_logged_and_validated(runs):
    lines = [json.loads(line) for line in (runs / "gan" / "metrics.jsonl").read_text().splitlines()]
    trained = next(line for line in lines if line["split"] == "train")
    assert {"critic_loss", "critic_real", "critic_generated", "critic_accuracy", "generator_loss"} <= {
        *trained
    }
    assert any(line["split"] == "validation" and "generator_loss" in line for line in lines)


def test_samples_are_films_too(call):
    status, output, errors = call(
        "sample RUNS/gan -n 4 --interpolate 3 --labels 1 2 --temperature 300 --out ."
    )
    assert (status, errors) == (0, "")
    assert output.strip().endswith("samples-seed0-t300-class1-2-film3.webp")
    with Image.open(output.strip()) as image:
        assert 40 < image.n_frames <= 72  # equal ones are shown for longer
    assert call("sample RUNS/gan -n 1 --interpolate 2 --format gif --out .")[0] == 0
    status, output, errors = call(
        "sample RUNS/gan -n 2 --interpolate 3 --through classes --labels 1 2 3 --out ."
    )
    assert (status, errors) == (0, "")
    assert output.strip().endswith("samples-seed0-class1-2-3-film3-classes.webp")
    for wrong, message in (
        ("--through classes", "expected --interpolate with the format webp or gif, got none, webp"),
        ("--format webp", "expected --interpolate with the format webp or gif, got none, webp"),
        ("--interpolate 1", "expected at least 2 latents, 1 sample and 1 step, got 1 latents"),
        ("--interpolate 2 --format npz", "expected --interpolate with the format webp or gif, got 2, npz"),
        (
            "--interpolate 2 --format shards",
            "expected --interpolate with the format webp or gif, got 2, shards",
        ),
        ("--interpolate 2 --keep 0.5", "expected no keep for a film"),
        ("--interpolate 2 --top-k 3", "expected no top-k for a film"),
    ):
        status, _, errors = call(f"sample RUNS/gan {wrong} --out .")
        assert (status, errors.count("\n")) == (2, 1)
        assert message in errors


def test_a_likelihood_is_what_it_does_not_have(call):
    status, _, errors = call("evaluate RUNS/gan --measures likelihood")
    assert (status, errors.count("\n")) == (2, 1)
    assert "expected a model of which likelihood can be measured, got DCGAN" in errors
    status, _, errors = call("score RUNS/gan --out scores.csv")
    assert status == 2
    assert "expected a model with a likelihood, got DCGAN" in errors
