"""Runs that start from others: what fits together, what is kept in memory and on disk, and how they go on."""

import gc
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_phases import OPTIONS, Hierarchy
from torch import nn

import ancestral
from ancestral.data import load_data
from ancestral.errors import UserError
from ancestral.files import checksum
from ancestral.runs import Run
from ancestral.stages import Stage, idle
from ancestral.training import begin, train
from ancestral.training.loop import Trainer


def run_of(out, model=Hierarchy, **arguments):
    return train(model, out=out, **({"data": "digits", "options": OPTIONS} | arguments))


def weights(run):
    return load_file(run.path / "model" / "model.safetensors")


def content(run):
    return (run.path / "model" / "model.safetensors").read_bytes()


def checkpoints(run, stage):
    return sorted((run.path / "checkpoints" / stage).iterdir())


def stopped(run, stage):
    """The run as if it had been killed after the last checkpoint but one of its last stage."""
    shutil.rmtree(run.path / "model")
    shutil.rmtree(checkpoints(run, stage)[-1])
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return run_of(folder / "tokenizer", only=("tokenizer",))


@pytest.fixture(scope="module")
def top(folder, tokenizer):
    return run_of(folder / "top", start_from=tokenizer.path, only=("top",))


@pytest.fixture(scope="module")
def bottom(folder, tokenizer):
    return run_of(folder / "bottom", start_from=tokenizer.path, only=("bottom",))


def test_the_models_of_the_runs_are_gone_before_the_training(folder, top, bottom, monkeypatch):
    def models():
        gc.collect()
        return sum(type(thing) is Hierarchy for thing in gc.get_objects())

    there, seen = models(), []

    class Watched(Trainer):
        def __init__(self, *arguments, **options):
            seen.append(models())
            super().__init__(*arguments, **options)

    monkeypatch.setattr(begin, "Trainer", Watched)
    run_of(folder / "watched", start_from=[top.path, bottom.path])
    assert seen == [there + 1]


# Data


def test_runs_on_other_data_are_not_joined(folder, tokenizer, top, bottom):
    """A tokenizer may be used on other data; but what is joined has learned from the same."""
    other = run_of(
        folder / "other", start_from=tokenizer.path, only=("bottom",), preparation={"validation": 0.2}
    )
    message = (
        r"on the same data to take stages from, got \S+/top on digits and \S+/other on digits: "
        r"validation \(0.05 there, 0.2 here\); give runs on the same data"
    )
    with pytest.raises(UserError, match=message):
        run_of(folder / "wrong", start_from=[top.path, other.path])
    changed = Path(shutil.copytree(bottom.path, folder / "changed"))
    manifest = json.loads((changed / "run.json").read_text())
    manifest["data"]["fingerprint"] = "another"
    (changed / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"got \S+/top on digits and \S+/changed on digits: other examples;"):
        run_of(folder / "wrong", start_from=[top.path, changed])
    # Of runs that nothing is taken from it does not matter.
    run_of(folder / "unused", start_from=[top.path, bottom.path, other.path])
    assert not (folder / "wrong").exists()


class ByClass(Hierarchy):
    """A prior that has an embedding of classes."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.priors[0] = nn.Linear(4, spec.classes)


def test_another_number_of_classes_is_said(tmp_path):
    base = run_of(tmp_path / "base", ByClass, only=("tokenizer", "top"))
    digits = load_data("digits")
    five = {
        name: part[torch.nonzero(part.labels < 5)[:, 0]]
        for name in ("train", "validation", "test")
        for part in [digits.split(name)]
    }
    fewer = replace(
        digits, spec=replace(digits.spec, classes=5), classes=digits.classes[:5], fingerprint="", **five
    )
    message = (
        r"expected data like those of \S+/base for stage top, with 10 classes of shape 1x8x8, got some with "
        r"5 classes of shape 1x8x8, which its weights do not fit \(priors\.0\.\w+ as \(10,.*; use data like"
    )
    with pytest.raises(UserError, match=message):
        run_of(tmp_path / "wrong", ByClass, data=fewer, start_from=base.path, only=("bottom",))
    run = run_of(tmp_path / "run", ByClass, data=fewer, start_from=base.path, only=("top", "bottom"))
    assert run.trained == ("tokenizer", "top", "bottom")


# What is saved


def test_what_is_neither_trained_nor_taken_over_is_not_saved(tokenizer, top):
    used = {"tokenizer.0.weight", "tokenizer.0.bias", "tokenizer.1.weight", "tokenizer.1.bias", "shift"}
    used |= {f"tokenizer.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    for run, stage, names in (
        (tokenizer, "tokenizer", used),
        (top, "top", used | {"priors.0.weight", "priors.0.bias"}),
    ):
        assert set(weights(run)) == names
        for checkpoint in checkpoints(run, stage):
            assert set(load_file(checkpoint / "model.safetensors")) == names
    saved = json.loads((tokenizer.path / "model" / "config.json").read_text())
    assert saved["absent"] == {"top": 5, "bottom": 5, "classifier": 130}
    first, second = tokenizer.load_model(), ancestral.load(tokenizer.path / "model")
    assert first.untrained == ("top", "bottom")
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), "also what is random is the same each time"
        assert name not in used or torch.equal(value, weights(tokenizer)[name])


def test_all_else_must_be_there(tokenizer, tmp_path):
    copy = Path(shutil.copytree(tokenizer.path / "model", tmp_path / "model"))

    def damaged(state, **said):
        save_file(state, copy / "model.safetensors")
        about = json.loads((tokenizer.path / "model" / "config.json").read_text()) | said
        about["sha256"] = checksum(copy / "model.safetensors")
        (copy / "config.json").write_text(json.dumps(about))
        return pytest.raises(UserError, match="expected weights for this configuration, got others")

    there = weights(tokenizer)
    lacking = {name: value for name, value in there.items() if name != "shift"}
    for state, said in (
        (lacking, {}),
        ({name: value for name, value in there.items() if name != "tokenizer.0.weight"}, {}),
        (there | {"foreign": torch.zeros(1)}, {}),
        (there, {"absent": {"top": 5}}),
        (there, {"trained": ["tokenizer", "top"]}),
    ):
        with damaged(state, **said):
            ancestral.load(copy)


def test_which_weights_are_idle():
    model = nn.ModuleDict({name: nn.Linear(1, 1) for name in "abcd"})
    phases = {name: type("P", (), {"modules": (model[name],)}) for name in "abc"}
    a, b, c = (
        Stage(name, (phases[name],), needs=needs) for name, needs in (("a", ()), ("b", ("a",)), ("c", ("b",)))
    )
    names = lambda used: {k: {n[0] for n in v} for k, v in idle(model, (a, b, c), used).items()}  # noqa: E731
    assert names(["a"]) == {"b": {"b"}, "c": {"c"}}
    assert names(["b"]) == {"c": {"c"}}
    assert names(["c"]) == {}
    shared = replace(c, phases=(type("P", (), {"modules": (model["a"], model["c"])}),), needs=())
    assert {n[0] for n in idle(model, (a, b, shared), ["a"])["c"]} == {"c"}


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_takeover
from ancestral.training import checkpoints
save = checkpoints.save
def die(*arguments):
    save(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
checkpoints.save = die
test_takeover.run_of(test_takeover.Path(sys.argv[1]), only=("tokenizer",))
"""


def test_killed_it_goes_on_to_the_same_weights(tokenizer, start, tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent))
    process = start(script, tmp_path / "run", said=tmp_path / "output.txt")
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "output.txt").read_text()
    assert len(checkpoints(Run.open(tmp_path / "run"), "tokenizer")) == 1
    run = run_of(tmp_path / "run", only=("tokenizer",))
    assert content(run) == content(tokenizer)
    last = (checkpoints(each, "tokenizer")[-1] / "model.safetensors" for each in (run, tokenizer))
    assert len({path.read_bytes() for path in last}) == 1


def test_a_run_of_an_earlier_version_which_saved_all_goes_on(tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ancestral.training.loop.idle", lambda *_: {})
        run = run_of(tmp_path / "run", only=("tokenizer",))
    assert "classifier.weight" in weights(run)
    again = run_of(stopped(run, "tokenizer").path, only=("tokenizer",))
    assert content(again) == content(tokenizer)
    manifest = json.loads((run.path / "run.json").read_text()) | {"from": "one"}
    (run.path / "run.json").write_text(json.dumps(manifest))
    assert Run.open(run.path).manifest["from"] == ["one"], "it wrote one run without a list"


# Going on when a run to start from has trained more


@pytest.mark.parametrize("only", [(), ("bottom",)])
def test_a_base_that_has_moved_on_changes_nothing(tokenizer, top, tmp_path, only):
    base = Path(shutil.copytree(tokenizer.path, tmp_path / "base"))
    run = run_of(tmp_path / "run", start_from=base, only=only)
    expected, trained = content(run), run.trained
    assert run.manifest["taken"] == ["tokenizer"]
    stopped(run, "bottom")
    shutil.rmtree(base)
    shutil.copytree(top.path, base)  # the same tokenizer, and a prior more
    again = run_of(tmp_path / "run", start_from=base, only=only)
    assert content(again) == expected
    assert again.trained == trained
    with pytest.raises(UserError, match="a run with other options: --stages"):
        run_of(tmp_path / "run", start_from=base, only=("top",) if only else ("bottom",))
