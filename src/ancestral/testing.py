"""Checks that anybody can run on a model of their own.

``check_model`` is the contract, ``certify`` measures what a network sees.
"""

import ast
import copy
import dataclasses
import functools
import inspect
import itertools
import math
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import Parameter

from ancestral.batch import Batch
from ancestral.bijections import Bijection
from ancestral.capabilities import ContinuousLatents, Reconstructs, Tokenizer
from ancestral.configuration import from_json, to_json
from ancestral.errors import UserError
from ancestral.evaluation.certificate import Certificate, certify
from ancestral.model import Model
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec
from ancestral.stages import Loss, Phase, Progress, Stage, initialize, owned

__all__ = [
    "CONTINUOUS",
    "SOUNDS",
    "SPECS",
    "Certificate",
    "certify",
    "check_bijection",
    "check_configuration",
    "check_model",
    "enumerate_examples",
]

SPECS = (
    Spec(shape=(1, 2, 2), levels=3),
    Spec(shape=(1, 2, 2), levels=3, classes=2),
    Spec(shape=(2, 2, 2), levels=2),
    Spec(
        shape=(1, 2, 2),
        levels=2,
        contexts=(Spec(shape=(1, 1, 1), levels=2, domain="codes"), Spec(shape=(2, 2, 2), levels=None)),
    ),
)
"""Small enough that every possible example can be enumerated; the one with contexts is for models that take
them."""
SOUNDS = (
    Spec(shape=(1, 4), levels=3, rate=8000),
    Spec(shape=(1, 4), levels=3, classes=2, rate=8000, encoding="mu-law"),
)
"""Small enough likewise: for models of sounds alone."""
CONTINUOUS = (Spec(shape=(2,), levels=None), Spec(shape=(1,), levels=None, classes=2))
"""Small enough that a density can be integrated: for models of tables."""

_DRAWS = 4000
_ROWS = 2048
_NOISES = 100
_UPDATES = 30
"""Updates of each phase: fewer leave batch normalization so far off that a tokenizer gives every example the
same code."""


_ENUMERATED = 2**16
"""Examples that are not too many to enumerate: those of SPECS are at most 256."""

Check = TypeVar("Check", bound=Callable[..., None])


def _naming(check: Check) -> Check:
    """Let a check of a model, or of its class, say its name and the spec with whatever goes wrong in it."""

    @functools.wraps(check)
    def named(subject: Any, *arguments: Any) -> None:
        where = check.__name__ + (f" on {subject.spec}" if isinstance(subject, Model) else "")
        try:
            check(subject, *arguments)
        except AssertionError as error:
            error.add_note(f"found by {where}")
            raise
        except Exception as error:
            raise AssertionError(f"{where} ended in {type(error).__name__}: {error}") from error

    return cast(Check, named)


def check_model(cls: type[Model], specs: tuple[Spec, ...] = SPECS, config: Any = None) -> None:
    """Raise AssertionError, saying what is broken, unless ``cls`` keeps the contract of ``ancestral.model``.

    An error of the model's own is one too, and the cause of the AssertionError, which names the check.

    Args:
        cls: the model's class.
        specs: tiny specs of data that the model takes; each is enumerated (continuous ones are integrated).
            Those with contexts are left out for a model that takes none.
        config: a small configuration; ``cls.Config.tiny()`` if None.

    Raises:
        AssertionError: the contract is broken.
        UserError: ``cls`` is no model's class, or a spec is too large to be enumerated or integrated.
    """
    if not (isinstance(cls, type) and issubclass(cls, Model)):
        raise UserError(f"expected a subclass of ancestral.Model, got {cls!r}", "give the class of a model")
    for spec in specs:
        _check_size(spec)
    check_configuration(cls, config)
    config = config or cast(Any, cls.Config).tiny()
    for spec in specs:
        if spec.contexts and not cls.takes_contexts:
            continue
        torch.manual_seed(0)
        model = _build(cls, config, spec)
        check_training(model)
        for check in CHECKS:
            torch.manual_seed(0)
            check(copy.deepcopy(model))


@torch.no_grad()
def check_bijection(
    bijection: Bijection, x: Tensor, context: Tensor | None = None, *, tolerance: float = 1e-6
) -> None:
    """Raise AssertionError, saying what is wrong, unless a bijection keeps its word.

    In evaluation mode and float64, on a copy: ``inverse`` leads back from ``forward`` and its log-determinant
    is the opposite; that of ``forward`` is autograd's; examples do not depend on each other; nobody's tensors
    are changed. In float32 it leads back as well, to 1e-3 of the range of ``x``. Check it with weights that
    are not those of the start, where many bijections change nothing.

    Args:
        bijection: with weights, on the CPU.
        x: examples ``(N, *shape)``, at least 2, among them the ends of the range.
        context: what it is conditioned on.
        tolerance: of errors, relative to the largest absolute value of what is compared (at least 1).

    Raises:
        AssertionError: it is none.
    """
    for dtype, allowed in ((torch.float64, tolerance), (torch.float32, 1e-3)):
        own = copy.deepcopy(bijection).to(dtype).eval()
        x, context = x.to(dtype), None if context is None else context.to(dtype)
        before = x.clone()
        z, log_det = own(x, context)
        assert torch.equal(x, before), "forward changes the tensor that it is given"
        assert z.numel() == x.numel(), f"forward makes {z.numel()} values of {x.numel()}"
        n = len(x)
        assert log_det.shape == (n,), f"a log-determinant is {tuple(log_det.shape)}, not {(n,)}"
        assert bool(z.isfinite().all() & log_det.isfinite().all()), f"forward is not finite in {dtype}"
        before = z.clone()
        back, log_det_back = own.inverse(z, context)
        assert torch.equal(z, before), "inverse changes the tensor that it is given"
        assert back.shape == x.shape, f"inverse gives {tuple(back.shape)}, not {tuple(x.shape)}"
        _assert_near("inverse does not lead back", back, x, allowed)
        _assert_near("inverse's log-determinant is not the opposite", -log_det_back, log_det, allowed)
        alone = [own(x[i : i + 1], None if context is None else context[i : i + 1]) for i in range(2)]
        both = torch.cat([z for z, _ in alone]), torch.cat([log_det for _, log_det in alone])
        _assert_near("an example depends on others", both[0], z[:2], allowed)
        _assert_near("a log-determinant depends on other examples", both[1], log_det[:2], allowed)
        if dtype == torch.float64:
            for i in range(2):
                _assert_near("forward's log-determinant is not autograd's", _volume(own, x, context, i),
                             log_det[i], allowed)  # fmt: skip


def _volume(bijection: Bijection, x: Tensor, context: Tensor | None, i: int) -> Tensor:
    """Log |det| of the Jacobian at example ``i``."""
    given = None if context is None else context[i : i + 1]

    def flat(row: Tensor) -> Tensor:
        z: Tensor = bijection(row.view(1, *x.shape[1:]), given)[0]
        return z.flatten()

    with torch.enable_grad():
        jacobian = torch.autograd.functional.jacobian(flat, x[i].flatten())
    return torch.linalg.slogdet(jacobian)[1]


def _assert_near(problem: str, got: Tensor, expected: Tensor, tolerance: float) -> None:
    error = float((got - expected).abs().max() / expected.abs().max().clamp(min=1))
    assert error <= tolerance, f"{problem}: off by {error:.1e} in {expected.dtype}"


def _check_size(spec: Spec) -> None:
    if spec.levels is None and spec.dims > 2:
        problem = f"expected 1 or 2 values of continuous data, which are integrated, got {spec.dims}"
        raise UserError(problem, "give a smaller spec")
    if spec.levels is not None and spec.dims * math.log2(spec.levels) > math.log2(_ENUMERATED):
        problem = f"expected a spec of at most {_ENUMERATED:,} possible examples, got {spec}"
        raise UserError(problem, "give a smaller one, as ancestral.testing.SPECS")


def _build(cls: type[Model], config: Any, spec: Spec) -> Model:
    try:
        return cls(config, spec)
    except Exception as error:
        problem = f"building the model for {spec} ended in {type(error).__name__}: {error}"
        raise AssertionError(f"{problem} (check_model takes the specs that the model does)") from error


@_naming
def check_configuration(cls: type[Model], config: Any = None) -> None:
    """Config is a frozen dataclass of documented fields and survives JSON; recipes hold such Configs."""
    assert issubclass(cls.Config, Model.Config), "Config does not derive from Model.Config"
    config_class = cast(Any, cls.Config)
    decorated = "__dataclass_params__" in vars(config_class) or not inspect.get_annotations(cls.Config)
    assert decorated, "Config is no dataclass: put @dataclass(frozen=True, kw_only=True) above it"
    assert config_class.__dataclass_params__.frozen, (
        "Config is not frozen: write @dataclass(frozen=True, ...)"
    )
    has_tiny = config or hasattr(config_class, "tiny")
    assert has_tiny, "Config has no tiny(), a class method that returns a small configuration for tests"
    config = config or config_class.tiny()
    documented = _documented(cls.Config)
    for field in dataclasses.fields(cls.Config):
        problem = f"the field {field.name} of Config has no docstring, which is its help text"
        assert field.name in documented, problem
    assert from_json(cls.Config, to_json(config)) == config, "Config does not survive JSON"
    assert getattr(cls, "recipes", None), "no recipe: the class needs recipes, a mapping of names to Recipes"
    for name, recipe in cls.recipes.items():
        assert isinstance(recipe, Recipe), f"recipe {name} is no Recipe"
        assert isinstance(recipe.model, cls.Config), f"recipe {name} holds no Config of the model"
        known = all(isinstance(o, Optimization) for o in recipe.stages.values())
        assert known, f"recipe {name} lacks an Optimization"


@_naming
def check_training(model: Model) -> None:
    """Train a fresh model briefly, as the loop does, and see that stages and phases do what they say.

    Each phase's loss reaches its own parameters and changes no others, and is the same for the same state,
    before the updates and after; a stage changes only what it owns, so that another run can take it over; a
    shared optimizer knows the parameters; what can be validated is finite without gradients; bits/dim are of
    examples as the spec has them.
    """
    stages = model.stages()
    check_recipes(model)
    parameters = dict(model.named_parameters())  # hundreds, in many updates: looked for once
    constants = {id(p) for p in parameters.values() if not p.requires_grad}
    for i, stage in enumerate(stages):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        batch = _prepared(model, stage)
        with torch.random.fork_rng(devices=[]):
            initialize(model, stage, batch)
        _train_mode(model, stage)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        optimizers: dict[str, torch.optim.Optimizer] = {}
        for phase in stage.phases:
            if phase.optimizer is None:
                optimizers[phase.name] = torch.optim.Adam(phase.parameters, 1e-2, fused=True)
        reached: dict[str, set[int]] = {name: set() for name in optimizers}
        totals: dict[str, Tensor] = {}
        for phase in stage.phases:
            owner = phase.optimizer or phase.name
            problem = f"phase {phase.name} shares the optimizer of {owner}, which has none of its own"
            assert owner in optimizers, problem
            known = {id(p) for group in optimizers[owner].param_groups for p in group["params"]}
            assert all(id(p) in known for p in phase.parameters), (
                f"phase {phase.name} trains parameters that the optimizer of {owner} does not know"
            )
            with _training_only(parameters, phase, constants):
                totals[phase.name] = _check_total(model, phase, batch)
            reached[owner] |= _check_reach(model, stages, i, phase, batch, constants=constants)
        # A lazy regularizer may leave some to the phase whose optimizer it shares.
        for owner, known in reached.items():
            trained = {id(p) for group in optimizers[owner].param_groups for p in group["params"]}
            missed = [n for n, p in parameters.items() if id(p) in trained - known - constants]
            assert not missed, (
                f"phase {owner} does not reach {missed[0]}, which it trains: "
                "no gradient of its loss comes there"
            )
        for step in range(_UPDATES):
            progress = Progress.at(step, _UPDATES)
            for phase in stage.phases:
                optimizer = optimizers[phase.optimizer or phase.name]
                with _training_only(parameters, phase, constants):
                    _update(model, phase, batch, progress, optimizer=optimizer, parameters=parameters)
        end = {name: value.clone() for name, value in model.state_dict().items()}
        for phase in stage.phases:
            model.load_state_dict(start)
            with _training_only(parameters, phase, constants):
                again = _check_total(model, phase, batch)
            _assert_same(phase, totals[phase.name], again)
        model.load_state_dict(end)
        model.zero_grad(set_to_none=True)
        _check_validation(model, stage, batch)
        changed = {name for name, value in model.state_dict().items() if not _same(value, before[name])}
        foreign = sorted(changed - owned(model, stage.modules))
        assert not foreign, f"stage {stage.name} changes {foreign[0]}, which no module of its phases owns"


def check_recipes(model: Model) -> None:
    """Recipes name the model's stages, and the phases of those that have several optimizers.

    Optional stages may be left out. Further names are those of other configurations' stages.
    """
    stages = model.stages()
    needed = [s.name for s in stages if not s.optional]
    for name, recipe in type(model).recipes.items():
        trained = [s.name for s in stages if s.name in recipe.stages]
        assert trained == [n for n in recipe.stages if n in trained], (
            f"recipe {name} names the stages of the model in another order: {list(recipe.stages)}, "
            f"where stages() has {[s.name for s in stages]}"
        )
        assert {*needed} <= {*trained}, f"recipe {name} leaves out a stage that is not optional"
        for stage in stages:
            owners = [phase.name for phase in stage.phases if phase.optimizer is None]
            if stage.name in recipe.stages and (len(owners) > 1 or recipe.stages[stage.name].phases):
                listed = list(recipe.stages[stage.name].phases)
                assert listed == owners, (
                    f"recipe {name} says how {listed} are optimized, not {owners}, "
                    f"the phases of stage {stage.name} that have optimizers"
                )


def _check_total(model: Model, phase: Phase, batch: Batch) -> Tensor:
    """One loss and its gradients: a finite scalar, the same for the same state; leaves the state alone."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    totals = []
    for _ in range(2):
        with _seeded():
            model.zero_grad()
            loss = model.loss(batch, phase.name, Progress.at(1, _UPDATES))
            _check_loss(loss, phase, batch, model.spec)
            loss.total.backward()
            totals.append(loss.total.detach())
        model.load_state_dict(state)
    _assert_same(phase, *totals)
    return totals[0]


def _assert_same(phase: Phase, before: Tensor, after: Tensor) -> None:
    assert torch.equal(before, after), (
        f"the loss of phase {phase.name} depends on more than weights, batch, progress and torch's "
        f"generators: the same ones gave {float(before)}, then {float(after)}"
    )


def _check_loss(loss: Loss, phase: Phase, batch: Batch, spec: Spec) -> None:
    what = f"the loss of phase {phase.name}"
    assert isinstance(loss, Loss), f"{what} is of type {type(loss).__name__}, not ancestral.Loss"
    assert isinstance(loss.total, Tensor), f"{what} has a total that is {loss.total!r}, not a tensor"
    shape = tuple(loss.total.shape)
    assert shape == (), f"{what} is no scalar, but of shape {shape}: take the mean over the batch"
    assert bool(loss.total.isfinite()), f"{what} is not finite: {float(loss.total.detach())}"
    assert loss.total.requires_grad, (
        f"{what} depends on no parameter that the phase trains: it is detached, or the phase is given other "
        "modules"
    )
    for name, value in loss.terms.items():
        term = f"term {name} of phase {phase.name}"
        assert isinstance(value, Tensor), f"{term} is {value!r}, not a tensor"
        assert value.shape == (), f"{term} is no scalar, but of shape {tuple(value.shape)}"
        assert not value.requires_grad, f"{term} holds on to the graph: detach it"
        seen = tuple(batch.x.shape[1:])
        assert not name.endswith("bits_per_dim") or seen == spec.shape, (
            f"{term} is said to be of the data, {spec.shape}, but the phase sees {seen}: "
            "bits for each code are bits_per_code"
        )


def _check_reach(
    model: Model, stages: tuple[Stage, ...], index: int, phase: Phase, batch: Batch, *, constants: set[int]
) -> set[int]:
    """Parameters that a loss's gradient, which was just computed, reaches: no later stage's."""
    progress = Progress.at(1, _UPDATES)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    reached = {id(p) for p in model.parameters() if p.grad is not None}
    own = {id(p) for p in phase.parameters} - constants
    assert reached, f"phase {phase.name} reaches no parameter"
    wrong = [name for name, p in model.named_parameters() if id(p) in reached - own]
    assert not wrong, f"phase {phase.name} reaches {wrong[0]}, which it does not own and which is frozen"
    model.zero_grad()
    with _seeded():
        model.loss(batch, phase.name, progress).total.backward()  # nothing is frozen now
    allowed = {id(p) for s in stages[: index + 1] for module in s.modules for p in module.parameters()}
    wrong = [name for name, p in model.named_parameters() if p.grad is not None and id(p) not in allowed]
    assert not wrong, (
        f"phase {phase.name} reaches {wrong[0]}, which neither its stage nor an earlier one owns"
    )
    model.load_state_dict(state)
    model.zero_grad()
    return reached


def _update(
    model: Model,
    phase: Phase,
    batch: Batch,
    progress: Progress,
    *,
    optimizer: torch.optim.Optimizer,
    parameters: dict[str, Parameter],
) -> None:
    own = {id(p) for p in phase.parameters}
    others = {name: p.detach().clone() for name, p in parameters.items() if id(p) not in own}
    optimizer.zero_grad()
    model.loss(batch, phase.name, progress).total.backward()
    optimizer.step()
    optimizer.zero_grad()
    for name, before in others.items():
        assert torch.equal(parameters[name], before), (
            f"phase {phase.name} changes {name}, which it does not own"
        )


def _check_validation(model: Model, stage: Stage, batch: Batch) -> None:
    model.eval()
    for phase in stage.phases:
        if phase.validated:
            try:
                with torch.no_grad():
                    total = model.loss(batch, phase.name, Progress.at(_UPDATES, _UPDATES)).total
            except RuntimeError as error:
                problem = f"phase {phase.name} must be marked as not validated"
                how = "in evaluation mode, without gradients, its loss ends in"
                raise AssertionError(f"{problem}: {how} {type(error).__name__}: {error}") from error
            problem = f"the loss of phase {phase.name} is not finite on validation examples"
            assert bool(total.isfinite()), problem


def _train_mode(model: Model, stage: Stage) -> None:
    """What the loop does before a stage: everything else stays in evaluation mode."""
    model.eval()
    model.training = True
    for module in stage.modules:
        module.train()


@contextmanager
def _training_only(parameters: dict[str, Parameter], phase: Phase, constants: set[int]) -> Iterator[None]:
    """What the loop does around the loss of a phase: everything else is frozen."""
    active = {id(p) for p in phase.parameters} - constants
    for p in parameters.values():
        p.requires_grad_(id(p) in active)
    yield
    for p in parameters.values():
        p.requires_grad_(id(p) not in constants)


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        yield


@_naming
def check_sample(model: Model) -> None:
    """Samples are of the spec, and a function of the generator alone.

    Options that the model does not take are refused.
    """
    model.eval()
    spec = model.spec
    given = _batch(spec, 5)

    def draw(**options: Any) -> Tensor:
        labels = given.labels if model.sample_classes else None
        generator = torch.Generator().manual_seed(1)
        return model.sample(5, labels, contexts=given.contexts, generator=generator, **options)

    x = draw()
    assert tuple(x.shape) == (5, *spec.shape), f"samples have shape {tuple(x.shape)}"
    assert x.dtype == spec.dtype, f"samples are {x.dtype}, not {spec.dtype}"
    spec.check(x)
    torch.manual_seed(123)
    assert torch.equal(x, draw()), "samples depend on more than the generator: give it to all that is random"
    for name, value in {"temperature": 0.5, "top_k": 1, "top_p": 0.5, "truncation": 1.0}.items():
        try:
            spec.check(draw(**{name: value}))
            taken = True
        except UserError:
            taken = False
        assert taken == (name in model.sampling_options), (
            f"sampling_options are wrong about {name}: sample {'takes' if taken else 'refuses'} it"
        )


@_naming
def check_saving(model: Model) -> None:
    """A saved model loads to the same state, and evaluation leaves the state alone."""
    model.eval()
    given = _batch(model.spec, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        loaded = type(model).from_pretrained(Path(folder) / "model")
    model.sample(2, given.labels if model.sample_classes else None, contexts=given.contexts)
    if isinstance(model, Reconstructs):
        model.reconstruct(given.x)
    kept = loaded.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"evaluation changed {name}"
        assert torch.equal(kept[name], value), f"{name} is lost in saving"
    assert loaded.config == model.config, "the configuration is lost in saving"
    assert loaded.spec == model.spec, "the spec is lost in saving"


@_naming
def check_likelihood(model: Model) -> None:
    """What the likelihood says of itself holds.

    An exact one sums to one over all examples, for each class (of continuous data it integrates to one), and
    samples follow it. Exp of a bound sums to at most one, and more samples make it no looser where they are
    of use. A model without one says so. All in float64.
    """
    model.double().eval()
    if model.likelihood == "none":
        try:
            model.log_likelihood(_batch(model.spec))
        except UserError:
            return
        raise AssertionError("a model whose likelihood is none must not give one")
    with torch.no_grad():
        if model.spec.levels is None:
            _check_density(model)
        elif model.likelihood == "exact":
            _check_exact(model)
        else:
            _check_bound(model)


def _check_exact(model: Model) -> None:
    examples = _examples(model.spec)
    log_prob = model.log_likelihood(examples)
    assert log_prob.shape == (len(examples),), f"the likelihood has shape {tuple(log_prob.shape)}"
    total = float(log_prob.exp().sum())
    assert abs(total - 1) < 1e-6, f"the likelihood sums to {total}, not 1"
    for c in range(model.spec.classes):
        labeled = replace(examples, labels=torch.full((len(examples),), c))
        given = float(model.log_likelihood(labeled).exp().sum())
        assert abs(given - 1) < 1e-6, f"the likelihood of class {c} sums to {given}, not 1"
    contexts = tuple(context[:1].expand(_DRAWS, *context.shape[1:]) for context in examples.contexts)
    drawn = model.sample(_DRAWS, contexts=contexts, generator=torch.Generator().manual_seed(2))
    index = (drawn.long().flatten(1) * _weights(model.spec)).sum(1)
    observed = torch.bincount(index, minlength=len(examples)).double()
    _check_chi_square(observed, log_prob.exp() * _DRAWS)


def _check_bound(model: Model) -> None:
    examples = _examples(model.spec)
    shape = tuple(model.log_likelihood(examples).shape)
    assert shape == (len(examples),), f"the bound has shape {shape}"
    bound = _mean_bound(model, examples, _NOISES)
    total = float(bound.exp().sum())
    assert total <= 1 + 1e-6, f"exp(bound) sums to {total} > 1: it is no bound"
    if model.importance_weighted:
        tighter = _mean_bound(model, examples, _NOISES // 5, 10)
        total = float(tighter.exp().sum())
        assert total <= 1 + 5e-2, f"exp(importance bound) sums to {total} > 1: it is no bound"
        tight = float(tighter.mean()) >= float(bound.mean()) - 1e-3
        assert tight, "the importance-weighted bound is below the other"


def _mean_bound(model: Model, examples: Batch, noises: int, *k: int) -> Tensor:
    """Means over noises, of which many are drawn at a time, by examples that stand there many times."""
    each, sums, done = max(1, _ROWS // len(examples)), torch.zeros(len(examples), dtype=torch.float64), 0
    while done < noises:
        n = min(each, noises - done)
        many = examples.map(lambda tensor: tensor.repeat(n, *[1] * (tensor.dim() - 1)))  # noqa: B023
        sums, done = sums + model.log_likelihood(many, *k).view(n, -1).sum(0), done + n
    return sums / noises


def _check_density(model: Model) -> None:
    """By quadrature in one or two dimensions; a bound integrates to less, its samples are not compared."""
    size, reach = {1: (4000, 30.0), 2: (400, 12.0)}[model.spec.dims]
    axis = torch.linspace(-reach, reach, size, dtype=torch.float64)
    x = torch.cartesian_prod(*[axis] * model.spec.dims).view(-1, *model.spec.shape)
    density = torch.cat([model.log_likelihood(Batch(part)).exp() for part in x.split(20_000)])
    mass = density * (2 * reach / (size - 1)) ** model.spec.dims
    total = float(mass.sum())
    if model.likelihood == "bound":
        assert total <= 1.02, f"exp(bound) integrates to {total} > 1: it is no bound"
        return
    assert abs(total - 1) < 2e-2, f"the density integrates to {total}, not 1"
    drawn = model.sample(_DRAWS, generator=torch.Generator().manual_seed(2)).double().flatten(1)
    mean = (mass.unsqueeze(1) * x.flatten(1)).sum(0) / total
    variance = (mass.unsqueeze(1) * (x.flatten(1) - mean).square()).sum(0) / total
    deviation = (drawn.mean(0) - mean).abs() / (variance / _DRAWS).sqrt()
    assert float(deviation.max()) < 5, "the mean of samples is not that of the density"
    ratio = drawn.var(0) / variance
    assert bool(((ratio > 0.8) & (ratio < 1.25)).all()), "the variance of samples is not that of the density"


@_naming
def check_tokenizer(model: Model) -> None:
    """Code maps have their specs, decode to examples, and the two-part cost is the negative bound."""
    if not isinstance(model, Tokenizer):
        return
    model.eval()
    x = _batch(model.spec).x
    codes = model.tokenize(x)
    for level, spec in zip(codes, model.code_specs(), strict=True):
        assert level.dtype == torch.int64, f"codes are {level.dtype}, not int64"
        spec.check(level)
    model.spec.check(model.detokenize(codes))
    if model.likelihood != "none":
        with torch.no_grad():
            cost = model.distortion(Batch(x), codes) + torch.stack(model.rates(codes)).sum(0)
            bound = model.log_likelihood(Batch(x))
        torch.testing.assert_close(cost, -bound, msg="distortion + rates is not the negative bound")


@_naming
def check_latents(model: Model) -> None:
    """A continuous latent vector embeds and decodes to the spec."""
    if not isinstance(model, ContinuousLatents):
        return
    model.eval()
    batch = _batch(model.spec)
    labels = batch.labels if model.sample_classes else None
    z = model.embed(batch.x, labels)
    assert z.dim() == 2, f"latents have shape {tuple(z.shape)}, not (N, latents)"
    model.spec.check(model.decode(z, labels))


CHECKS: tuple[Callable[[Model], None], ...] = (
    check_sample,
    check_saving,
    check_likelihood,
    check_tokenizer,
    check_latents,
)
"""What ``check_model`` runs, each on a copy of a model that ``check_training`` trained on each spec."""


def enumerate_examples(spec: Spec) -> Tensor:
    """Every possible example of a spec, ``(levels^dims, *shape)``, in lexicographic order.

    >>> enumerate_examples(Spec(shape=(2,), levels=2, domain="codes")).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    values = itertools.product(range(spec.discrete_levels), repeat=spec.dims)
    return torch.tensor(list(values), dtype=spec.dtype).view(-1, *spec.shape)


def _examples(spec: Spec) -> Batch:
    """Every possible example, all with the same contexts."""
    x = enumerate_examples(spec)
    contexts = _batch(spec, 1).contexts
    return Batch(x, contexts=tuple(context.expand(len(x), *context.shape[1:]) for context in contexts))


def _weights(spec: Spec) -> Tensor:
    return spec.discrete_levels ** torch.arange(spec.dims - 1, -1, -1)


def _batch(spec: Spec, n: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(3)

    def values(of: Spec) -> Tensor:
        if of.levels is None:
            return torch.randn(n, *of.shape, generator=generator)
        return torch.randint(of.levels, (n, *of.shape), generator=generator).to(of.dtype)

    labels = torch.arange(n) % spec.classes if spec.classes else None
    return Batch(values(spec), labels, tuple(values(context) for context in spec.contexts))


def _prepared(model: Model, stage: Stage) -> Batch:
    """A batch as the losses of a stage see it."""
    batch = _batch(model.spec)
    model.eval()
    with torch.no_grad():
        batch = stage.prepare(batch) if stage.prepare else batch
        return stage.transform(batch, Progress.at(0, _UPDATES)) if stage.transform else batch


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a, b) or (
        torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
    )


def _documented(cls: type) -> set[str]:
    """The fields of a dataclass and its bases that a docstring follows.

    Of a class whose source is not to be had, all.
    """
    found = set[str]()
    for base in cls.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        try:
            (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except (OSError, TypeError, SyntaxError):
            found |= set(inspect.get_annotations(base))
            continue
        assert isinstance(body, ast.ClassDef)
        for field, following in itertools.pairwise(body.body):
            text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and text:
                found.add(field.target.id)
    return found


def _check_chi_square(observed: Tensor, expected: Tensor) -> None:
    """Pearson's statistic within 5 standard deviations of its mean (rare cells joined)."""
    common = expected >= 5
    observed = torch.cat([observed[common], observed[~common].sum(0, keepdim=True)])
    expected = torch.cat([expected[common], expected[~common].sum(0, keepdim=True)]).clamp(min=1e-9)
    statistic = float(((observed - expected).square() / expected).sum())
    freedom = len(observed) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom) + 5, (
        f"samples do not follow the likelihood (chi-square {statistic:.0f}, {freedom} cells)"
    )
