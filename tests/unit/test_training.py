"""The loop, and what happens when things go wrong.

Exact resume, checkpoints, phases, accumulation, averaging.
"""

import hashlib
import json
import shutil
import signal
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

import ancestral
from ancestral.batch import Batch
from ancestral.data import load_data
from ancestral.errors import UserError
from ancestral.model import Model
from ancestral.recipe import Optimization, Updates
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Stage
from ancestral.training import Diverged, TrainingOptions, checkpoints, train
from ancestral.training.averaging import Average, settle
from ancestral.training.batches import Batches
from ancestral.training.fabric import precision_of
from ancestral.training.journal import Journal
from ancestral.training.loop import Trainer
from ancestral.training.optimizers import learning_rate

STEPS = {"tokenizer": 24, "prior": 16}
TINY = {
    "quantizer": {"codebook_size": 8, "dim": 4},
    "stride": 2,
    "width": 8,
    "blocks": 1,
    "residual_width": 4,
    "components": 2,
    "prior": {"width": 8, "layers": 2, "head": 8, "dropout": 0.1},
}
OPTIONS = TrainingOptions(device="cpu", checkpoint_every=4, evaluate_every=8, sample_every=0, log_every=4)


def tiny_vqvae(out, *, options=OPTIONS, steps=STEPS, ema=0.9, **kwargs):
    stages = {name: {"steps": n, "batch_size": 16, "warmup": 2, "ema": ema} for name, n in steps.items()}
    return train("vqvae", data="digits", out=out, config=TINY, stages=stages, options=options, **kwargs)


def flattened(values, prefix=""):
    for name, value in values.items():
        flag = f"{prefix}{name.replace('_', '-')}"
        yield from flattened(value, f"{flag}.") if isinstance(value, dict) else [(flag, value)]


def command(out):
    flags = [f"--{stage}.{name}={value}" for stage, n in STEPS.items()
             for name, value in {"steps": n, "batch-size": 16, "warmup": 2, "ema": 0.9}.items()]  # fmt: skip
    flags += [f"--model.{name}={value}" for name, value in flattened(TINY)]
    flags += [
        "--device=cpu",
        "--checkpoint-every=4",
        "--evaluate-every=8",
        "--sample-every=0",
        "--log-every=4",
    ]
    return ["train", "vqvae", "--data=digits", f"--out={out}", *flags]


def weights(run):
    return (Path(run) / "model" / "model.safetensors").read_bytes()


def metrics(run):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "steps_per_second")} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    tiny_vqvae(out)
    return out


@pytest.fixture
def start_and_stop(start, stop, tmp_path):
    """Run the command line in a process of its own and send it a signal once ``stage`` has a checkpoint."""

    def start_and_stop(out, stage, number):
        said = tmp_path / "output.txt"
        process = start("from ancestral.cli.main import main; main()", *command(out), said=said)
        there = out / "checkpoints" / stage
        return stop(process, number, lambda: [*there.glob("step-*")]), said.read_text()

    return start_and_stop


@pytest.mark.parametrize("stage", list(STEPS))
def test_killed_run_resumes_to_the_same_weights(undisturbed, start_and_stop, tmp_path, stage):
    out = tmp_path / "run"
    code, _ = start_and_stop(out, stage, signal.SIGKILL)
    assert code == -signal.SIGKILL
    tiny_vqvae(out)
    assert weights(out) == weights(undisturbed)
    assert metrics(out) == metrics(undisturbed)
    assert not list(out.rglob(".*.tmp")), "half-written files are left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signal_saves_and_tells_how_to_go_on(undisturbed, start_and_stop, tmp_path, number):
    out = tmp_path / "run"
    code, output = start_and_stop(out, "tokenizer", number)
    assert code == 128 + number
    assert "saved; go on with: " in output
    assert f"--out={out}" in output
    assert "Traceback" not in output
    tiny_vqvae(out)
    assert weights(out) == weights(undisturbed)


def test_tensorboard_forgets_what_is_done_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, values in (
        (0, [5.0, 4.0, 3.0]),
        (1, [2.0, 1.0]),
    ):  # killed after step 3, with a checkpoint of step 1
        with Journal(tmp_path, Console(quiet=True)) as journal:
            journal.begin_stage("prior", start, 3)
            for step, value in enumerate(values, start + 1):
                journal.write("prior", step, "train", {"loss": value}, steps=3)
        # Files are read in the order of their names, which tell the second.
        (events,) = (tmp_path / "tensorboard" / "prior").glob("events.out.tfevents.*.*")
        events.rename(events.with_name(f"events.out.tfevents.{start}"))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "prior")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/train")] == [
        (1, 5.0),
        (2, 2.0),
        (3, 1.0),
    ]


def test_complete_run_is_left_alone(undisturbed, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in (undisturbed / "checkpoints").rglob("*")} | {
        undisturbed: weights(undisturbed)
    }
    tiny_vqvae(undisturbed)
    assert before == {p: p.stat().st_mtime_ns for p in (undisturbed / "checkpoints").rglob("*")} | {
        undisturbed: weights(undisturbed)
    }


def tear(checkpoint):
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return weights.read_bytes()


def test_torn_checkpoint_is_skipped_and_kept(undisturbed, tmp_path, capsys):
    out = tmp_path / "run"
    tiny_vqvae(out)
    last = sorted((out / "checkpoints" / "prior").iterdir())[-1]
    left = tear(last)
    capsys.readouterr()
    tiny_vqvae(out)
    aside = last.with_name(f"torn-{last.name}")
    said = f"skipped a torn checkpoint, kept as {aside}\ngoing on with stage prior after step 12\n"
    assert said in capsys.readouterr().out
    assert (aside / "model.safetensors").read_bytes() == left
    assert weights(out) == weights(undisturbed)


def test_no_whole_checkpoint_is_said(undisturbed, tmp_path, capsys):
    out = tmp_path / "run"
    tiny_vqvae(out)
    whole = list((out / "checkpoints").glob("*/step-*"))
    for checkpoint in whole:
        tear(checkpoint)
    capsys.readouterr()
    tiny_vqvae(out)
    assert "no whole checkpoint is left: the training starts over" in capsys.readouterr().out
    assert all(checkpoint.with_name(f"torn-{checkpoint.name}").is_dir() for checkpoint in whole)
    assert weights(out) == weights(undisturbed)


def test_only_the_last_checkpoints_are_kept(undisturbed):
    assert [p.name for p in sorted((undisturbed / "checkpoints" / "prior").iterdir())] == [
        "step-00000012",
        "step-00000016",
    ]


def test_other_options_in_the_same_folder_are_an_error_that_names_them(undisturbed):
    with pytest.raises(UserError, match=r"options: --prior\.steps \(16 there, 17 here\)"):
        tiny_vqvae(undisturbed, steps=STEPS | {"prior": 17})
    with pytest.raises(UserError, match=r"options: --seed \(0 there, 1 here\)"):
        tiny_vqvae(undisturbed, options=TrainingOptions(device="cpu", seed=1))


def test_folder_with_something_else_is_an_error(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something else"):
        tiny_vqvae(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_batch_larger_than_the_data_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no larger than the 1536 training examples, got 5000"):
        train(
            "vqvae",
            data="digits",
            out=tmp_path / "run",
            config=TINY,
            stages={"tokenizer": {"batch_size": 5000}},
            options=OPTIONS,
        )
    assert not (tmp_path / "run").exists(), "the mended command must find the folder free"


def test_another_prior_on_an_earlier_tokenizer(undisturbed, tmp_path):
    run = tiny_vqvae(tmp_path / "run", steps=STEPS | {"prior": 8}, start_from=undisturbed)
    old, new = (
        load_file(undisturbed / "model" / "model.safetensors"),
        load_file(run.path / "model" / "model.safetensors"),
    )
    same = {name for name in old if torch.equal(old[name], new[name])}
    assert {name for name in old if name.split(".")[0] in ("encoder", "quantizer", "decoder")} <= same
    assert any(name.startswith("prior") for name in old.keys() - same)
    assert not (run.path / "checkpoints" / "tokenizer").exists()


def test_tokenizer_of_another_size_is_an_error(undisturbed, tmp_path):
    with pytest.raises(UserError, match="leave the options of that stage"):
        train(
            "vqvae",
            data="digits",
            out=tmp_path / "run",
            config=TINY | {"width": 16},
            start_from=undisturbed,
            options=OPTIONS,
        )


class Number(nn.Module):
    """A module of one number."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))


class Toy(Model):
    """Learns one number by two phases; can be told to diverge."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        nan_at: int = -1

    recipes = {}  # noqa: RUF012

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.critic, self.generator = Number(), Number()
        self.register_buffer("calls", torch.zeros(2))

    @property
    def a(self):
        return self.critic.value

    @property
    def b(self):
        return self.generator.value

    def stages(self):
        return (
            Stage(
                "training",
                (Phase("critic", (self.critic,), repeat=2), Phase("generator", (self.generator,), every=2)),
            ),
        )

    def loss(self, batch, phase, progress):
        if self.training:
            self.calls[0 if phase == "critic" else 1] += 1
        p = self.a if phase == "critic" else self.b
        total = (p - batch.x.float().mean() / 16).square() + 0.0 * torch.randn(())
        distance = total.detach()
        if self.calls[0] == self.config.nan_at:
            distance = distance * torch.nan
            total = total * torch.nan
        return Loss(total, {"distance": distance})

    def draw(self, n, labels, contexts, options, *, generator, progress):
        return torch.zeros(n, *self.spec.shape, dtype=torch.uint8)


def fit(model, out, optimization, data=None, **changes):
    data = data or load_data("digits")
    every = {"checkpoint_every": 2, "sample_every": 0, "evaluate_every": 0, "log_every": 1} | changes
    options = TrainingOptions(device="cpu", **every)
    stages = optimization if isinstance(optimization, dict) else {"training": optimization}
    Trainer(model, data, stages, options=options, path=out).fit()
    return model


def fit_toy(out, nan_at=-1, steps=6, checkpoint_every=2, **changes):
    data = load_data("digits")
    toy = Toy(Toy.Config(nan_at=nan_at), data.spec)
    updates = Updates(warmup=0)
    optimization = Optimization(
        steps=steps, batch_size=8, phases={"critic": updates, "generator": updates}, **changes
    )
    return fit(toy, out, optimization, data, checkpoint_every=checkpoint_every)


def test_phases_alternate_as_they_say(tmp_path):
    toy = fit_toy(tmp_path)
    assert toy.calls.tolist() == [12, 3]
    assert toy.a != 0
    assert toy.b != 0


def test_nan_stops_at_once_and_names_stage_phase_step_and_term(tmp_path):
    with pytest.raises(Diverged, match=r"stage training, step 3, phase critic, term distance"):
        fit_toy(tmp_path, nan_at=7)
    steps = sorted(p.name for p in (tmp_path / "checkpoints" / "training").iterdir())
    assert steps == ["step-00000002"], "the last good checkpoint is the one before"
    saved = load_file(tmp_path / "checkpoints" / "training" / steps[-1] / "model.safetensors")
    assert all(value.isfinite().all() for value in saved.values())


def test_accumulation_equals_the_whole_batch(tmp_path):
    whole, parts = fit_toy(tmp_path / "whole"), fit_toy(tmp_path / "parts", accumulate=4)
    assert parts.calls[0] == 4 * whole.calls[0]
    # The gradient of the toy is linear in the mean of x, so that the mean over equal parts is that of the
    # whole up to rounding.
    torch.testing.assert_close(parts.a, whole.a)
    torch.testing.assert_close(parts.b, whole.b)


def test_batches_are_a_function_of_seed_stage_and_number():
    data = Batch(torch.arange(10).view(10, 1), torch.arange(10))
    make = lambda **kw: Batches(data, 4, **({"seed": 0, "stage": "s", "device": torch.device("cpu")} | kw))  # noqa: E731
    batches = make()
    seen = torch.cat([batches[k].x.flatten() for k in range(5)])
    assert sorted(seen[:10].tolist()) == list(range(10)), "an epoch sees every example once"
    assert sorted(seen[10:].tolist()) == list(range(10))
    assert not torch.equal(seen[:10], seen[10:])
    assert torch.equal(make()[3].x, batches[3].x), "batch 3 does not depend on having drawn 0..2"
    assert not torch.equal(make(seed=1)[3].x, batches[3].x)
    assert not torch.equal(make(stage="t")[3].x, batches[3].x)
    halves = [make(rank=rank, processes=2)[3] for rank in (0, 1)]
    assert torch.equal(torch.cat([h.x for h in halves]), batches[3].x)
    assert torch.equal(batches[3].labels, batches[3].x.flatten())


def test_augmentation_is_a_function_of_the_batch_number():
    data = Batch(torch.arange(64, dtype=torch.uint8).view(4, 1, 4, 4))
    flip = lambda x, generator: x if torch.rand((), generator=generator) < 0.5 else x.flip(-1)  # noqa: E731
    one, two = (
        Batches(data, 2, seed=0, stage="s", device=torch.device("cpu"), augment=flip) for _ in range(2)
    )
    _ = [two[k] for k in range(7)]
    assert torch.equal(one[7].x, two[7].x)


def test_average_starts_from_the_weights_and_follows_them():
    layer = nn.Linear(2, 1)
    start = layer.weight.detach().clone()
    average = Average(layer, {"weight", "bias"}, 0.9, updates=1000)
    assert torch.equal(average.values["weight"], start)
    with torch.no_grad():
        layer.weight += 1
    average.update()
    torch.testing.assert_close(average.values["weight"], start + 0.1)
    with average.in_place():
        torch.testing.assert_close(layer.weight.detach(), start + 0.1)
    torch.testing.assert_close(layer.weight.detach(), start + 1)
    early = Average(layer, {"weight"}, 0.9995)
    with torch.no_grad():
        layer.weight += 1
    early.update()  # the first weights, which a start from data may replace at once, are soon forgotten
    torch.testing.assert_close(early.values["weight"], start + 1.9)
    assert (early.updates, average.updates) == (1, 1001)
    on = Average(layer, {"weight", "bias"}, 0.9, {"weight": start + 5})
    assert torch.equal(on.values["weight"], start + 5), "an average goes on from what it was"
    assert torch.equal(on.values["bias"], layer.bias), "what has none yet starts from the weights"


def test_average_that_goes_on_no_more_becomes_the_weights():
    layer = nn.Linear(2, 1)
    raw = layer.bias.detach().clone()
    left = settle(layer, {"weight": torch.ones(1, 2), "bias": torch.ones(1)}, {"bias"})
    assert torch.equal(layer.weight, torch.ones(1, 2))
    assert torch.equal(layer.bias, raw)
    assert left.keys() == {"bias"}


class Drift(Model):
    """Its one number grows by a tenth in each step; validation likes it best at .33."""

    Config = Toy.Config
    recipes = {}  # noqa: RUF012

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.number = Number()

    def loss(self, batch, phase, progress):
        value = self.number.value
        return Loss(-value if self.training else (value - 0.33).square())

    def draw(self, n, labels, contexts, options, *, generator, progress):
        return torch.zeros(n, *self.spec.shape, dtype=torch.uint8)


@pytest.mark.parametrize(("ema", "kept"), [(None, 0.3), (0.5, 0.4)])
def test_the_best_weights_are_kept_even_by_a_run_that_was_killed(tmp_path, capsys, ema, kept):
    optimization = Optimization(
        steps=8, batch_size=8, optimizer="sgd", learning_rate=0.1, schedule="constant", warmup=0, ema=ema,
        keep_best=True,
    )  # fmt: skip

    def run(name, steps=8):
        model = Drift(Toy.Config(), load_data("digits").spec)
        fit(model, tmp_path / name, optimization, evaluate_every=1)
        return model, load_file(tmp_path / name / "model" / "model.safetensors")["number.value"]

    model, saved = run("whole")
    # The average follows the number: it is what was nearest to .33.
    means = [line["loss"] for line in metrics(tmp_path / "whole") if line["split"] == "validation"]
    best = means.index(min(means)) + 1
    assert 1 < best < 8
    assert f"kept the weights of step {best}, the best of stage training" in capsys.readouterr().out
    assert float(saved) == model.number.value.item()
    assert (float(saved) - 0.33) ** 2 == pytest.approx(min(means), abs=1e-6)
    assert float(saved) == pytest.approx(kept, abs=0.07)
    # A checkpoint of a version that kept no best weights is whole, too.
    state = tmp_path / "whole" / "checkpoints" / "training" / "step-00000008" / "state.json"
    content = json.loads(state.read_text())["state"]
    assert content.pop("best_loss") == pytest.approx(min(means))
    assert content.pop("best_step") == best
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    old = tmp_path / "old" / "training" / state.parent.name
    shutil.copytree(state.parent, old)
    (old / "state.json").write_text(json.dumps({"state": content, "digest": digest}))
    assert checkpoints.read(old).best_loss is None
    # A process that was killed after step 6 goes on, long after the best step.
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "model")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "training" / "step-00000008")
    assert torch.equal(run("killed")[1], saved)


class Mute(Drift):
    """Cannot be drawn from."""

    def draw(self, n, labels, contexts, options, *, generator, progress):
        raise UserError("expected finite samples, got others", "lower the temperature")


def test_samples_that_cannot_be_drawn_do_not_end_a_training(tmp_path, capsys):
    optimization = Optimization(steps=2, batch_size=8)
    fit(Mute(Toy.Config(), load_data("digits").spec), tmp_path, optimization, sample_every=1)
    assert "no samples of step 2: expected finite samples, got others" in capsys.readouterr().out
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_learning_rates():
    cosine = Updates(warmup=10, learning_rate=1.0, schedule="cosine")
    assert learning_rate(cosine, 0, 110) == pytest.approx(0.1)
    assert learning_rate(cosine, 9, 110) == pytest.approx(1.0)
    assert learning_rate(cosine, 60, 110) == pytest.approx(0.5)
    assert learning_rate(cosine, 110, 110) == pytest.approx(0.0)
    exponential = Updates(warmup=10, learning_rate=1.0, schedule="exponential", decay=0.5)
    assert learning_rate(exponential, 12, 110) == pytest.approx(0.25)
    assert learning_rate(Updates(warmup=0, schedule="constant"), 77, 110) == 1e-3
    line = Updates(warmup=10, learning_rate=1.0, schedule="linear")
    assert [learning_rate(line, step, 110) for step in (4, 10, 60, 110)] == pytest.approx([0.5, 1, 0.5, 0])
    late = Updates(warmup=0, learning_rate=1.0, schedule="linear", decay_from=0.6, decay_to=0.25)
    assert [learning_rate(late, step, 100) for step in (0, 60, 80, 99)] == pytest.approx([1, 1, 0.5, 0.25])


@pytest.mark.parametrize("batch", [1, 32, 1000])
def test_the_half_life_of_an_average_is_one_of_examples(batch):
    """Weights of 0 that become 1: after so many examples their average is .5, in batches of any size."""
    decay = Optimization(batch_size=batch, ema=8000).average_decay
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)
    average = Average(layer, {"weight"}, decay, updates=10**9)
    nn.init.ones_(layer.weight)
    for _ in range(8000 // batch):
        average.update()
    assert average.values["weight"].item() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "expected steps of at least 1, got 0"),
        ({"batch_size": 10, "accumulate": 3}, "expected accumulate to divide the batch size, got 3 and 10"),
        ({"learning_rate": -1.0}, "expected learning_rate above 0, got -1.0; raise learning_rate"),
        ({"ema": 1.0}, "expected ema below 1, or 10 examples and more, got 1.0; try 0.999, or 20000"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        Optimization(**options)


def test_unknown_names_get_the_nearest(tmp_path):
    for arguments, message in [
        ({"model": "vqvea"}, "did you mean vqvae"),
        ({"recipe": "cifar"}, "did you mean cifar10"),
        (
            {"config": {"quantizer": {"codebok_size": 3}}},
            "got model.quantizer.codebok_size; did you mean codebook_size",
        ),
        ({"stages": {"prio": {}}}, "did you mean prior"),
        ({"config": {"quantizer": {"codebook_size": 1}}}, "quantizer.codebook_size of at least 2, got 1"),
        ({"config": {"stride": 3}}, "power of 2, got 3"),
        ({"config": {"stride": 16}}, "stride 16 divides, got 8x8"),
        ({"config": {"quantizer": {"dim": 0}}}, "expected model.quantizer.dim of at least 1, got 0"),
        ({"config": {"blocks": -1}}, "expected model.blocks of at least 0, got -1"),
        ({"config": {"prior": {"dropout": 1.5}}}, r"dropout in \[0, 1\), got 1.5"),
        ({"model": "vae", "config": {"latents": 0}}, "expected model.latents of at least 1, got 0"),
    ]:
        with pytest.raises(UserError, match=message):
            train(**({"model": "vqvae", "data": "digits", "out": tmp_path / "run"} | arguments))
    assert not (tmp_path / "run").exists()


def test_full_disk_is_an_error_that_says_so(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match="got a full disk; free some space and give the same command again"):
        tiny_vqvae(tmp_path / "run")
    monkeypatch.undo()
    tiny_vqvae(tmp_path / "run", steps={"tokenizer": 24, "prior": 16})


def test_resuming_on_changed_data_is_an_error(tmp_path):
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(40):
        Image.fromarray(torch.randint(256, (8, 8), generator=generator).to(torch.uint8).numpy()).save(
            folder / f"{i}.png"
        )
    arguments = {"data": str(folder), "out": tmp_path / "run", "config": TINY, "options": OPTIONS}
    stages = {name: {"steps": 2, "batch_size": 4} for name in STEPS}
    train("vqvae", stages=stages, **arguments)
    Image.new("L", (8, 8), 7).save(folder / "0.png")
    with pytest.raises(UserError, match="the data's content"):
        train("vqvae", stages=stages, **arguments)
    prepared = r"other options: --images\.size \(None there, \[4, 4\] here\); choose"
    with pytest.raises(UserError, match=prepared):  # and not what follows from that
        train("vqvae", stages=stages, preparation={"size": [4, 4]}, **arguments)


def test_public_names_are_there():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ancestral.__all__:
            assert getattr(ancestral, name) is not None
    with pytest.raises(AttributeError):
        _ = ancestral.nonsense


def test_spec_rejects_what_it_is_not():
    spec = Spec(shape=(1, 2, 2), levels=4, classes=3)
    for x, labels, message in [
        (torch.zeros(1, 1, 2, 3, dtype=torch.uint8), None, "shape"),
        (torch.full((1, 1, 2, 2), 4), None, r"0\.\.3, got 4;"),
        (torch.zeros(1, 1, 2, 2), None, "expected integers"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([3]), r"labels 0\.\.2, got 3;"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 1]), "expected 1 labels"),
    ]:
        with pytest.raises(UserError, match=message):
            spec.check(x, labels)


def test_without_a_compiler_the_step_stays_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ancestral.training.fabric.shutil.which", lambda name: None)
    stages = {"training": {"steps": 2, "batch_size": 16, "compile": True}}
    train(
        "gated-pixelcnn",
        data="digits",
        out=tmp_path / "run",
        config={"width": 8, "layers": 1},
        stages=stages,
        options=OPTIONS,
    )
    assert (
        "not compiling the step of stage training, so slower: there is no C++ compiler (g++ or clang++)"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(("there", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_is_what_pays_on_the_processor(monkeypatch, there, precision):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: there)
    options = TrainingOptions(device="cpu", precision="auto")
    assert precision_of(options) == precision
    assert precision_of(replace(options, precision="64-true")) == "64-true"
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert precision_of(options) == "32-true"
