"""A model in parts: two processes that torchrun starts train what they train with whole copies."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from ancestral import load, load_data
from ancestral.errors import UserError
from ancestral.training import TrainingOptions, loop, train
from ancestral.training.fabric import build_fabric

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from ancestral.training import TrainingOptions, loop, train

out, strategy, seen = sys.argv[1:]
config = {
    "quantizer": {"codebook_size": 8, "dim": 4}, "stride": 2, "width": 8, "blocks": 1, "residual_width": 4,
    "components": 2,
    "prior": {"kind": "pixelsnail", "width": 8, "blocks": 2, "residual_blocks": 1, "residual_width": 16,
              "heads": 2, "key": 4, "value": 4, "likelihood": "categorical"},
}
few = {"batch_size": 16, "warmup": 2, "ema": 0.9}
stages = {
    "tokenizer": few | {"steps": 2},
    "prior": few | {"steps": 6, "gradient_clip": 0.1, "accumulate": 2, "recompute": True},
}
options = TrainingOptions(
    device="cpu", strategy=strategy, checkpoint_every=2, evaluate_every=3, sample_every=6, log_every=2
)
sizes = {}

def local(tensor):
    return tensor.to_local().numel() if hasattr(tensor, "to_local") else tensor.numel()

update = loop.Trainer._update

def looked_at(self, work, phase, batch, step):
    optimizer = work.optimizer(phase).optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if work.stage.name not in sizes:
        # The first entry is there before an optimizer has a state.
        optimizer.register_step_pre_hook(lambda *_: sizes[work.stage.name].update(
            gradients=sum(local(p.grad) for p in parameters if p.grad is not None)))
        recomputing = [m for m in work.module.modules() if "forward" in vars(m)]
        sizes[work.stage.name] = {
            "weights": sum(map(local, parameters)),
            "whole": sum(p.numel() for p in parameters),
            "recomputing": len(recomputing),
            "own": all(m.forward.args[0] is m for m in recomputing),
            "average": sum(map(local, work.average.values.values())),
        }
    result = update(self, work, phase, batch, step)
    moments = [v for s in optimizer.state.values() for n, v in s.items() if n != "step"]
    sizes[work.stage.name]["moments"] = sum(map(local, moments))
    return result

loop.Trainer._update = looked_at
train("vqvae", data="digits", out=out, config=config, stages=stages, options=options)
rank = torch.distributed.get_rank()
Path(seen, f"{rank}.json").write_text(json.dumps(sizes))
"""


@pytest.fixture(scope="module")
def run(two_processes):
    """Train in two processes; what each had in memory, and what they said."""

    def train_both(out, strategy):
        seen = out.parent / f"seen-{out.name}"
        seen.mkdir(exist_ok=True)
        program = out.parent / "program.py"
        program.write_text(PROGRAM)
        said = two_processes([str(program), str(out), strategy, str(seen)])
        return [json.loads(path.read_text()) for path in sorted(seen.iterdir())], said

    return train_both


def model(out):
    return load_file(out / "model" / "model.safetensors")


def checkpoint(out, step=6):
    folder = out / "checkpoints" / "prior" / f"step-{step:08d}"
    return {path.stem: load_file(path) for path in folder.glob("*.safetensors")}


@pytest.fixture(scope="module")
def copies(tmp_path_factory, run):
    out = tmp_path_factory.mktemp("copies") / "run"
    return out, *run(out, "ddp")


@pytest.fixture(scope="module")
def parts(tmp_path_factory, run):
    out = tmp_path_factory.mktemp("parts") / "run"
    return out, *run(out, "fsdp")


def test_the_weights_are_those_of_whole_copies(copies, parts):
    """Also averages and the optimizer's state, in the same files under the same names.

    Gradients are added in another order: 1e-7 of float32, which Adam's division by their size enlarges.
    """
    one, other = checkpoint(copies[0]), checkpoint(parts[0])
    assert one.keys() == other.keys() == {"model", "averages", "optimizer-prior"}
    for kind, tensors in one.items():
        assert tensors.keys() == other[kind].keys()
        for name, value in tensors.items():
            if name.startswith(("encoder", "decoder", "quantizer")):
                assert torch.equal(value, other[kind][name]), "the tokenizer was trained with copies"
            else:
                torch.testing.assert_close(other[kind][name], value, rtol=1e-3, atol=2e-5)
    saved, again = model(copies[0]), model(parts[0])
    assert saved.keys() == again.keys()
    for name, value in saved.items():
        torch.testing.assert_close(again[name], value, rtol=1e-3, atol=2e-5)
    # The averages are what is saved, and differ from the weights.
    assert any(not torch.equal(saved[n], one["model"][n]) for n in one["averages"])
    assert all(torch.equal(again[n], v) for n, v in other["averages"].items())


def test_each_process_has_a_half(copies, parts):
    """Of the rows of each tensor; an odd number is split unevenly."""
    whole = copies[1][0]["prior"]["whole"]
    for kind, count in {"weights": 1, "gradients": 1, "moments": 2, "average": 1}.items():
        sizes = [seen["prior"][kind] for seen in parts[1]]
        assert sum(sizes) == copies[1][0]["prior"][kind] == count * whole
        assert max(sizes) < 0.52 * count * whole
    for seen in parts[1]:
        assert seen["prior"]["whole"] == whole
        assert seen["tokenizer"] == copies[1][0]["tokenizer"], "not sharded"


def test_blocks_in_parts_recompute(copies, parts):
    for seen in (*copies[1], *parts[1]):
        assert seen["prior"]["recomputing"] == copies[1][0]["prior"]["recomputing"] > 3
        assert seen["prior"]["own"]
        assert seen["tokenizer"]["recomputing"] == 0


def test_what_is_measured_and_drawn_meanwhile_is_the_same(copies, parts):
    lines = [
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (copies[0], parts[0])
    ]
    rated = {"seconds", "steps_per_second"}
    compared = 0
    for one, other in zip(*lines, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - rated:
            if isinstance(one[name], float):
                assert other[name] == pytest.approx(one[name], rel=1e-4), name
                compared += 1
    assert compared > 20
    pictures = [sorted(p.name for p in (out / "samples").iterdir()) for out in (copies[0], parts[0])]
    assert pictures[0] == pictures[1]
    assert any(name.startswith("prior-step") for name in pictures[1])


def test_the_model_is_like_any_other(copies, parts):
    loaded, other = load(parts[0]), load(copies[0])
    test = load_data("digits").test[:64]
    with torch.no_grad():
        bits = [m.log_likelihood(test).mean() for m in (loaded, other)]
    torch.testing.assert_close(*bits, rtol=1e-4, atol=0)
    assert loaded.trained == ("tokenizer", "prior")
    assert loaded.sample(2, generator=torch.Generator().manual_seed(0)).shape == (2, 1, 8, 8)


@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_a_run_in_parts_goes_on_in_parts_or_whole(run, parts, tmp_path, strategy):
    out = tmp_path / "run"
    shutil.copytree(parts[0], out)
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoints" / "prior" / "step-00000006")
    _, said = run(out, strategy)
    assert "going on with stage prior after step 4" in said
    for kind, tensors in checkpoint(parts[0]).items():
        for name, value in checkpoint(out)[kind].items():
            if strategy == "fsdp":
                assert torch.equal(value, tensors[name]), "as if it had never stopped"
            else:
                torch.testing.assert_close(value, tensors[name], rtol=1e-3, atol=2e-5)


def test_a_model_without_blocks_is_refused(tmp_path, monkeypatch):
    def alone(options, **kwargs):
        return build_fabric(replace(options, strategy="ddp"), **kwargs)

    monkeypatch.setattr(loop, "build_fabric", alone)
    options = TrainingOptions(device="cpu", strategy="fsdp")
    problem = "expected a stage that can be sharded, got training of VAE; choose --strategy ddp"
    with pytest.raises(UserError, match=problem):
        train("vae", data="digits", out=tmp_path / "run", options=options)
    assert not (tmp_path / "run").exists()


def test_one_process_has_nothing_to_share(tmp_path):
    options = TrainingOptions(device="cpu", strategy="fsdp")
    with pytest.raises(UserError, match="expected several processes to shard a model over, got one"):
        train("transformer", data="digits", out=tmp_path / "run", options=options)
