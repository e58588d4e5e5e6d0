"""Flows in two processes: trained as by one, whose statistics are of the whole batch."""

import json

import pytest
import torch

import ancestral
from ancestral.batch import Batch
from ancestral.data import Dataset
from ancestral.models.flow.glow import Glow
from ancestral.models.flow.realnvp import RealNVP
from ancestral.spec import Spec
from ancestral.training import TrainingOptions

OPTIONS = TrainingOptions(device="cpu", checkpoint_every=0, evaluate_every=0, sample_every=0, log_every=1)
FEW = {"training": {"steps": 4, "batch_size": 16, "warmup": 0, "learning_rate": 1e-3, "ema": 0.5}}
CONFIGS = {"glow": Glow.Config.tiny(), "realnvp": RealNVP.Config(scales=2, width=8, blocks=1)}


def numbers():
    """Images of two channels, of other means and scales."""
    x = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    return x.cumsum(2) * torch.tensor([1.0, 5.0]).view(1, 2, 1, 1)


def train_all(out):
    """Images of real numbers, to which no noise is added that each process would draw for itself."""
    x = numbers()
    parts = {"train": Batch(x), "validation": Batch(x[:8]), "test": Batch(x[:8])}
    data = Dataset(source="numbers", spec=Spec(shape=(2, 8, 8), levels=None, domain="image"), **parts)
    for name, config in CONFIGS.items():
        ancestral.train(name, data=data, out=f"{out}/{name}", config=config, stages=FEW, options=OPTIONS)


@pytest.fixture(scope="module")
def found(tmp_path_factory, in_two_processes):
    """The weights that two processes and one end with."""
    folder = tmp_path_factory.mktemp("processes")
    in_two_processes("train_all", folder / "two")
    train_all(folder / "one")
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_train_a_flow_as_one_does(found, name):
    """The same losses, and the same densities in the end.

    Not the same weights: a bias before batch norm has no gradient but rounding, which Adam makes a step of.
    """
    losses, densities = {}, {}
    for number in ("one", "two"):
        lines = map(json.loads, (found / number / name / "metrics.jsonl").read_text().splitlines())
        losses[number] = [line["loss"] for line in lines if line.get("split") == "train"]
        model = ancestral.load(found / number / name)
        with torch.no_grad():
            densities[number] = model.log_likelihood(Batch(numbers()))
    assert len(losses["one"]) == 4
    assert len(set(losses["one"])) == 4
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-4)
    torch.testing.assert_close(densities["two"], densities["one"], rtol=1e-3, atol=1e-3)
