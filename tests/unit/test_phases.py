"""What stages and phases promise, on toys.

Games with penalties, shared optimizers, averages that go on, priors that are taken over.
"""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ancestral.batch import Batch
from ancestral.data import load_data
from ancestral.errors import UserError
from ancestral.model import Model
from ancestral.models.autoregressive.wavenet import WaveNet
from ancestral.models.latent.vae import VAE
from ancestral.recipe import Optimization, Recipe, Updates
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Stage, owned
from ancestral.testing import CONTINUOUS, check_model, check_training
from ancestral.training import TrainingOptions, train
from ancestral.training.loop import Trainer

OPTIONS = TrainingOptions(device="cpu", checkpoint_every=2, evaluate_every=2, sample_every=0, log_every=1)
STEP = Updates(warmup=0, schedule="constant", gradient_clip=None)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def fit(model, out, stages, data, **changes):
    torch.manual_seed(0)
    trainer = Trainer(model, data, stages, options=replace(OPTIONS, **changes), path=out)
    trainer.fit()
    return trainer


def saved(out, stage, step):
    return load_file(out / "checkpoints" / stage / f"step-{step:08d}" / "model.safetensors")


class Game(Model):
    """A critic with a gradient penalty and a lazy R1 phase, and a generator.

    Wasserstein with everything that needs a gradient inside.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

        latents: int = 2
        """Dimensions of z."""

        @classmethod
        def tiny(cls):
            return cls()

    recipes = {  # noqa: RUF012
        "small": Recipe(source="a toy", model=Config(), stages={
            "training": Optimization(steps=4, batch_size=8, phases={
                "critic": replace(STEP, betas=(0.0, 0.9), learning_rate=1e-2),
                "generator": replace(STEP, betas=(0.5, 0.9), learning_rate=1e-3),
            }),
        }),
    }  # fmt: skip

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.critic = nn.Sequential(
            nn.Flatten(), nn.Linear(spec.dims, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)
        )
        self.generator = nn.Sequential(
            nn.Linear(config.latents, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, spec.dims)
        )

    def stages(self):
        return (
            Stage(
                "training",
                (
                    Phase("critic", (self.critic,), validated=False, repeat=2),
                    Phase("r1", (self.critic,), optimizer="critic", validated=False, every=2),
                    Phase("generator", (self.generator,)),
                ),
                averaged=(self.generator,),
            ),
        )

    def fake(self, n):
        z = torch.randn(n, self.config.latents, device=self.device, dtype=self.dtype)
        return self.generator(z).view(n, *self.spec.shape)

    def penalty(self, x, target):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - target).square().mean()

    def loss(self, batch, phase, progress):
        real = self.scale(batch.x)
        if phase == "generator":
            return Loss(-self.critic(self.fake(len(batch))).mean())
        if phase == "r1":
            return Loss(self.penalty(real, 0.0))
        fake = self.fake(len(batch)).detach()
        distance = self.critic(fake).mean() - self.critic(real).mean()
        mixed = real + torch.rand(len(batch), *[1] * len(self.spec.shape)) * (fake - real)
        return Loss(distance + 10 * self.penalty(mixed, 1.0), {"distance": distance.detach()})

    def draw(self, n, labels, contexts, options, *, generator, progress):
        z = (
            torch.randn(n, self.config.latents, generator=generator, device=self.device, dtype=self.dtype)
            * options.temperature
        )
        x = self.generator(z).view(n, *self.spec.shape)
        return x if self.spec.levels is None else self.spec.unscale(x)


GAME = Game.recipes["small"].stages["training"]


def test_a_game_keeps_the_contract():
    check_model(Game)
    check_model(Game, CONTINUOUS)


def test_a_gradient_penalty_trains_and_only_what_can_be_validated_is(tmp_path, digits):
    fit(Game(Game.Config(), digits.spec), tmp_path, {"training": GAME}, digits)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    validation = [line for line in lines if line["split"] == "validation"]
    assert [line["step"] for line in validation] == [2, 4]
    assert set(validation[0]) - {"stage", "step", "split"} == {"generator_loss"}
    train_terms = {
        "critic_loss",
        "critic_distance",
        "r1_loss",
        "generator_loss",
        "critic_learning_rate",
        "generator_learning_rate",
    }
    assert train_terms <= set(lines[0])
    assert (lines[0]["critic_learning_rate"], lines[0]["generator_learning_rate"]) == (1e-2, 1e-3)


def test_a_phase_that_shares_an_optimizer_goes_on_with_its_state(tmp_path, digits):
    trainer = fit(Game(Game.Config(), digits.spec), tmp_path, {"training": GAME}, digits)
    folder = tmp_path / "checkpoints" / "training" / "step-00000004"
    assert sorted(f.name for f in folder.glob("optimizer-*")) == [
        "optimizer-critic.safetensors",
        "optimizer-generator.safetensors",
    ]
    state = load_file(folder / "optimizer-critic.safetensors")
    # 4 steps with 2 updates of the critic each, and R1 in every second step; the penalties do not see the
    # last bias.
    steps = {name: float(value) for name, value in state.items() if name.endswith(".step")}
    assert steps["0.step"] == 4 * 2 + 2
    assert trainer.optimizations["training"].of("critic").betas == (0.0, 0.9)


def test_an_average_is_of_the_generator_alone_and_is_what_is_saved(tmp_path, digits):
    model = fit(
        Game(Game.Config(), digits.spec), tmp_path, {"training": replace(GAME, ema=0.9)}, digits
    ).model
    averages = load_file(tmp_path / "checkpoints" / "training" / "step-00000004" / "averages.safetensors")
    raw, final = saved(tmp_path, "training", 4), load_file(tmp_path / "model" / "model.safetensors")
    assert averages.keys() == {
        name for name in raw if name.startswith("generator.") and raw[name].is_floating_point()
    }
    for name, value in final.items():
        assert torch.equal(value, averages.get(name, raw[name])), name
        assert torch.equal(model.state_dict()[name], value), "what fit leaves behind is what samples use"
    assert any(not torch.equal(averages[name], raw[name]) for name in averages)


def test_a_killed_game_ends_with_the_same_weights(tmp_path, digits):
    options = {"training": replace(GAME, ema=0.9, steps=6)}
    fit(Game(Game.Config(), digits.spec), tmp_path / "whole", options, digits)
    fit(Game(Game.Config(), digits.spec), tmp_path / "cut", options, digits)
    for name in ("step-00000006", "step-00000004"):  # as if it had been killed after step 5
        folder = tmp_path / "cut" / "checkpoints" / "training" / name
        if name.endswith("6"):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    fit(Game(Game.Config(), digits.spec), tmp_path / "cut", options, digits)
    whole, cut = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


class Growing(Model):
    """Two stages that train the same body, and each a top of its own, as a growing generator does."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

        @classmethod
        def tiny(cls):
            return cls()

    recipes = {  # noqa: RUF012
        "small": Recipe(
            source="a toy",
            model=Config(),
            stages={
                name: Optimization(steps=5, batch_size=8, warmup=0, learning_rate=1e-2, ema=0.9)
                for name in ("low", "high")
            },
        ),
    }

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.body, self.low, self.high = nn.Linear(spec.dims, 4), nn.Linear(4, 1), nn.Linear(4, 1)

    def stages(self):
        return tuple(
            Stage(
                name,
                (Phase(name, (self.body, getattr(self, name))),),
                averaged=(self.body,),
                transform=self.faded,
                samples=False,
            )
            for name in ("low", "high")
        )

    def faded(self, batch, progress):
        noise = torch.rand(batch.x.shape)  # the step's own
        return Batch(batch.x.double() + (noise if self.training else 0.5), batch.labels)

    def loss(self, batch, phase, progress):
        features = self.body(batch.x.flatten(1).to(self.dtype) / 16)
        return Loss((getattr(self, phase)(features) - progress.ramp(4)).square().mean())

    def draw(self, n, labels, contexts, options, *, generator, progress):
        return torch.zeros(n, *self.spec.shape, dtype=self.spec.dtype)


GROWING = Growing.recipes["small"].stages


def test_an_average_goes_on_through_the_stages_while_the_weights_stay_raw(tmp_path, digits):
    fit(Growing(Growing.Config(), digits.spec), tmp_path, GROWING, digits, checkpoint_every=1, keep=9)
    after_low, after_high = saved(tmp_path, "low", 5), saved(tmp_path, "high", 1)
    averages = [
        load_file(tmp_path / "checkpoints" / stage / f"step-0000000{step}" / "averages.safetensors")
        for stage, step in (("low", 5), ("high", 1), ("high", 5))
    ]
    # One step of Adam moves a weight by at most its learning rate: the second stage began where the first
    # one's own weights were.
    assert float((after_high["body.weight"] - after_low["body.weight"]).abs().max()) <= 1.01e-2
    assert float((after_low["body.weight"] - averages[0]["body.weight"]).abs().max()) > 0
    weight = 1 - 1 / 10  # its first update: quick in each stage
    expected = averages[0]["body.weight"].lerp(after_high["body.weight"], weight)
    torch.testing.assert_close(averages[1]["body.weight"], expected)
    final = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(final["body.weight"], averages[2]["body.weight"])
    states = [
        json.loads(
            (tmp_path / "checkpoints" / stage / "step-00000005" / "state.json").read_text(encoding="utf-8")
        )["state"]["updates"]
        for stage in ("low", "high")
    ]
    assert states == [5, 5]


@pytest.mark.parametrize(("stage", "kept"), [("low", 3), ("high", 2), ("high", 0)])
def test_averages_and_noise_of_steps_resume(tmp_path, digits, stage, kept):
    for name in ("whole", "cut"):
        fit(
            Growing(Growing.Config(), digits.spec),
            tmp_path / name,
            GROWING,
            digits,
            checkpoint_every=1,
            keep=9,
        )
    folder = tmp_path / "cut" / "checkpoints"
    for path in folder.glob("*/step-*"):  # as after a kill: nothing newer than the kept step of the stage
        later = path.parent.name == "high" and stage == "low"
        if later or (path.parent.name == stage and int(path.name[5:]) > kept):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    fit(Growing(Growing.Config(), digits.spec), tmp_path / "cut", GROWING, digits, checkpoint_every=1, keep=9)
    whole, cut = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_growing_keeps_the_contract():
    check_training(Growing(Growing.Config(), Spec(shape=(1, 2, 2), levels=3)))


class Hierarchy(Model):
    """A tokenizer, two priors in one ModuleList and a classifier that nobody needs.

    Stages as a hierarchical VQ-VAE has them.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

        @classmethod
        def tiny(cls):
            return cls()

    _STAGE = Optimization(steps=3, batch_size=8, warmup=0)
    recipes = {  # noqa: RUF012
        "small": Recipe(
            source="a toy",
            model=Config(),
            stages=dict.fromkeys(("tokenizer", "top", "bottom"), _STAGE),
        ),
        "sorted": Recipe(
            source="a toy",
            model=Config(),
            stages=dict.fromkeys(("tokenizer", "top", "bottom", "classifier"), _STAGE),
        ),
    }

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.tokenizer = nn.Sequential(nn.Linear(spec.dims, 4), nn.BatchNorm1d(4))
        self.priors = nn.ModuleList(nn.Linear(4, 1) for _ in range(2))
        self.classifier = nn.Linear(spec.dims, 2)
        self.register_buffer("shift", torch.zeros(4))

    def stages(self):
        top, bottom = self.priors
        return (
            Stage(
                "tokenizer", (Phase("tokenizer", (self.tokenizer,)),), samples=False, initialize=self.center
            ),
            Stage("top", (Phase("top", (top,)),), prepare=self.codes, samples=False, needs=("tokenizer",)),
            Stage("bottom", (Phase("bottom", (bottom,)),), prepare=self.codes, needs=("tokenizer",)),
            Stage("classifier", (Phase("classifier", (self.classifier,)),), optional=True, needs=()),
        )

    def center(self, batch):
        self.shift.copy_(self.tokenizer(batch.x.flatten(1).to(self.dtype)).mean(0) + 1)

    def codes(self, batch):
        return Batch(self.tokenizer(batch.x.flatten(1).to(self.dtype)) + self.shift, batch.labels)

    def loss(self, batch, phase, progress):
        x = batch.x.flatten(1).to(self.dtype)
        module = {
            "tokenizer": self.tokenizer,
            "top": self.priors[0],
            "bottom": self.priors[1],
            "classifier": self.classifier,
        }[phase]
        return Loss((module(x) - 1).square().mean())

    def draw(self, n, labels, contexts, options, *, generator, progress):
        return torch.zeros(n, *self.spec.shape, dtype=self.spec.dtype)


def run_of(out, **arguments):
    return train(Hierarchy, data="digits", out=out, options=OPTIONS, **arguments)


def weights(run):
    return load_file(run.path / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("base") / "run")


def trained_names(run):
    return {path.name for path in (run.path / "checkpoints").iterdir()}


@pytest.mark.parametrize(
    ("only", "anew"),
    [
        ((), {"priors.1"}),
        (("bottom",), {"priors.1"}),
        (("top",), {"priors.0"}),
        (("top", "bottom"), {"priors.0", "priors.1"}),
    ],
)
def test_another_run_is_taken_over_by_ownership_not_by_names(base, tmp_path, only, anew):
    seed = replace(OPTIONS, seed=7)
    recipe = (
        {} if only else {"only": ("bottom",)}
    )  # the classifier is last, and is not trained by this recipe
    run = train(
        Hierarchy,
        data="digits",
        out=tmp_path / "run",
        options=seed,
        start_from=base.path,
        **({"only": only} | recipe),
    )
    old, new = weights(base), weights(run)
    differing = {
        name.rpartition(".")[0]
        for name in old
        if not torch.equal(old[name], new[name]) and "classifier" not in name
    }
    assert differing == anew
    assert trained_names(run) == set(only or ("bottom",))
    assert run.load_model().trained == ("tokenizer", "top", "bottom")
    assert torch.equal(new["shift"], old["shift"]), "a buffer that no module owns comes along"


def test_stages_that_would_be_worthless_or_missing_are_said(base, tmp_path):
    for arguments, message in [
        (
            {"only": ("tokenizer",), "start_from": base.path},
            "expected to train stage top too, which builds on tokenizer, got tokenizer; add top",
        ),
        (
            {"only": ("top",)},
            "expected to train stage tokenizer too, got top alone; name a run to take it from with --from",
        ),
        (
            {"only": ("botom",), "start_from": base.path},
            "expected a stage to train, got botom; did you mean bottom",
        ),
        ({"only": ("classifier",), "start_from": base.path}, "expected a stage to train, got classifier"),
        (
            {"model": "vae", "start_from": base.path},
            "expected a run of the same model to start from, got .*Hierarchy",
        ),
    ]:
        with pytest.raises(UserError, match=message):
            train(
                **(
                    {"model": Hierarchy, "data": "digits", "out": tmp_path / "run", "options": OPTIONS}
                    | arguments
                )
            )
    assert not (tmp_path / "run").exists()


def test_an_optional_stage_is_trained_where_the_recipe_has_it(tmp_path):
    run = run_of(tmp_path / "run", recipe="sorted")
    assert trained_names(run) == {"tokenizer", "top", "bottom", "classifier"}
    without = run_of(tmp_path / "without", recipe="sorted", only=("tokenizer", "top", "bottom"))
    assert trained_names(without) == {"tokenizer", "top", "bottom"}
    model = without.load_model()
    model.check_trained()
    assert model.can_sample(("tokenizer", "top", "bottom"))
    assert not model.can_sample(("tokenizer", "bottom"))
    model.trained = ("tokenizer", "bottom")
    with pytest.raises(UserError, match="expected a model with all stages trained, got one without top"):
        model.check_trained()


def test_initialize_is_run_once_before_the_first_step_and_counts_no_statistics(tmp_path, digits, monkeypatch):
    calls = []
    center = Hierarchy.center

    def noted(self, batch):
        calls.append((len(batch), self.training, torch.is_grad_enabled()))
        center(self, batch)

    monkeypatch.setattr(Hierarchy, "center", noted)
    stages = {"tokenizer": Optimization(steps=4, batch_size=8, warmup=0, accumulate=2)}
    model = fit(Hierarchy(Hierarchy.Config(), digits.spec), tmp_path, stages, digits).model
    assert calls == [(4, True, False)], "a part of the accumulated batch, in training mode"
    assert int(model.tokenizer[1].num_batches_tracked) == 4 * 2, (
        "batch normalization counts the parts of steps alone"
    )
    assert bool((model.shift != 0).any())
    last = tmp_path / "checkpoints" / "tokenizer" / "step-00000004"
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    fit(Hierarchy(Hierarchy.Config(), digits.spec), tmp_path, stages, digits)
    assert len(calls) == 1, "a resumed training has started from data already"


def test_what_a_stage_does_not_train_stays_in_evaluation_mode(tmp_path, digits):
    stages = {"top": Optimization(steps=2, batch_size=8)}
    model = Hierarchy(Hierarchy.Config(), digits.spec)
    before = model.tokenizer[1].running_mean.clone()
    seen = []
    loss = model.loss
    model.loss = lambda *arguments: (
        seen.append((model.training, model.priors[0].training, model.tokenizer.training)) or loss(*arguments)
    )
    Trainer(
        model, digits, stages, options=replace(OPTIONS, evaluate_every=0), path=tmp_path, taken=("tokenizer",)
    ).fit()
    assert seen[0] == (True, True, False)
    assert torch.equal(model.tokenizer[1].running_mean, before)


def test_ownership_follows_modules_parameters_and_buffers():
    model = Hierarchy(Hierarchy.Config(), Spec(shape=(1, 2, 2)))
    assert owned(model, [model.tokenizer]) == {
        name for name in model.state_dict() if name.startswith("tokenizer.")
    }
    assert owned(model, [model.priors[1]]) == {"priors.1.weight", "priors.1.bias"}


def test_the_rates_warm_up_does_not_hurry_when_batches_are_split(tmp_path, digits):
    """Issue row 1: with accumulate=4 the warm-up ran four times too fast.

    The model counted its own calls.
    """
    seen = []

    class Watched(VAE):
        def loss(self, batch, phase, progress):
            seen.append((int(progress.step), progress.steps, float(progress.ramp(4))))
            return super().loss(batch, phase, progress)

    model = Watched(replace(VAE.Config.tiny(), rate_warmup=4), digits.spec)
    fit(
        model,
        tmp_path,
        {"training": Optimization(steps=3, batch_size=8, accumulate=4)},
        digits,
        evaluate_every=0,
    )
    assert seen[:12] == [(step, 3, step / 4) for step in range(3) for _ in range(4)]
    assert {step for step, _, _ in seen[12:]} == {2}, "the end of the stage validates, at its last step"
    assert not [name for name, _ in model.named_buffers() if "steps" in name]


def test_sequences_train_to_the_end_with_pictures(tmp_path, digits):
    """Issue row 7: WaveNet on (1, T) died in a ValueError when the stage's end drew a picture."""
    spec = Spec(shape=(1, 64), levels=17, rate=8000, encoding="linear")
    parts = {
        name: Batch(getattr(digits, name).x.flatten(2)[:, 0][:, None])
        for name in ("train", "validation", "test")
    }
    data = replace(digits, spec=spec, **parts)
    model = fit(
        WaveNet(WaveNet.Config.tiny(), spec),
        tmp_path,
        {"training": Optimization(steps=2, batch_size=8)},
        data,
    ).model
    assert model.sample(2).shape == (2, 1, 64)
    assert (tmp_path / "samples" / "training-step-000002.png").is_file()


# What check_model must find: each toy is the game or the hierarchy with one fault.


def faulty(cls, **changes):
    made = type("Faulty", (cls,), changes)
    return made(cls.Config(), Spec(shape=(1, 2, 2), levels=3))


def test_a_loss_that_reaches_a_later_stage_is_found():
    """Issue row 2: the docstring promised "and no others", and a loss that reached every parameter passed."""

    def loss(self, batch, phase, progress):
        total = Hierarchy.loss(self, batch, phase, progress).total
        return Loss(total + (0 * self.priors[1].weight.sum() if phase == "tokenizer" else 0))

    with pytest.raises(
        AssertionError,
        match=r"phase tokenizer reaches priors\.1\.weight, which neither its stage nor an earlier one owns",
    ):
        check_training(faulty(Hierarchy, loss=loss))


def test_a_loss_that_thaws_what_is_frozen_is_found():
    def loss(self, batch, phase, progress):
        self.generator.requires_grad_(True)
        return Loss(self.critic(self.fake(len(batch))).mean())

    with pytest.raises(
        AssertionError,
        match=r"phase critic reaches generator\.\S+, which it does not own and which is frozen",
    ):
        check_training(faulty(Game, loss=loss))


def test_a_phase_that_misses_its_own_parameters_is_found():
    def stages(self):
        return (Stage("training", (Phase("critic", (self.critic, self.generator), validated=False),)),)

    with pytest.raises(AssertionError, match=r"phase critic does not reach generator\.0\.weight"):
        check_training(faulty(Game, stages=stages, recipes={}))


def test_a_shared_optimizer_that_does_not_know_the_parameters_is_found():
    def stages(self):
        phases = (
            Phase("critic", (self.critic,), validated=False),
            Phase("r1", (self.generator,), optimizer="critic", validated=False),
        )
        return (Stage("training", phases),)

    with pytest.raises(
        AssertionError, match="phase r1 trains parameters that the optimizer of critic does not know"
    ):
        check_training(faulty(Game, stages=stages, recipes={}))


def test_a_phase_that_cannot_be_validated_is_found():
    def stages(self):
        critic = Phase("critic", (self.critic,), validated=False)
        r1 = Phase("r1", (self.critic,), optimizer="critic")
        return (Stage("training", (critic, r1)),)

    message = r"phase r1 must be marked as not validated: .*does not require grad"
    with pytest.raises(AssertionError, match=message):
        check_training(faulty(Game, stages=stages, recipes={}))


def test_statistics_that_no_stage_owns_are_found():
    def loss(self, batch, phase, progress):
        if self.training:
            self.shift += 1
        return Hierarchy.loss(self, batch, phase, progress)

    with pytest.raises(
        AssertionError, match="stage tokenizer changes shift, which no module of its phases owns"
    ):
        check_training(faulty(Hierarchy, loss=loss))


def test_a_model_that_counts_its_calls_is_found():
    def loss(self, batch, phase, progress):
        self.calls = getattr(self, "calls", 0) + 1
        loss = Hierarchy.loss(self, batch, phase, progress)
        return Loss(loss.total * self.calls)

    with pytest.raises(
        AssertionError, match="depends on more than weights, batch, progress and torch's generators"
    ):
        check_training(faulty(Hierarchy, loss=loss))


def test_a_recipe_that_forgets_a_phase_is_found():
    recipe = replace(Game.recipes["small"], stages={"training": Optimization()})
    with pytest.raises(
        AssertionError, match=r"recipe small says how \[\] are optimized, not \['critic', 'generator'\]"
    ):
        check_training(faulty(Game, recipes={"small": recipe}))


class Gaussian(Model):
    """A density of tables: independent normals, each class with its own mean."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Model.Config):
        """Options."""

        @classmethod
        def tiny(cls):
            return cls()

    recipes = {"small": Recipe(source="a toy", model=Config())}  # noqa: RUF012

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.net = nn.ParameterList([torch.zeros(max(1, spec.classes), spec.dims), torch.zeros(spec.dims)])

    @property
    def sample_classes(self):
        return self.spec.classes

    @property
    def likelihood(self):
        return "exact" if self.spec.levels is None else "none"

    def normal(self):
        return torch.distributions.Normal(self.net[0], self.net[1].exp())

    def log_likelihood(self, batch, k=1):
        self.check_importance_samples(k)
        by_class = self.normal().log_prob(batch.x.to(self.dtype).flatten(1)[:, None]).sum(2)
        if batch.labels is not None and self.sample_classes:
            return by_class.gather(1, batch.labels[:, None])[:, 0]
        return by_class.logsumexp(1) - torch.tensor(float(by_class.shape[1])).log()

    def loss(self, batch, phase, progress):
        return Loss(-self.log_likelihood(batch).mean())

    def draw(self, n, labels, contexts, options, *, generator, progress):
        mean = self.net[0][labels if labels is not None else torch.zeros(n, dtype=torch.long)]
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return (
            (mean + noise * self.net[1].exp() * options.temperature)
            .view(n, *self.spec.shape)
            .to(self.spec.dtype)
        )


def test_a_density_of_tables_keeps_the_contract():
    check_model(Gaussian, CONTINUOUS)


def test_a_density_that_does_not_integrate_to_one_is_found():
    class Wrong(Gaussian):
        def log_likelihood(self, batch, k=1):
            return super().log_likelihood(batch, k) + 0.1

    with pytest.raises(AssertionError, match=r"the density integrates to 1\.1\d*, not 1"):
        check_model(Wrong, CONTINUOUS)


def test_samples_of_another_density_are_found():
    class Wrong(Gaussian):
        def draw(self, *arguments, **options):
            return 1.2 * super().draw(*arguments, **options)

    with pytest.raises(AssertionError, match="of samples is not that of the density"):
        check_model(Wrong, CONTINUOUS)


def test_a_table_trains_from_a_file(tmp_path):
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1
    (tmp_path / "table.csv").write_text("a,b\n" + "\n".join(f"{float(a)},{float(b)}" for a, b in x) + "\n")
    stages = {"training": {"steps": 4, "batch_size": 16}}
    run = train(
        Gaussian, data=f"table:{tmp_path / 'table.csv'}", out=tmp_path / "run", stages=stages, options=OPTIONS
    )
    model = run.load_model()
    assert (model.spec.domain, model.spec.levels, model.spec.shape) == ("table", None, (2,))
    assert run.preparation.kind == "table"
    assert model.sample(5).shape == (5, 2)
    assert (run.path / "samples" / "training-step-000004.png").is_file()
    with pytest.raises(UserError, match=r"expected finite values, got NaN or infinity 2 times"):
        model.spec.check(torch.tensor([[0.0, float("nan")], [float("inf"), 1.0]]))
