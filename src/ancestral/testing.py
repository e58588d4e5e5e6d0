"""Checks that anybody can run on a model of their own: the contract (``check_model``) and what a network sees (``certify``)."""

import copy
import dataclasses
import inspect
import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ancestral.evaluation.certificate import Certificate, certify
from ancestral.configuration import from_json, to_json
from ancestral.model import (
    Batch,
    ContinuousLatents,
    ExactLikelihood,
    LowerBound,
    Model,
    Reconstructs,
    Tokenizer,
)
from ancestral.recipe import Optimization, Recipe
from ancestral.spec import Spec

__all__ = ["SPECS", "Certificate", "certify", "check_configuration", "check_model", "enumerate_examples"]

SPECS = (
    Spec(shape=(1, 2, 2), levels=3),
    Spec(shape=(1, 2, 2), levels=3, classes=2),
    Spec(shape=(2, 2, 2), levels=2),
)
"""Small enough that every possible example can be enumerated."""

_DRAWS = 4000
_NOISES = 200


def check_model(cls: type[Model], specs: tuple[Spec, ...] = SPECS, config: Any = None) -> None:
    """Raise AssertionError, saying what is broken, unless ``cls`` keeps the contract of ``ancestral.model``.

    Args:
        cls: the model's class.
        specs: tiny specs of data that the model takes; each is enumerated.
        config: a small configuration; ``cls.Config.tiny()`` if None.
    """
    check_configuration(cls)
    for spec in specs:
        torch.manual_seed(0)
        model = cls(config or cls.Config.tiny(), spec)
        _train_briefly(model)
        for check in CHECKS:
            torch.manual_seed(0)
            check(copy.deepcopy(model))


def check_configuration(cls: type[Model]) -> None:
    """Config is a frozen dataclass of documented fields, survives JSON, and the recipes name the model's stages."""
    config = cls.Config.tiny()
    parameters = getattr(cls.Config, "__dataclass_params__", None)
    assert parameters is not None, "Config is no dataclass"
    assert parameters.frozen, "Config is not frozen"
    source = inspect.getsource(cls.Config)
    fields = dataclasses.fields(cls.Config)
    own = [f for f in fields if f.name in vars(cls.Config).get("__annotations__", {})]
    assert source.count('        """') >= len(own), (
        "a field of Config has no docstring, which is its help text"
    )
    assert from_json(cls.Config, to_json(config)) == config, "Config does not survive JSON"
    assert cls.recipes, "no recipe"
    for name, recipe in cls.recipes.items():
        assert isinstance(recipe, Recipe), f"recipe {name} is no Recipe"
        assert isinstance(recipe.model, cls.Config), f"recipe {name} holds no Config of the model"
        assert all(isinstance(o, Optimization) for o in recipe.stages.values()), (
            f"recipe {name} lacks an Optimization"
        )


def check_stages(model: Model) -> None:
    """Stages are those of the recipes; each phase's loss is a finite scalar whose gradient reaches its parameters and no others."""
    stages = model.stages()
    for name, recipe in type(model).recipes.items():
        assert [s.name for s in stages] == list(recipe.stages), (
            f"recipe {name} names other stages than the model"
        )
    model.train()
    for stage in stages:
        batch = _batch(model.spec)
        if stage.prepare is not None:
            model.eval()
            with torch.no_grad():
                batch = stage.prepare(batch)
            model.train()
        for phase in stage.phases:
            model.zero_grad()
            loss = model.loss(batch, phase.name)
            assert loss.total.shape == (), f"the loss of phase {phase.name} is no scalar"
            assert bool(loss.total.isfinite()), f"the loss of phase {phase.name} is not finite"
            for term, value in loss.terms.items():
                assert value.shape == (), f"term {term} is no scalar"
                assert not value.requires_grad, f"term {term} holds on to the graph"
            loss.total.backward()
            reached = {id(p) for p in model.parameters() if p.grad is not None}
            missed = [
                n for n, p in model.named_parameters() if id(p) in {id(q) for q in phase.parameters} - reached
            ]
            assert not missed, f"phase {phase.name} does not reach {missed[0]}"


def check_sample(model: Model) -> None:
    """Samples are integers of the spec, and a function of the generator alone."""
    model.eval()
    spec = model.spec

    def draw() -> Tensor:
        return model.sample(
            5, _labels(spec, 5) if model.sample_classes else None, generator=torch.Generator().manual_seed(1)
        )

    x = draw()
    assert tuple(x.shape) == (5, *spec.shape), f"samples have shape {tuple(x.shape)}"
    assert x.dtype == spec.dtype, f"samples are {x.dtype}, not {spec.dtype}"
    spec.check(x)
    torch.manual_seed(123)
    assert torch.equal(x, draw()), "samples depend on more than the generator"


def check_saving(model: Model) -> None:
    """A saved model loads to the same state, and evaluation leaves the state alone."""
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        loaded = type(model).from_pretrained(Path(folder) / "model")
    model.sample(2, _labels(model.spec, 2) if model.sample_classes else None)
    if isinstance(model, Reconstructs):
        model.reconstruct(_batch(model.spec).x)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"evaluation changed {name}"
        assert torch.equal(loaded.state_dict()[name], value), f"{name} is lost in saving"
    assert loaded.config == model.config, "the configuration is lost in saving"
    assert loaded.spec == model.spec, "the spec is lost in saving"


def check_exact_likelihood(model: Model) -> None:
    """An exact likelihood sums to one over all examples, for each class, and samples follow it (chi-square)."""
    if not isinstance(model, ExactLikelihood):
        return
    model.double().eval()
    x = enumerate_examples(model.spec)
    with torch.no_grad():
        log_prob = model.log_prob(Batch(x))
        total = float(log_prob.exp().sum())
        assert abs(total - 1) < 1e-6, f"the likelihood sums to {total}, not 1"
        for c in range(model.spec.classes):
            given = float(model.log_prob(Batch(x, torch.full((len(x),), c))).exp().sum())
            assert abs(given - 1) < 1e-6, f"the likelihood of class {c} sums to {given}, not 1"
        drawn = model.sample(_DRAWS, generator=torch.Generator().manual_seed(2))
    index = (drawn.long().flatten(1) * _weights(model.spec)).sum(1)
    observed = torch.bincount(index, minlength=len(x)).double()
    _check_chi_square(observed, log_prob.exp() * _DRAWS)


def check_lower_bound(model: Model) -> None:
    """Exp of a lower bound sums to at most one over all examples; the importance-weighted bound is no lower than the ELBO."""
    if not isinstance(model, LowerBound) or not model.has_likelihood:
        return
    model.double().eval()
    x = enumerate_examples(model.spec)
    with torch.no_grad():
        elbo = torch.stack([model.elbo(Batch(x)) for _ in range(_NOISES)]).mean(0)
        importance = torch.stack([model.importance_bound(Batch(x), 10) for _ in range(_NOISES)]).mean(0)
    assert elbo.shape == (len(x),), f"the ELBO has shape {tuple(elbo.shape)}"
    total = float(elbo.exp().sum())
    assert total <= 1 + 1e-6, f"exp(ELBO) sums to {total} > 1: it is no bound"
    total = float(importance.exp().sum())
    assert total <= 1 + 5e-2, f"exp(importance bound) sums to {total} > 1: it is no bound"
    assert bool((importance.mean() >= elbo.mean() - 1e-3).all()), (
        "the importance-weighted bound is below the ELBO"
    )


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
    if isinstance(model, LowerBound) and model.has_likelihood:
        with torch.no_grad():
            cost = model.distortion(x, codes) + torch.stack(model.rates(codes)).sum(0)
            torch.testing.assert_close(
                cost, -model.elbo(Batch(x)), msg="distortion + rates is not the negative ELBO"
            )


def check_latents(model: Model) -> None:
    """A continuous latent vector embeds and decodes to the spec."""
    if not isinstance(model, ContinuousLatents):
        return
    model.eval()
    z = model.embed(_batch(model.spec).x)
    assert z.dim() == 2, f"latents have shape {tuple(z.shape)}, not (N, latents)"
    model.spec.check(model.decode(z))


CHECKS: tuple[Callable[[Model], None], ...] = (
    check_stages,
    check_sample,
    check_saving,
    check_exact_likelihood,
    check_lower_bound,
    check_tokenizer,
    check_latents,
)
"""What ``check_model`` runs, each on a copy of a model that was trained briefly on each spec."""


def enumerate_examples(spec: Spec) -> Tensor:
    """Every possible example of a spec, ``(levels^dims, *shape)``, in lexicographic order."""
    values = itertools.product(range(spec.discrete_levels), repeat=spec.dims)
    return torch.tensor(list(values), dtype=spec.dtype).view(-1, *spec.shape)


def _weights(spec: Spec) -> Tensor:
    return spec.discrete_levels ** torch.arange(spec.dims - 1, -1, -1)


def _batch(spec: Spec, n: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(spec.discrete_levels, (n, *spec.shape), generator=generator).to(spec.dtype)
    return Batch(x, _labels(spec, n))


def _labels(spec: Spec, n: int) -> Tensor | None:
    return torch.arange(n) % spec.classes if spec.classes else None


def _train_briefly(model: Model) -> None:
    """Some steps of every phase, so that weights are nobody's initial values and running statistics are those of the data."""
    batch = _batch(model.spec)
    for stage in model.stages():
        model.eval()
        with torch.no_grad():
            prepared = stage.prepare(batch) if stage.prepare else batch
        model.train()
        for phase in stage.phases:
            optimizer = torch.optim.Adam(phase.parameters, 1e-2)
            for _ in range(
                30
            ):  # fewer leave batch normalization so far off that a tokenizer gives every example the same code
                optimizer.zero_grad()
                model.loss(prepared, phase.name).total.backward()
                optimizer.step()
    model.zero_grad(set_to_none=True)


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
