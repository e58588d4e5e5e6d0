"""What stages prepare: computed once, mapped, tied to what made it, and never half there."""

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_phases import OPTIONS, Hierarchy
from torch import nn

from ancestral.batch import Batch
from ancestral.data import load_data
from ancestral.errors import UserError
from ancestral.stages import Phase, Stage, needed
from ancestral.training import TrainingOptions, train
from ancestral.training.fabric import build_fabric
from ancestral.training.prepared import examples, place

CALLS = []


class Noted(Hierarchy):
    """Notes how many examples are prepared."""

    def codes(self, batch):
        CALLS.append(len(batch))
        return super().codes(batch)


class Apart(Hierarchy):
    """Prepares for each prior by a function of its own."""

    def stages(self):
        tokenizer, top, bottom, classifier = super().stages()
        return tokenizer, top, replace(bottom, prepare=partial(Hierarchy.codes, self)), classifier


@pytest.fixture
def calls():
    CALLS.clear()
    return CALLS


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def fabric():
    return build_fabric(TrainingOptions(device="cpu"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    return train(Noted, data="digits", out=tmp_path_factory.mktemp("whole") / "run", options=OPTIONS).path


def weights(run):
    return (run / "model" / "model.safetensors").read_bytes()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_stages_share_is_prepared_once(digits, calls, tmp_path):
    run = train(Noted, data="digits", out=tmp_path / "run", options=OPTIONS).path
    assert sum(calls) == len(digits.train) + len(digits.validation)
    assert [path.name for path in (run / "codes").iterdir()] == ["top"]
    calls.clear()
    train(Noted, data="digits", out=tmp_path / "run", options=OPTIONS)
    for checkpoint in (run / "checkpoints" / "bottom").iterdir():
        shutil.rmtree(checkpoint)
    train(Noted, data="digits", out=tmp_path / "run", options=OPTIONS)
    assert not calls, "a training that goes on finds it there"
    apart = train(Apart, data="digits", out=tmp_path / "apart", options=OPTIONS).path
    assert {path.name for path in (apart / "codes").iterdir()} == {"top", "bottom"}
    assert weights(apart) == weights(run), "shared or not, the data are the same"


def test_it_is_what_the_function_gives_and_mapped_from_files(digits, fabric, tmp_path):
    model = Noted(Noted.Config(), digits.spec)
    stage = model.stages()[1]
    train_part, validation = examples(tmp_path, stage, model, digits, fabric)
    with torch.no_grad():
        for got, split in ((train_part, digits.train), (validation, digits.validation)):
            parts = [model.codes(split[i : i + 256]) for i in range(0, len(split), 256)]
            assert torch.equal(got.x, torch.cat([part.x for part in parts]))
            assert torch.equal(got.labels, split.labels)
    file = place(tmp_path, model, stage) / "train.labels.bin"
    with file.open("r+b") as opened:
        opened.write((7).to_bytes(8, sys.byteorder))
    assert train_part.labels[0] == 7, "the tensor is the file"


def kept(tmp_path, model, digits, fabric, calls):
    calls.clear()
    examples(tmp_path, model.stages()[2], model, digits, fabric)
    return not calls


def test_other_weights_or_data_make_it_again_and_no_others(digits, fabric, calls, tmp_path):
    model = Noted(Noted.Config(), digits.spec)
    assert not kept(tmp_path, model, digits, fabric, calls)
    with torch.no_grad():
        for unrelated in (model.priors[0].weight, model.priors[1].weight, model.classifier.weight):
            unrelated.add_(1)
        assert kept(tmp_path, model, digits, fabric, calls)
        for used in (model.tokenizer[0].weight, model.tokenizer[1].running_mean, model.shift):
            used.add_(1)
            assert not kept(tmp_path, model, digits, fabric, calls)
            assert kept(tmp_path, model, digits, fabric, calls)
    other = replace(digits, fingerprint="another")
    assert not kept(tmp_path, model, other, fabric, calls)
    assert not kept(tmp_path, model, digits, fabric, calls), "and back"


def test_codes_of_another_training_are_never_trained_on(whole, calls, tmp_path):
    seed = replace(OPTIONS, seed=1)
    other = train(Noted, data="digits", out=tmp_path / "other", options=seed).path
    copy = Path(shutil.copytree(whole, tmp_path / "run"))
    for stage in ("top", "bottom"):
        shutil.rmtree(copy / "checkpoints" / stage)
    shutil.rmtree(copy / "codes")
    shutil.copytree(other / "codes", copy / "codes")
    calls.clear()
    train(Noted, data="digits", out=copy, options=OPTIONS)
    assert calls
    assert weights(copy) == weights(whole)
    assert content(copy / "codes" / "top") == content(whole / "codes" / "top")


def joined(base, out):
    return train(Noted, data="digits", out=out, options=OPTIONS, start_from=base, only=("bottom",)).path


def test_what_a_run_to_start_from_has_prepared_is_taken(whole, calls, tmp_path, monkeypatch):
    there = whole / "codes" / "top"
    run = joined(whole, tmp_path / "linked")
    assert not calls
    assert content(run / "codes" / "top") == content(there)
    assert all((run / "codes" / "top" / path.name).samefile(path) for path in there.iterdir())
    assert weights(run) == weights(whole)

    def refused(source, target):
        raise OSError(18, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refused)
        run = joined(whole, tmp_path / "copied")
    assert not calls
    assert content(run / "codes" / "top") == content(there)
    assert not any((run / "codes" / "top" / path.name).samefile(path) for path in there.iterdir())
    copy = Path(shutil.copytree(whole, tmp_path / "damaged"))
    with (copy / "codes" / "top" / "train.x.bin").open("r+b") as file:
        file.write(b"torn")
    run = joined(copy, tmp_path / "anew")
    assert calls
    assert content(run / "codes" / "top") == content(there)
    calls.clear()
    shutil.rmtree(tmp_path / "linked" / "checkpoints" / "bottom")
    assert weights(joined(whole, tmp_path / "linked")) == weights(whole)
    assert not calls, "a run goes on with its own"


def test_other_data_or_another_tokenizer_are_never_taken(whole, calls, digits, fabric, tmp_path):
    model = Noted.from_pretrained(whole / "model")
    for run, data, same in (
        ("same", digits, True),
        ("data", replace(digits, fingerprint="another"), False),
    ):
        calls.clear()
        examples(tmp_path / run, model.stages()[1], model, data, fabric, bases=[tmp_path / "none", whole])
        assert (not calls) == same
    with torch.no_grad():
        model.tokenizer[0].weight.add_(1)
    calls.clear()
    examples(tmp_path / "weights", model.stages()[1], model, digits, fabric, bases=[whole])
    assert calls


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import test_prepared
from ancestral.training import loop, prepared, train
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
batches, write = loop.Batches, prepared.write_json
if sys.argv[1] == "between":
    loop.Batches = lambda *a, stage, **k: die() if stage == "top" else batches(*a, stage=stage, **k)
else:
    prepared.write_json = die
train(test_prepared.Noted, data="digits", out=sys.argv[2], options=test_prepared.OPTIONS)
"""


@pytest.mark.parametrize("moment", ["between", "meanwhile"])
def test_a_kill_between_preparing_and_training_loses_nothing(whole, calls, start, tmp_path, moment):
    out = tmp_path / "run"
    script = KILLED.format(tests=str(Path(__file__).parent))
    process = start(script, moment, out, said=tmp_path / "output.txt")
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "output.txt").read_text()
    assert (out / "codes" / "top").exists() == (moment == "between"), "it is there whole or not at all"
    train(Noted, data="digits", out=out, options=OPTIONS)
    assert bool(calls) == (moment == "meanwhile")
    assert weights(out) == weights(whole)
    assert not list(out.rglob(".*.tmp"))


class Anything(Hierarchy):
    """Prepares tensors of many kinds."""

    def codes(self, batch):
        x = batch.x.flatten(1)
        return Batch(x.bfloat16() / 3, None, (x > 8, x[:, :3].to(torch.int16), x.double()[:, :0]))


def test_any_type_and_number_of_tensors(digits, fabric, tmp_path):
    nothing = Batch(digits.validation.x[:0], digits.validation.labels[:0])
    data = replace(digits, validation=nothing)
    model = Anything(Anything.Config(), digits.spec)
    there, empty = examples(tmp_path, model.stages()[1], model, data, fabric)
    expected = model.codes(digits.train)
    for name, tensor in expected.tensors().items():
        assert there.tensors()[name].dtype == empty.tensors()[name].dtype == tensor.dtype
        assert torch.equal(there.tensors()[name], tensor)
        assert empty.tensors()[name].shape == (0, *tensor.shape[1:])
    assert there.labels is None


def test_parts_of_several_kinds_are_an_error(digits, fabric, tmp_path):
    class Fickle(Hierarchy):
        def codes(self, batch):
            return Batch(batch.x.float() if len(batch) < 256 else batch.x)

    model = Fickle(Fickle.Config(), digits.spec)
    data = replace(digits, train=digits.train[:300])
    message = r"prepare train\.x as torch\.uint8 of shape \(1, 8, 8\) of all examples, got torch\.float32 of"
    with pytest.raises(UserError, match=message):
        examples(tmp_path, model.stages()[1], model, data, fabric)
    assert not (tmp_path / "codes" / "top").exists()


def test_a_full_disk_is_said_and_leaves_nothing(digits, fabric, tmp_path, monkeypatch):
    def full(self, tensor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ancestral.training.prepared._Column.append", full)
    model = Hierarchy(Hierarchy.Config(), digits.spec)
    with pytest.raises(UserError, match="got a full disk; free some space and give the same command again"):
        examples(tmp_path, model.stages()[1], model, digits, fabric)
    assert list((tmp_path / "codes").iterdir()) == []


def test_the_folder_says_what_it_holds(whole):
    about = json.loads((whole / "codes" / "top" / "about.json").read_text())
    assert about["files"]["train.x"]["shape"] == [1536, 4]
    assert about["data"] == json.loads((whole / "run.json").read_text())["data"]["fingerprint"]


def test_needs_go_through_other_stages():
    a, b, c, d = (
        Stage(n, (), needs=needs) for n, needs in zip("abcd", (None, ("a",), ("b",), ()), strict=True)
    )
    last = Stage("e", (Phase("e", (nn.Linear(1, 1),)),))
    stages = (a, b, c, d, last)
    assert [needed(stage, stages) for stage in stages] == [set(), {"a"}, {"a", "b"}, set(), {*"abcd"}]
