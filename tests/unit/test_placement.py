"""Where weights are while a stage is trained, and how much is computed at a time to validate it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_phases import OPTIONS, Hierarchy

from ancestral.data import load_data
from ancestral.recipe import Optimization
from ancestral.stages import Loss, Progress
from ancestral.training.loop import Trainer
from ancestral.training.placement import place

OTHERS = {
    "tokenizer": {"priors.0", "priors.1", "classifier"},
    "top": {"priors.1", "classifier"},
    "bottom": {"priors.0", "classifier"},
    "classifier": {"tokenizer.0", "tokenizer.1", "priors.0", "priors.1"},
}


def trainer_of(path, model=None, **changes):
    data = load_data("digits")
    model = model or Hierarchy(Hierarchy.Config(), data.spec)
    stages = dict.fromkeys(OTHERS, Optimization(**({"steps": 2, "batch_size": 8} | changes)))
    return Trainer(model, data, stages, options=OPTIONS, path=path)


def on_gpu(trainer, processes=1):
    trainer.fabric = SimpleNamespace(device=torch.device("cuda"), world_size=processes)
    return trainer


def modules(names):
    return {name.rpartition(".")[0] for name in names}


def test_what_a_stage_does_not_need_rests(tmp_path):
    trainer = trainer_of(tmp_path)
    for stage in trainer.stages:
        assert trainer.resting(stage) == set(), "on a CPU all is in one memory"
    on_gpu(trainer)
    resting = {stage.name: modules(trainer.resting(stage)) for stage in trainer.stages}
    # A model says that it is where its first parameter is, which is the tokenizer's.
    assert resting == OTHERS | {"classifier": set()}
    on_gpu(trainer, processes=2)
    assert not any(map(trainer.resting, trainer.stages)), "DDP wants all on one device"


@pytest.mark.parametrize("stage", ["tokenizer", "top", "bottom"])
def test_the_rest_stays_and_can_be_fetched(tmp_path, stage):
    model = Hierarchy(Hierarchy.Config(), load_data("digits").spec)
    resting = {name for name in model.state_dict() if modules([name]) <= OTHERS[stage]}
    place(model, torch.device("meta"), resting)
    where = {name: tensor.device.type for name, tensor in model.state_dict().items()}
    assert modules(n for n, device in where.items() if device == "cpu") == OTHERS[stage]
    assert where["shift"] == "meta"
    place(model, torch.device("meta"))
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_parameters_stay_what_optimizers_know(tmp_path):
    model = Hierarchy(Hierarchy.Config(), load_data("digits").spec)
    before = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    place(model, torch.device("cpu"), {"classifier.weight"})
    assert {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()} == before


def test_the_memory_line_counts_what_is_there(tmp_path):
    trainer = trainer_of(tmp_path)
    sizes = {name: p.nbytes for name, p in trainer.model.named_parameters()}
    own = lambda *starts: sum(n for name, n in sizes.items() if name.startswith(starts))  # noqa: E731
    (tokenizer, top, *_) = trainer.stages
    assert trainer.held(top)["weights of other stages"] == own("tokenizer", "priors.1", "classifier")
    on_gpu(trainer)
    assert trainer.held(top)["weights of other stages"] == own("tokenizer")
    assert "weights of other stages" not in trainer.held(tokenizer)
    on_gpu(trainer, processes=2)
    assert trainer.held(top)["weights of other stages"] == own("tokenizer", "priors.1", "classifier")


class Counting(Hierarchy):
    """Notes how many examples a loss is of."""

    def loss(self, batch, phase, progress):
        self.seen.append(len(batch))
        return Loss(batch.x.float().mean())


@pytest.mark.parametrize(("accumulate", "processes", "most"), [(1, 1, 8), (4, 1, 2), (2, 2, 2), (8, 2, 1)])
def test_validation_takes_no_more_at_a_time_than_a_step(tmp_path, accumulate, processes, most):
    model = Counting(Counting.Config(), load_data("digits").spec)
    model.seen = []
    trainer = trainer_of(tmp_path, model, accumulate=accumulate)
    plain = trainer.fabric
    work = SimpleNamespace(
        validation=trainer.data.validation,
        optimization=trainer.optimizations["top"],
        stage=replace(trainer.stages[1], prepare=None),
        device=plain.device,
        progress=Progress.at(0, 2),
        term=lambda phase, name: name,
    )
    written = []
    trainer.journal = SimpleNamespace(write=lambda *line, **_: written.append(line[-1]))
    trainer.fabric = SimpleNamespace(world_size=processes, autocast=plain.autocast)
    trainer._evaluate(work, 1)
    assert len(written) == 1
    assert max(model.seen) == most
    assert sum(model.seen) == len(trainer.data.validation)
