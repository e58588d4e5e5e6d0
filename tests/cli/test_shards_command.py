"""``ancestral sample``: shards, and rejection by a classifier."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ancestral import training
from ancestral.cli import main as commands
from ancestral.evaluation import read_shards, sample_shards
from ancestral.model import Model
from ancestral.runs import Run, load
from ancestral.stages import Loss

TRAIN = (
    "train gated-pixelcnn --data digits --device cpu --sample-every 0 --evaluate-every 0 "
    "--model.class-conditional --model.width 8 "
    "--model.layers 2 --training.steps 1 --training.batch-size 16 --training.warmup 0 --training.no-compile"
)
VAE = "train vae --data digits --device cpu --sample-every 0 --training.steps 1 --model.latents 2"


class Brightness(Model):
    """A classifier that finds class c the likelier the brighter an image is, whatever the class."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.weight = nn.Parameter(torch.ones(1))

    def loss(self, batch, phase, progress):
        return Loss(self.weight.sum())

    def draw(self, n, labels, contexts, options, *, generator, progress):
        raise NotImplementedError

    def probabilities(self, x):
        brightness = x.float().flatten(1).mean(1) / self.spec.levels * self.weight
        return brightness[:, None].expand(-1, self.spec.classes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, line in {"pixelcnn": TRAIN, "vae": VAE}.items():
        assert commands.run([*shlex.split(line), "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture
def classifier(runs, monkeypatch):
    """What stands for the classifier of a run's own data, and what it was asked for."""
    asked = []

    def classifier_of(dataset, role="gate", progress=True):
        asked.append((dataset.source, role, progress))
        return Brightness(Brightness.Config(), dataset.spec).eval()

    monkeypatch.setattr(training, "classifier_of", classifier_of)
    return asked


def test_many_samples_are_shards_in_the_run(call, runs):
    folder = runs / "pixelcnn/samples/samples-seed7"
    assert call("sample RUNS/pixelcnn -n 1025 --seed 7") == (0, f"{folder}\n", "")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["manifest.json", "shard-00000.npz", "shard-00001.npz"]
    with np.load(folder / "shard-00001.npz") as arrays:
        assert arrays["x"].shape == (25, 1, 8, 8)
        assert arrays["labels"].tolist() == [i % 10 for i in range(1000, 1025)]
    assert call("sample RUNS/pixelcnn -n 1100 --seed 7")[0] == 0
    assert len(read_shards(folder)) == len(read_shards(folder).batch()) == 1100
    # From Python the same set goes on, however the model is given.
    model = load(runs / "pixelcnn")
    before = (folder / "shard-00000.npz").stat().st_mtime_ns
    for given in (model, Run.open(runs / "pixelcnn"), runs / "pixelcnn" / "model"):
        sample_shards(given, 1100, folder, seed=7)
    assert (folder / "shard-00000.npz").stat().st_mtime_ns == before


def test_forms_are_chosen_by_number_or_by_name(call, runs):
    assert call("sample RUNS/pixelcnn -n 3 --out few") == (0, "few/samples-seed0.png\n", "")
    line = "sample RUNS/pixelcnn --n 3 --labels 4 2 --temperature 0.5 --out shards --format shards"
    assert call(line) == (0, "shards\n", "")
    batch = read_shards("shards").batch()
    assert batch.labels.tolist() == [4, 2, 4]
    assert call(line.replace("--out shards", "")) == (
        0,
        f"{runs}/pixelcnn/samples/samples-seed0-t0.5-class4-2\n",
        "",
    )
    manifest = read_shards("shards").manifest
    again = manifest.command(Path("again")).replace("ancestral sample RUN", "sample RUNS/pixelcnn")
    assert call(again)[0] == 0
    assert torch.equal(read_shards("again").batch().x, batch.x), "the command that is named draws them"
    assert call("sample RUNS/pixelcnn -n 1025 --out one --format npz") == (0, "one/samples-seed0.npz\n", "")


def test_the_surest_are_kept(call, runs, classifier, tmp_path):
    assert call("sample RUNS/pixelcnn -n 20 --labels 3 --format npz --out .")[0] == 0
    plain = np.load("samples-seed0-class3.npz")["x"]
    line = "sample RUNS/pixelcnn -n 20 --labels 3 --keep 0.25 --format npz --out ."
    assert call(line) == (0, "samples-seed0-keep0.25-class3.npz\n", "")
    assert classifier == [("digits", "gate", True)]
    kept = np.load("samples-seed0-keep0.25-class3.npz")
    assert kept["labels"].tolist() == [3] * 20
    assert kept["x"].mean() > plain.mean() + plain.mean((1, 2, 3)).std()
    # The same classifier by name.
    gate = Brightness(Brightness.Config(), load(runs / "pixelcnn").spec)
    gate.save_pretrained(tmp_path / "gate")
    assert call(f"{line.replace('--out .', '--out other')} --gate gate")[0] == 0
    assert np.array_equal(np.load("other/samples-seed0-keep0.25-class3.npz")["x"], kept["x"])
    assert len(classifier) == 1
    for out in ("a", "b"):
        assert call(f"sample RUNS/pixelcnn -n 30 --keep 0.5 --gate gate --format shards --out {out}")[0] == 0
    assert torch.equal(read_shards("a").batch().x, read_shards("b").batch().x)


MISTAKES = [
    ("sample RUNS/pixelcnn --keep 0", "expected keep in (0, 1], got 0.0; choose a value in that range"),
    ("sample RUNS/pixelcnn --keep 2 -n 2000", "expected keep in (0, 1], got 2.0"),
    ("sample RUNS/pixelcnn --keep few", "expected --keep FLOAT, got few"),
    ("sample RUNS/vae --keep 0.5", "expected keep 1, got 0.5: this VAE does not draw by class; leave it out"),
    (
        "sample RUNS/pixelcnn --keep 0.5 --gate RUNS/vae",
        "vae, got a VAE; leave --gate out for one of the run's own data",
    ),
    ("sample RUNS/pixelcnn/model --keep 0.5", "model is not a run with data; name one with --gate"),
    ("sample RUNS/pixelcnn -n many", "expected -n INT, --n INT, got many; see ancestral sample --help"),
    ("sample RUNS/pixelcnn -n 0 --format shards", "expected at least 1 sample, got 0; raise --n"),
    ("sample RUNS/pixelcnn --format gif", "expected --interpolate with the format webp or gif, got none"),
    ("sample RUNS/pixelcnn -n 2000 --out taken", "expected a new or an empty folder, got taken which holds"),
    ("sample RUNS/pixelcnn -n 20 --out begun --format shards", "expected at least the 30 samples of begun"),
    ("sample RUNS/pixelcnn -n 30 --out begun --format shards --seed 1", "options: seed (0 there, 1 here);"),
]


@pytest.mark.parametrize(("line", "problem"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistakes_are_one_line(call, runs, classifier, tmp_path, line, problem):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    if "begun" in line:
        sample_shards(runs / "pixelcnn", 30, "begun")
    status, output, errors = call(line)
    assert (status, output) == (2, "")
    assert problem in errors
    assert errors.count("\n") == 1
    assert classifier == [], "no classifier is trained in vain"
