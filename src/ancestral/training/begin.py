"""Train a model of the taxonomy: what the command ``ancestral train`` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ancestral import runs
from ancestral.configuration import from_json, to_json
from ancestral.data import ImageOptions, load_data
from ancestral.errors import UserError, nearest
from ancestral.model import Model
from ancestral.recipe import Optimization, Recipe
from ancestral.runs import Run
from ancestral.taxonomy import model_class
from ancestral.training.fabric import processes
from ancestral.training.loop import Trainer
from ancestral.training.options import RESULT_OPTIONS, TrainingOptions
from ancestral.training.randomness import derive


def find_recipe(cls: type[Model], name: str | None) -> tuple[str, Recipe]:
    """A recipe of a model by its name, or the model's first. Raises UserError for an unknown name."""
    if name is None:
        return next(iter(cls.recipes.items()))
    if name not in cls.recipes:
        raise UserError(f"expected a recipe of {cls.__name__}, got {name}", nearest(name, cls.recipes))
    return name, cls.recipes[name]


def build(cls: type[Model], config: Any, spec: Any, seed: int) -> Model:
    """A model whose initial weights depend on ``seed`` alone; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, "weights"))
        return cls(config, spec)


def train(
    model: str,
    *,
    data: str,
    out: str | Path,
    recipe: str | None = None,
    config: Any = None,
    stages: Mapping[str, Optimization | Mapping[str, Any]] | None = None,
    images: ImageOptions | None = None,
    options: TrainingOptions | None = None,
    start_from: str | Path | None = None,
) -> Run:
    """Train ``model`` on ``data`` into the run directory ``out``; the same call again resumes, or finds the run complete.

    Args:
        model: a name of the taxonomy.
        data: ``digits``, ``fashion-mnist``, a folder of images or ``hub:OWNER/NAME``.
        out: the run directory.
        recipe: name of the recipe to start from; the model's first if None.
        config: the model's Config, or a mapping of the fields to change in the recipe's.
        stages: by name of a stage, its Optimization or a mapping of the fields to change.
        images: how images are prepared and augmented.
        options: how the training runs.
        start_from: a run whose stages before the last are taken over, so that only the last is trained.

    Raises:
        UserError: anything asked for cannot be done; nothing is overwritten.
        Interrupted: Ctrl-C or SIGTERM; the same call resumes.
    """
    cls = model_class(model)
    recipe_name, chosen = find_recipe(cls, recipe)
    images, options = images or ImageOptions(), options or TrainingOptions()
    base = Run.open(start_from) if start_from is not None else None
    default = (
        from_json(cls.Config, base.manifest["config"], where="model")
        if base and base.model_name == model
        else chosen.model
    )
    config = (
        default
        if config is None
        else from_json(cls.Config, config, where="model", base=default)
        if isinstance(config, Mapping)
        else config
    )
    optimizations = _optimizations(chosen, stages or {})

    dataset = load_data(data, images)
    network = build(cls, config, dataset.spec, options.seed)
    names = [stage.name for stage in network.stages()]
    assert names == list(optimizations), (
        f"the recipe's stages {list(optimizations)} are not the model's {names}"
    )
    begin = _take_over(network, base, names) if base else None
    result_options = {name: getattr(options, name) for name in RESULT_OPTIONS} | {"processes": processes()}
    manifest = runs.manifest(
        cls,
        config=to_json(config),
        spec=to_json(dataset.spec),
        stages=to_json(optimizations),
        data=dataset,
        images=to_json(images),
        options=to_json(options),
        result_options=result_options,
        recipe=recipe_name,
        source=chosen.source,
    )
    manifest |= {"parameters": _parameters(network)} | ({"from": str(start_from)} if base else {})
    trainer = Trainer(
        network, dataset, optimizations, images=images, options=options, path=Path(out), begin=begin
    )
    if trainer.fabric.is_global_zero:
        Run.create(Path(out), manifest)
        dataset.write_splits(Path(out) / "splits.json")
    trainer.fabric.barrier()
    run = Run.open(out)
    trainer.fit()
    return run


def _optimizations(
    recipe: Recipe, changes: Mapping[str, Optimization | Mapping[str, Any]]
) -> dict[str, Optimization]:
    for name in changes:
        if name not in recipe.stages:
            raise UserError(f"expected a stage of the model, got {name}", nearest(name, recipe.stages))
    result = dict(recipe.stages)
    for name, change in changes.items():
        result[name] = (
            change
            if isinstance(change, Optimization)
            else from_json(Optimization, change, where=name, base=result[name])
        )
    return result


def _parameters(model: Model) -> dict[str, int]:
    """Trained parameters of each stage."""
    return {
        stage.name: sum(p.numel() for phase in stage.phases for p in phase.parameters)
        for stage in model.stages()
    }


def _take_over(model: Model, base: Run, stages: list[str]) -> str:
    """Copy the weights of every stage but the last from ``base``; the name of the last."""
    if len(stages) < 2:
        raise UserError(
            f"expected a model of several stages for --from, got {type(model).__name__} with one",
            "leave --from out",
        )
    there, here = base.manifest["spec"], to_json(model.spec)
    if (there["levels"], there["shape"][0]) != (here["levels"], here["shape"][0]):
        kind = f"{there['levels']} levels in {there['shape'][0]} channels"
        raise UserError(
            f"expected a run on data like these, got one on {kind}: {base.path}",
            "use the same kind of images",
        )
    source = base.load_model().state_dict()
    last = {id(p) for phase in model.stages()[-1].phases for p in phase.parameters}
    learned_last = {name for name, p in model.named_parameters() if id(p) in last}
    prefixes = tuple({name.split(".")[0] + "." for name in learned_last})
    own = model.state_dict()
    for name, value in own.items():
        if name.startswith(prefixes):
            continue
        if name not in source or source[name].shape != value.shape:
            got = tuple(source[name].shape) if name in source else "nothing"
            raise UserError(
                f"expected the weights of stage {stages[0]} in {base.path}, got {name} as {got}, not {tuple(value.shape)}",
                "leave the options of that stage as they are in the run",
            )
        value.copy_(source[name])
    return stages[-1]
