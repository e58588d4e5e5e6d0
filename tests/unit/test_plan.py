"""Which stages a training trains, which it takes over from which runs, and what then belongs together."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from test_phases import OPTIONS, Hierarchy

import ancestral
from ancestral.cli import main as commands
from ancestral.data.preparation import Preparation
from ancestral.errors import UserError
from ancestral.figures import Evaluation
from ancestral.model import Model
from ancestral.models.latent.vae import VAE
from ancestral.recipe import Optimization, Recipe
from ancestral.runs import Run
from ancestral.stages import Stage, owned
from ancestral.testing import check_recipes
from ancestral.training import TrainingOptions, train
from ancestral.training.plan import Plan, find_recipe

STAGES = (
    Stage("tokenizer", ()),
    Stage("top", (), needs=("tokenizer",)),
    Stage("middle", (), needs=("tokenizer",)),
    Stage("bottom", (), needs=("tokenizer",)),
    Stage("classifier", (), optional=True, needs=()),
    Stage("upsampler", (), needs=("bottom",)),
)


def plan_of(*names, runs=0):
    stages = {name: Optimization(steps=i + 1) for i, name in enumerate(names)}
    bases = tuple(Run(Path(f"run{i}"), {}) for i in range(runs))
    return Plan(Hierarchy, "r", "", None, stages, Preparation(), TrainingOptions(), bases)


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (
            ("tokenizer", "top", "bottom"),
            {"tokenizer": 1, "top": 2, "middle": 3, "bottom": 3, "upsampler": 3},
        ),
        (
            ("bottom", "classifier"),
            {"tokenizer": 1, "top": 1, "middle": 1, "bottom": 1, "classifier": 2, "upsampler": 2},
        ),
        (
            ("tokenizer", "coarsest", "upsampler"),
            {"tokenizer": 1, "top": 3, "middle": 3, "bottom": 3, "upsampler": 3},
        ),
    ],
)
def test_a_stage_that_the_recipe_does_not_name_is_optimized_like_its_neighbor(names, steps):
    fitted = plan_of(*names).fitted(STAGES).stages
    assert {name: o.steps for name, o in fitted.items()} == steps
    assert list(fitted) == [s.name for s in STAGES if s.name in fitted], "in the model's order"


def test_a_model_without_recipes_is_an_error():
    class Own(VAE):
        recipes: ClassVar = {}

    with pytest.raises(
        UserError, match="expected a model with recipes, got Own without; give the class recipes"
    ):
        find_recipe(Own, None)


def test_a_recipe_of_other_stages_is_an_error():
    with pytest.raises(UserError, match=r"expected a recipe for the stages tokenizer, top, .* got training"):
        plan_of("training").fitted(STAGES)


ALL = tuple(s.name for s in STAGES if s.name != "classifier")


@pytest.mark.parametrize(
    ("runs", "only", "there", "trained"),
    [
        (0, (), (), ALL),
        (0, ("tokenizer",), (), ("tokenizer",)),
        (0, ("bottom", "tokenizer"), (), ("tokenizer", "bottom")),
        (1, (), ALL, ("upsampler",)),
        (1, (), ("tokenizer",), ALL[1:]),
        (1, ("bottom",), ("tokenizer",), ("bottom",)),
        (1, ("upsampler",), ("tokenizer", "bottom"), ("upsampler",)),
        (1, ("top",), ALL, ("top",)),
        (2, (), ("tokenizer", "top", "bottom"), ("middle", "upsampler")),
        (2, (), ALL, ()),
        (2, ("bottom", "upsampler"), ALL, ("bottom", "upsampler")),
    ],
)
def test_what_is_trained(runs, only, there, trained):
    assert plan_of(*ALL, runs=runs).trained(STAGES, only, there) == trained


@pytest.mark.parametrize(
    ("runs", "only", "there", "message"),
    [
        (
            0,
            ("upsampler", "tokenizer"),
            (),
            "expected to train stage bottom too, got tokenizer, upsampler alone; name a run to take it from "
            "with --from",
        ),
        (
            1,
            ("upsampler",),
            ("tokenizer",),
            "expected to train stage bottom too, got upsampler alone; add bottom to --stages, or name a run",
        ),
        (
            1,
            ("bottom",),
            ALL,
            "expected to train stage upsampler too, which builds on bottom, got bottom; add upsampler to",
        ),
        (
            2,
            ("tokenizer",),
            ("tokenizer", "upsampler", "bottom"),
            "expected to train stage bottom too, which builds on tokenizer, got tokenizer",
        ),
        (0, ("classifier",), (), "expected a stage to train, got classifier"),
    ],
)
def test_what_cannot_be_trained(runs, only, there, message):
    with pytest.raises(UserError, match=message):
        plan_of(*ALL, runs=runs).trained(STAGES, only, there)


def run_of(out, model=Hierarchy, **arguments):
    return train(model, data="digits", out=out, **({"options": OPTIONS} | arguments))


def weights(run):
    return load_file(run.path / "model" / "model.safetensors")


def differing(one, two):
    """The modules that one of two models alone has, or whose weights differ."""
    first, second = weights(one), weights(two)
    same = {name for name in first.keys() & second.keys() if torch.equal(first[name], second[name])}
    return {name.rpartition(".")[0] for name in (first.keys() | second.keys()) - same}


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


@pytest.fixture(scope="module")
def stranger(folder):
    """A bottom prior on another tokenizer."""
    return run_of(folder / "stranger", only=("tokenizer", "bottom"), options=replace(OPTIONS, seed=1))


def test_a_run_of_some_stages_is_complete(tokenizer):
    assert tokenizer.trained == ("tokenizer",)
    assert tokenizer.manifest["only"] == ["tokenizer"]
    before = {path: path.stat().st_mtime_ns for path in tokenizer.path.rglob("*")}
    run_of(tokenizer.path, only=("tokenizer",))
    assert before == {path: path.stat().st_mtime_ns for path in tokenizer.path.rglob("*")}
    with pytest.raises(UserError, match="a run with other options: --stages"):
        run_of(tokenizer.path)


def test_lost_weights_of_such_a_run_are_written_again_as_what_they_are(tokenizer):
    (tokenizer.path / "model" / "model.safetensors").unlink()
    assert run_of(tokenizer.path, only=("tokenizer",)).trained == ("tokenizer",)


def test_priors_apart_are_those_of_one_training(folder, tokenizer, top, bottom):
    assert (top.trained, bottom.trained) == (("tokenizer", "top"), ("tokenizer", "bottom"))
    joined = run_of(folder / "joined", start_from=(top.path, bottom.path))
    assert joined.trained == ("tokenizer", "top", "bottom")
    assert joined.manifest["from"] == [str(top.path), str(bottom.path)]
    assert not (joined.path / "checkpoints").exists(), "nothing was trained"
    assert joined.load_model().can_sample(joined.trained)
    for whole in (
        run_of(folder / "both", start_from=tokenizer.path),
        run_of(folder / "at once", recipe="small"),
    ):
        assert differing(joined, whole) == set(), "apart, together or in one go: the same weights"
    before = {path: path.stat().st_mtime_ns for path in joined.path.rglob("*")}
    run_of(joined.path, start_from=[top.path, bottom.path])
    assert before == {path: path.stat().st_mtime_ns for path in joined.path.rglob("*")}
    (joined.path / "model" / "config.json").unlink()
    run_of(joined.path, start_from=[top.path, bottom.path])
    assert differing(joined, whole) == set(), "killed before it was written, it is joined again"
    with pytest.raises(UserError, match=r"a run with other options: --from .*there"):
        run_of(joined.path, start_from=[bottom.path, top.path])


def test_what_no_run_has_is_trained(folder, tokenizer, bottom):
    run = run_of(folder / "rest", start_from=[tokenizer.path, bottom.path])
    assert run.manifest["only"] == ["top"]
    assert run.trained == ("tokenizer", "top", "bottom")
    assert "priors.1" not in differing(run, bottom)


def test_the_first_run_that_has_a_stage_gives_it(folder, top, bottom, stranger):
    run = run_of(folder / "first", start_from=[top.path, bottom.path, stranger.path])
    assert "priors.1" not in differing(run, bottom)


def test_stages_of_several_tokenizers_do_not_belong_together(folder, top, bottom, stranger):
    message = (
        r"got bottom of \S+/stranger, which learned with other weights than .* of \S+/top \(\S+\); leave one"
    )
    with pytest.raises(UserError, match=message):
        run_of(folder / "wrong", start_from=[top.path, stranger.path])
    with pytest.raises(UserError, match=r"got top of .*/top, which learned with other weights than"):
        run_of(folder / "wrong", start_from=[stranger.path, top.path])
    assert not (folder / "wrong").exists()


class Configured(Hierarchy):
    """With an option of one stage, and of all."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

        bottom: int = 1
        """Of the stage called so."""
        factor: float = 1.0
        """Of all."""

    recipes = {"small": replace(Hierarchy.recipes["small"], model=Config())}  # noqa: RUF012

    def loss(self, batch, phase, progress):
        loss = super().loss(batch, phase, progress)
        factor = self.config.factor * (self.config.bottom if phase == "bottom" else 1)
        return replace(loss, total=loss.total * factor)


def test_options_of_a_stage_come_with_it_and_all_others_must_agree(tmp_path):
    make = lambda name, **arguments: run_of(tmp_path / name, Configured, **arguments)  # noqa: E731
    base = make("base", only=("tokenizer",))
    top = make("top", start_from=base.path, only=("top",))
    bottom = make("bottom", start_from=base.path, only=("bottom",), config={"bottom": 3})
    for name, runs in (("one", [top, bottom]), ("other", [bottom, top])):
        joined = make(name, start_from=[run.path for run in runs])
        assert joined.manifest["config"] == {"bottom": 3, "factor": 1.0}
    odd = make("odd", start_from=base.path, only=("bottom",), config={"factor": 2.0})
    message = r"the options of \S+odd, which bottom comes from, got others: factor \(2.0 there, 1.0 here\)"
    with pytest.raises(UserError, match=message):
        make("wrong", start_from=[top.path, odd.path])


def test_a_recipe_for_other_numbers_of_levels_fits(tmp_path, digits_spec):
    stage = Optimization(steps=2, batch_size=8, warmup=0)

    class Fewer(Hierarchy):
        recipes = {  # noqa: RUF012
            "large": Recipe(
                source="a toy",
                model=Hierarchy.Config(),
                stages=dict.fromkeys(("tokenizer", "top", "middle", "bottom"), stage),
            )
        }

    run = run_of(tmp_path / "run", Fewer)
    assert list(run.manifest["stages"]) == ["tokenizer", "top", "bottom"]
    model = Fewer(Fewer.Config(), digits_spec)
    check_recipes(model)
    swapped = replace(Fewer.recipes["large"], stages=dict.fromkeys(("top", "tokenizer", "bottom"), stage))
    lacking = replace(swapped, stages=dict.fromkeys(("tokenizer", "top"), stage))
    for recipe, message in ((swapped, "in another order"), (lacking, "leaves out a stage")):
        Fewer.recipes = {"large": recipe}
        with pytest.raises(AssertionError, match=message):
            check_recipes(model)


@pytest.fixture(scope="module")
def digits_spec():
    return ancestral.load_data("digits").spec


TINY = (
    "--model.quantizer.codebook-size 8 --model.quantizer.dim 4 --model.stride 2 --model.width 8 "
    "--model.blocks 1 --model.residual-width 4 --model.components 2 "
    "--model.prior.width 8 --model.prior.layers 1 --model.prior.head 8"
)
SHORT = "--device cpu --tokenizer.steps 4 --tokenizer.batch-size 16 --prior.steps 4 --prior.batch-size 16"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone") / "tok"
    line = f"train vqvae --data digits --stages tokenizer {TINY} {SHORT} --out {path}"
    assert commands.run(line.split()) == 0
    return path


def test_a_tokenizer_alone_says_what_it_lacks(alone, capsys):
    assert commands.run(["sample", str(alone), "--n", "2"]) == 2
    assert capsys.readouterr().err == (
        "ancestral: expected a model with all stages trained, got one without prior; train it: "
        f"ancestral train vqvae --data digits --stages prior --from {alone} --out FOLDER\n"
    )
    with pytest.raises(UserError, match=r"without prior; train it: .* --stages prior --from \S+tok"):
        ancestral.sample(alone, 2)
    with pytest.raises(UserError, match="train the rest: --stages prior, with --from its run"):
        ancestral.sample(ancestral.load(alone), 2)
    with pytest.raises(UserError, match="without prior; train it"):
        ancestral.evaluate(alone, measures=["samples"])


def test_a_tokenizer_alone_is_measured_and_reported(alone, capsys):
    assert commands.run(["evaluate", str(alone)]) == 0
    output = capsys.readouterr().out
    assert output.endswith("\n\nleft out: what takes a prior, or samples, since prior is not trained\n")
    found = Evaluation.read(alone / "evaluation.json")
    ids = [figure.id for figure in found.figures]
    assert ids == [
        "nelbo_uniform_prior",
        "decoder",
        "codebook_perplexity_0",
        "reconstruction_mse",
        "reconstruction_psnr",
    ]
    uniform = 16 * 3 / 64  # bits/dim: 4x4 codes of 3 bits for 64 pixels
    assert found["nelbo_uniform_prior"] == pytest.approx(found["decoder"] + uniform)
    assert found.codebooks[0].size == 8
    assert commands.run(["report", str(alone)]) == 0
    assert "Left out: what takes a prior" in (alone / "report.html").read_text()


def test_the_rest_is_trained_and_joined_and_measured_in_full(alone, tmp_path):
    line = f"train vqvae --data digits --from {alone} {SHORT} --out {tmp_path / 'prior'}"
    assert commands.run(line.split()) == 0
    line = f"train vqvae --data digits --from {alone} {tmp_path / 'prior'} --out {tmp_path / 'joined'}"
    assert commands.run(line.split()) == 0
    joined, prior = Run.open(tmp_path / "joined"), Run.open(tmp_path / "prior")
    assert differing(joined, prior) == set()
    assert json.loads((joined.path / "run.json").read_text())["only"] == []
    assert commands.run(["report", str(joined.path)]) == 0
    found = ancestral.evaluate(joined.path)
    assert not found.left_out
    assert found["nelbo_codes_decoder"] == pytest.approx(found["decoder"] + found["codes"])
    assert ancestral.sample(joined, 2)[0].shape == (2, 1, 8, 8)


def test_every_option_belongs_to_the_priors_that_it_builds(digits_spec):
    from ancestral.models.latent.vqvae2 import VQVAE2

    config = replace(VQVAE2.Config.tiny(), strides=(4, 2, 1))
    model = VQVAE2(config, digits_spec)
    for field, names in {"top_prior": ["top"], "lower_prior": ["middle", "bottom"]}.items():
        other = VQVAE2(replace(config, **{field: replace(getattr(config, field), width=10)}), digits_spec)
        shapes = {name: weights.shape for name, weights in model.state_dict().items()}
        changed = {n for n, t in other.state_dict().items() if t.shape != shapes.get(n)}
        hit = [s.name for s in other.stages() if changed & owned(other, s.modules)]
        assert hit == names == [s.name for s in model.stages() if field in VQVAE2.options_of(s.name)]


def test_options_of_a_stage_that_the_data_do_not_have_are_an_error():
    plan = plan_of("tokenizer", "top", "bottom").changed(stages={"top": {"steps": 9}})
    with pytest.raises(
        UserError, match="expected options of the stages tokenizer, got some of top; leave --top out"
    ):
        plan.fitted([s for s in STAGES if s.name == "tokenizer"])
