"""The memory that a training states before it starts is the size of the tensors that are there then."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ancestral import load_data
from ancestral.batch import Batch
from ancestral.models.autoregressive.pixelsnail import PixelSNAIL
from ancestral.recipe import Optimization, Updates
from ancestral.spec import Spec
from ancestral.stages import Phase, Progress, Stage
from ancestral.training.averaging import Average
from ancestral.training.optimizers import build_optimizer
from ancestral.training.size import described, held
from ancestral.training.summary import summary

NAMES = {"adam": "Adam", "adamw": "AdamW", "adagrad": "Adagrad", "rmsprop": "RMSProp", "sgd": None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", NAMES)
def test_what_is_held_is_what_is_there_after_a_step(optimizer, dtype):
    torch.manual_seed(0)
    model = PixelSNAIL(PixelSNAIL.Config.tiny(), Spec(shape=(1, 4, 4), levels=5)).to(dtype).train()
    model.first_left.requires_grad_(False)  # a constant has no gradient
    (stage,) = model.stages()
    options = Optimization(optimizer=optimizer, ema=0.9)
    stated = held(stage, options)
    built = build_optimizer(stage.phases[0].parameters, options)
    average = Average(model, {name for name, _ in model.named_parameters()}, 0.9)
    model.loss(
        Batch(torch.zeros(2, 1, 4, 4, dtype=torch.long)), "training", Progress.at(0, 1)
    ).total.backward()
    built.step()
    moments = [v for s in built.state.values() for name, v in s.items() if name != "step"]
    expected = {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.grad.nbytes for p in model.parameters() if p.grad is not None),
        NAMES[optimizer]: sum(v.nbytes for v in moments),
        "average": sum(v.nbytes for v in average.values.values()),
    }
    assert stated == {name: n for name, n in expected.items() if n}
    assert stated["gradients"] < stated["weights"]


def test_phases_share_or_have_optimizers_and_modules_count_once():
    critic, generator = nn.Linear(3, 2), nn.Linear(2, 3)  # 8 and 9 parameters
    phases = (
        Phase("critic", (critic,)),
        Phase("penalty", (critic,), optimizer="critic"),
        Phase("generator", (generator, generator)),
    )
    stage = Stage("training", phases, averaged=(generator,))
    updates = {"critic": Updates(optimizer="rmsprop"), "generator": Updates()}
    found = held(stage, Optimization(phases=updates, ema=0.9))
    numbers = {"weights": 17, "gradients": 17, "RMSProp": 8, "Adam": 2 * 9, "average": 9}
    assert found == {name: 4 * n for name, n in numbers.items()}


def test_processes_have_buckets_or_the_largest_part():
    """3 rows of 5 in two parts: 2 of them; the bias as well."""
    stage = Stage("training", (Phase("training", (nn.Linear(5, 3),)),))
    copied = held(stage, Optimization(), processes=2)
    assert copied == {"weights": 72, "gradients": 72, "gradient buckets": 72, "Adam": 144}
    divided = held(stage, Optimization(), processes=2, sharded=True)
    assert divided == {"weights": 48, "gradients": 48, "Adam": 96}


def test_other_stages_count_once_and_whole():
    own, other = nn.Linear(5, 3), nn.Linear(3, 4)  # 18 and 16 parameters
    stage = Stage("training", (Phase("training", (own,)),))
    others = [*other.parameters(), *own.parameters(), other.weight]
    for how in ({}, {"processes": 2, "sharded": True}):
        assert held(stage, Optimization(), others=others, **how)["weights of other stages"] == 64
    assert "weights of other stages" not in held(stage, Optimization(), others=own.parameters())


def test_words():
    both = {"weights": 1000, "gradients": 500, "weights of other stages": 2**20}
    assert described(both, "top") == (
        "1.5 KiB for weights and gradients of top, 1.0 MiB for weights of other stages"
    )
    assert described({"weights": 1000}, "prior") == "1000 B for weights of prior"
    mixed = {"weights": 2**20, "gradients": 2**19, "Adam": 2**20}
    assert described(mixed, "top") == "2.5 MiB for weights, gradients and Adam of top"
    assert described({"weights": 3 * 2**40}, "top") == "3,072.0 GiB for weights of top"


def test_the_line_before_a_training():
    device = torch.device("cpu")
    for processes, said in ((1, "before activations"), (2, "before activations, for each process")):
        fabric = SimpleNamespace(device=device, world_size=processes)
        held_by = ["1 MiB for a", "2 MiB for b"]
        text = summary(load_data("digits"), {"a": 1, "b": 2}, held_by, fabric, "32-true")
        assert re.search(rf"^memory      1 MiB for a; 2 MiB for b; {said}$", text, re.M)
    fabric = SimpleNamespace(device=device, world_size=1)
    assert "memory" not in summary(load_data("digits"), {}, [], fabric, "32-true")
